"""``formidler up``: everything as supervised children on one machine, with its data in one folder."""
