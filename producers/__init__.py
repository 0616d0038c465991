"""The intake: from a sender's request to two durable records, and from there to the topics.

From the outside in:

* ``app``: Fiks Digisos' submission contract over HTTP. ``library``: the same way in by a Python call.
* ``reception``: one submission under way; ``places`` says who gets in. ``multipart`` and ``parts``: its body as a stream.
* ``intake``: the core. What is let in, sealed and written down; ``checks`` are its rules and ``envelopes`` its memory of what
  clients sealed. ``spill``: where a package lies until it is accepted. ``messages``: the records that come of it.
* ``outbox``: what was accepted and is not yet on its topics. ``relay`` empties it. *What happens when Kafka is away* stands at
  the top of the latter.
* ``dokumentlager``: packages that are too large for a record; ``package_routes`` hands them to connectors.
* ``http_client``, ``status_client``, ``dokument``, ``cli``: the sender's and the citizen's side. ``demo``: a day, played.
* ``settings``, ``metrics``, ``process``, ``__main__``: the process.
"""
