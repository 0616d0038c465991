"""The root of ``formidler``: finds its sub-commands, and turns our errors into a line of text and an exit code.

Sub-commands register under the entry-point group ``meldingsformidler.commands``, as a Typer application or a function. They
are loaded only when they are used, so that ``formidler konvolutt`` does not wait for a web framework.

With ``--json``, an error is a JSON document on standard output too: ``{"ok": false, "feil": …, "kode": …}``.

Exit codes: 0 done · 1 refused, or a check did not hold · 2 wrong usage · 3 something that should answer does not.
"""

from __future__ import annotations

import logging
import sys
from importlib.metadata import entry_points, version
from typing import TYPE_CHECKING, Annotated, Any, Final, cast

import typer
from typer.core import TyperGroup
from typer.main import get_command

from broker.cli.output import EXIT_REFUSED, EXIT_UNREACHABLE, complain
from schemas.errors import FagsystemUnavailableError, MeldingsformidlerError, TransportError

if TYPE_CHECKING:
    from collections.abc import Callable

GROUP: Final = "meldingsformidler.commands"
_UNREACHABLE: Final = (TransportError, FagsystemUnavailableError)
_AS_PROGRAM: Final = object()
"""Says that ``formidler`` runs as a program of its own, whose logging is ours to set up."""


class Formidler(TyperGroup):
    """A group whose commands come from entry points."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]  # Typer's own click is private
        """Return the names of all commands that are installed."""
        _ = ctx
        return sorted({point.name for point in entry_points(group=GROUP)})

    def get_command(self, ctx: typer.Context, cmd_name: str) -> Any:  # type: ignore[override]  # see above
        """Load the command ``cmd_name``, or return None when there is none."""
        _ = ctx
        for point in entry_points(group=GROUP):
            if point.name == cmd_name:
                command = _as_command(point.load(), cmd_name)
                _tell_errors_only(ctx)
                return command
        return None


def _tell_errors_only(ctx: typer.Context | None) -> None:
    """Let a command that has brought a logger with it log errors alone, to standard error: what it writes is its answer."""
    if ctx is not None and ctx.obj is _AS_PROGRAM and "structlog" in sys.modules:
        from broker.log import configure_logging  # noqa: PLC0415 - most commands have no logger, and need not wait for one

        configure_logging("formidler", stream=sys.stderr, level=logging.ERROR)


def _as_command(offered: object, name: str) -> Any:
    if isinstance(offered, typer.Typer):
        group = offered
    else:
        group = typer.Typer(add_completion=False)
        group.command(name)(cast("Callable[..., None]", offered))
    command = get_command(group)
    command.name = name
    return command


app = typer.Typer(
    cls=Formidler,
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # it shows the values of variables, and needs a terminal that can be written to
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Eksempel: `formidler up`, og i et annet vindu: "
    "`formidler soknad send soknad.json soknad.pdf --kommune 0301 --ref abc-1`",
)


def _show_version(asked: bool) -> None:  # noqa: FBT001 - Typer calls it with the flag
    if asked:
        sys.stdout.write(f"formidler {version('meldingsformidler')}\n")
        raise typer.Exit


@app.callback()
def root(
    *,
    show_version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Vis versjonen.")
    ] = False,
) -> None:
    """Meldingsformidler: søknader om sosialhjelp fra nav.no til kommunens fagsystem, og kvitteringer tilbake."""
    _ = show_version


def main() -> None:
    """Run ``formidler`` and exit; what is logged on the way goes to standard error, and only when it is an error."""
    try:
        app(prog_name="formidler", obj=_AS_PROGRAM)
    except MeldingsformidlerError as error:
        complain(str(error), code=error.code)
        sys.exit(EXIT_UNREACHABLE if isinstance(error, _UNREACHABLE) else EXIT_REFUSED)
