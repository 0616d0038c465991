"""``python -m broker.cli``: the ``formidler`` command where its script is not on the path."""

from broker.cli.main import main

main()
