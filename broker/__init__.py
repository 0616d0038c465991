"""What every process of ours shares, the ``broker`` process, and the ``formidler`` command.

* ``routing``: every topic, group and right, by name. ``record``: what a record is, and its headers.
* ``delivery``: how one kommune's søknader are delivered, decided without IO; ``delivery_messages`` go in and out, ``retry`` says
  which errors pass. *What is done before an offset is committed, and what waits for what*, stands at the top of the first.
* ``ports``: what we need of a message broker; ``kafka`` has it, and ``catch_up`` reads to the end. ``embedded`` is a whole Kafka.
* ``katalog``: what we know about each kommune; ``katalog_publisher`` puts it on its topic. ``register``: Norway's kommuner.
* ``sqlite``: many writes to a commit. ``files``: private and whole. ``clock``, ``log``, ``metrics``, ``runtime``, ``settings``.
* ``web``: what our HTTP doors have in common, with ``body_limit`` and ``http_guard``. ``tokens`` checks who calls, and ``issuer``
  makes tokens where there is no other.
* ``app``, ``registry_api``, ``process``, ``__main__``: the ``broker`` process.
* ``supervisor``: ``formidler up``. ``cli``: the command itself.
"""
