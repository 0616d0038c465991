"""What commands that act have in common: who acts, why, how a set-up is found, and Ctrl-C as a request to stop in order."""

from __future__ import annotations

import asyncio
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from broker.operatorer import OPERATOR_ENV
from broker.process_clock import ProcessClock
from broker.supervisor.layout import Layout
from schemas.errors import InvalidNameError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable
    from pathlib import Path
    from typing import TypeVar

    from broker.clock import Clock

    T = TypeVar("T")

OperatorOption = Annotated[
    str | None,
    typer.Option(
        "--operator",
        envvar=OPERATOR_ENV,
        help="Hvem som gjør det. Uten: den eneste operatøren med nøkkel her, eller en ny med ditt brukernavn.",
    ),
]
ReasonOption = Annotated[
    str | None,
    typer.Option("--begrunnelse", "-b", help="Hvorfor, til revisjonen; uten personopplysninger. Kreves for å handle."),
]


def reason(begrunnelse: str | None) -> str:
    """Return the reason.

    Raises:
        typer.BadParameter: There is none.
    """
    text = (begrunnelse or "").strip()
    if not text:
        raise typer.BadParameter("oppgi hvorfor med --begrunnelse; den står i revisjonen sammen med deg")
    return text


def clock_of(data: Path) -> Clock:
    """Return the clock of the set-up in ``data``, or the machine's when there is none."""
    return ProcessClock(Layout.load(data).clock if Layout.exists(data) else None)


def parsed(texts: Iterable[str] | None, form: Callable[[str], T], option: str) -> tuple[T, ...]:
    """Return what an option was given, each as ``form``; several in one are separated by commas.

    Raises:
        typer.BadParameter: One has another form.
    """
    try:
        return tuple(form(part.strip()) for text in texts or () for part in text.split(",") if part.strip())
    except InvalidNameError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


@contextmanager
def stopping() -> Generator[asyncio.Event]:
    """Return an event that Ctrl-C or SIGTERM sets, in the running loop; a second Ctrl-C ends the program as usual."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def ask() -> None:
        stop.set()
        loop.remove_signal_handler(signal.SIGINT)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ask)
    try:
        yield stop
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
