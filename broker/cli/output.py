"""What commands print: for people with rich, for machines as JSON, errors on standard error or as JSON too."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

EXIT_OK: Final = 0
EXIT_REFUSED: Final = 1
EXIT_UNREACHABLE: Final = 3
EXIT_INTERRUPTED: Final = 130

console: Final = Console(highlight=False)
errors: Final = Console(stderr=True, highlight=False)


def print_json(document: Any) -> None:
    """Print ``document`` as JSON on one line when piped, indented on a terminal."""
    sys.stdout.write(
        json.dumps(document, ensure_ascii=False, indent=2 if sys.stdout.isatty() else None, default=str) + "\n"
    )


def complain(message: str, *, code: str | None = None) -> None:
    """Print an error with its stable code: for people, or as JSON when the command line has ``--json``.

    The command line itself is asked, because an error may come before or after the command that knows its options.
    """
    if "--json" in sys.argv:
        print_json({"ok": False, "feil": message, "kode": code})
        return
    errors.print(f"[red]feil:[/] {escape(message)}" + (f" [dim]({code})[/]" if code else ""), soft_wrap=True)


def table(*columns: str, rows: Iterable[Sequence[str]], title: str | None = None) -> None:
    """Print a table; cells are rich's markup, so what comes from outside is escaped by the caller."""
    shown = Table(*columns, title=title, title_justify="left")
    for row in rows:
        shown.add_row(*row)
    console.print(shown)
