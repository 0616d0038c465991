"""Kvitteringer and status: what came of each søknad, proved, folded and shown to its owner.

From the inside out:

* ``lifecycle``: the table of the citizen's status. What may follow what, and why topics may race.
* ``facts``: all that is remembered about a søknad: three lists, one for each source.
* ``chain``: whether a kvittering is real, continues its chain, and speaks of what was sent. *What happens when a kvittering
  comes twice, or forged, or before its søknad*, stands at the top of that file.
* ``hendelser``: opening a case update, and what of it may be kept in clear.
* ``projection``: the fold, pure. ``views``: what it looks like from outside.
* ``reading``: from a record to a fact, or to the reason why it is none. ``dead_letters``: what becomes of the latter.
* ``store``: records, states, offsets and what must go out, in one transaction. ``applier`` fills it, ``follower`` decides which
  topics are read, ``outbox`` empties the queue, ``rebuild`` does it all again and compares.
* ``app``: the HTTP doors, with ``hub`` and ``stream`` for live status. ``verification`` and ``cli``: proof without a network.
* ``settings``, ``metrics``, ``process``, ``__main__``: the process.
"""
