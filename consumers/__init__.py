"""The connector: from a kommune's topic to its fagsystem, and what the fagsystem says back again.

From the outside in:

* ``connector``: the contract with a fagsystem. A vendor implements that file and nothing more; ``connectors`` has three of ours.
* ``app``, ``settings``, ``cli``, ``process``, ``__main__``: the process. ``metrics``: what it counts.
* ``runner``: one kommune, for as long as the process lives. ``session``: one subscription, around ``broker.delivery``, which
  decides. ``delivering``: what is decided for one record, carried out. ``guard``: a vendor's code must not break us.
* ``opening``: from a record to verified files; ``dokumentlager_client`` fetches those that are too large for it.
* ``dedup``: the local store, every answer before it is sent. ``kvitteringer`` signs and publishes; ``rebuild`` brings a lost
  store back from the topic.
* ``dead_letters``: what cannot be delivered. *What a record that breaks our own code comes to* stands at the top of
  ``delivering``.
* ``hendelser``: later answers and case updates, the other way.
* ``simulator``: an invented fagsystem, for the demo and for tests.
"""
