"""What commands that ask a ``producers`` process about its meldinger share: whom they ask, and the options that say so."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from broker.cli.calling import run_calls
from producers.drift_client import DriftClient, drift_client

T = TypeVar("T")

KommuneOption = Annotated[str | None, typer.Option("--kommune", help="Bare denne kommunens, fire siffer.")]
MeldingOption = Annotated[list[str] | None, typer.Option("--melding", help="Bare denne meldingen. Kan gjentas.")]
UrlOption = Annotated[
    str | None,
    typer.Option("--intake-url", envvar="FORMIDLER_INTAKE_URL", help="Avsenderens adresse, i stedet for --data."),
]
TokenOption = Annotated[
    str | None,
    typer.Option("--token", envvar="FORMIDLER_TOKEN", help="Maskintoken. Uten: hentes med nøkkelen i --data."),
]


@dataclass(frozen=True)
class Where:
    """Whom a command asks, and as whom: see ``drift_client``."""

    data: Path
    url: str | None
    token: str | None


def ask(where: Where, question: Callable[[DriftClient], Awaitable[T]]) -> T:
    """Ask, and return the answer.

    Raises:
        typer.Exit: The address does not answer, and that has been said.
        MeldingsformidlerError: What went wrong otherwise.
    """

    async def work() -> T:
        async with drift_client(where.data, where.url, where.token) as client:
            return await question(client)

    return run_calls(work())
