"""The ``formidler`` command. Sub-commands are found through entry points, so that no layer needs to know them all."""
