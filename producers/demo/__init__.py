"""``formidler demo``: a day among six kommuner, played from outside over HTTP and judged by what can be checked.

It lives with ``producers`` because it plays the portal, with the portal's own client. What it wants to know of the other
edges it asks as a stranger would: over HTTP, from files on disk, and by ``formidler kvittering verify`` as a command.

``plan`` is what will happen (pure), ``portal``, ``attacker`` and ``fagsystem`` are who acts, ``play`` lets them, ``journey`` is
what the citizen saw, ``verdict`` and ``scan`` judge, ``show`` prints.
"""
