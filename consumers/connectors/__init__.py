"""The connectors that ship: ``filedrop``, ``http`` and ``memory``. A vendor's own come through entry points."""
