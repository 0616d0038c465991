"""``formidler status``: the status as a whole, for whoever operates it."""

from __future__ import annotations

import asyncio
import getpass
import os
import sys
import tempfile
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.markup import escape

from broker.cli.kafka_access import kafka_access, read_katalog
from broker.cli.options import DataOption, JsonOption
from broker.cli.output import EXIT_OK, EXIT_REFUSED, console, errors, print_json
from broker.clock import Clock
from broker.durations import format_duration, parse_duration
from broker.files import open_private
from broker.kafka.settings import KafkaSettings
from broker.kafka.subscriber import KafkaTail
from broker.katalog import Katalog
from broker.log import configure_logging, get_logger
from broker.process_clock import CLOCK_ENV, process_clock
from broker.record import TopicPartition
from broker.routing import KVITTERING_RETENTION
from broker.sql import is_shared
from broker.supervisor.layout import Layout
from kvittering import emner, swapping
from kvittering.bulk_store import BulkStore
from kvittering.comparing import MANGLER_PA_EMNENE, Comparison, Difference, compare
from kvittering.folding import Readers
from kvittering.follower import topics_of
from kvittering.rebuild import Progress, Rebuild, Rebuilt
from kvittering.store import StatusStore
from schemas.errors import ConfigurationError

PRINCIPAL: Final = "kvittering"
SHOWN: Final = 50
"""How many differences are shown to people; machines get ``KEPT`` of them."""
KEPT: Final = 10_000

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Status: bygg den på nytt fra emnene, og godta nye emner."
)


@app.callback()
def root() -> None:
    """Status: bygg den på nytt fra emnene, og godta nye emner."""


LagerOption = Annotated[
    str | None,
    typer.Option(
        "--lager",
        envvar="FORMIDLER_KVITTERING_DATABASE",
        help="Lageret som kjører (fil eller postgresql://…), i stedet for det i --data.",
    ),
]


@dataclass
class Outcome:
    """What ``formidler status rebuild`` came to."""

    rebuilt: Rebuilt
    comparison: Comparison | None = None
    differences: list[Difference] = field(default_factory=list[Difference])
    missing_on_topics: int = 0
    kept_at: str | None = None
    former: str | None = None
    swapped: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return it for machines."""
        one, seconds = self.rebuilt, self.rebuilt.read_s + self.rebuilt.fold_s
        document: dict[str, Any] = {
            "poster": one.records,
            "soknader": one.soknader,
            "sekunder": round(seconds, 1),
            "posterPerSekund": round(one.records / seconds) if seconds else None,
            "utfall": dict(one.outcomes),
            "beskarneEmner": sorted(one.cut),
            "lager": self.kept_at,
            "byttet": self.swapped,
            "gammeltLager": self.former,
        }
        if self.comparison is None:
            return document | {"sammenlignet": None}
        return document | {
            "sammenlignet": self.comparison.compared,
            "forskjellige": self.comparison.differing,
            "underveis": self.comparison.under_way,
            "glemt": self.comparison.forgotten,
            "forskjeller": [{"digisosId": found.digisos_id, "felt": list(found.felt)} for found in self.differences],
        }


@app.command(
    epilog="Eksempel: `formidler status rebuild` sammenligner; `formidler status rebuild --bytt` tar det nye lageret i bruk "
    "når kvittering står."
)
def rebuild(
    data: DataOption,
    lager: LagerOption = None,
    *,
    til: Annotated[
        str | None, typer.Option("--til", help="Et tomt lager å bygge i (fil eller postgresql://…); det blir liggende.")
    ] = None,
    innsyn: Annotated[
        list[Path] | None,
        typer.Option(
            "--innsyn", help="Innsynsnøklene (PEM-filer eller mapper), i stedet for dem i --data. Kan gjentas."
        ),
    ] = None,
    oppbevaring: Annotated[
        str,
        typer.Option(
            "--oppbevaring",
            envvar="FORMIDLER_KVITTERING_OPPBEVARING",
            help="Hvor lenge lageret husker en søknad; det som er eldre, kan mangle.",
        ),
    ] = format_duration(KVITTERING_RETENTION),
    arbeidere: Annotated[
        int, typer.Option("--arbeidere", min=0, help="Hvor mange prosesser som regner; 0 for ingen egne.")
    ] = os.cpu_count() or 1,
    bytt: Annotated[
        bool, typer.Option("--bytt", help="Ta det nye lageret i bruk i stedet for det gamle. Kvittering må stå.")
    ] = False,
    godta_tap: Annotated[
        bool,
        typer.Option("--godta-tap", help="Bytt selv om emnene ikke lenger har alle søknadene i det gamle lageret."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Bygg statusen på nytt fra alle emnene i et tomt lager, og sammenlign med det som kjører.

    Ingenting publiseres, og lageret som kjører blir bare lest. Avslutter med 0 når de sier det samme, eller er byttet, og med 1
    når de er forskjellige.
    """
    plan = _plan(data, lager, til, innsyn, kept=parse_duration(oppbevaring), workers=arbeidere, swap=bytt)
    outcome = asyncio.run(_rebuild(plan, accept_loss=godta_tap, quiet=as_json))
    if as_json:
        print_json(outcome.to_json())
    else:
        _show(outcome)
    differs = outcome.comparison is not None and outcome.comparison.differing > 0
    raise typer.Exit(EXIT_REFUSED if differs and not outcome.swapped else EXIT_OK)


@dataclass(frozen=True)
class Plan:
    """What a rebuild works with.

    Attributes:
        running: The running store; there may be none yet.
        target: Where the new one is built.
        stays: Whether the new one is kept when it is not swapped in.
        folder: Where the records lie meanwhile: beside the new store, or in the system's own place.
        kept: How long the running store remembers a søknad.
        clock: What the time is in the set-up.
    """

    kafka: KafkaSettings
    running: str
    target: str
    stays: bool
    folder: Path | None
    kept: timedelta
    clock: Clock
    innsyn: tuple[Path, ...]
    workers: int
    swap: bool


def _plan(
    data: Path,
    lager: str | None,
    til: str | None,
    innsyn: list[Path] | None,
    *,
    kept: timedelta,
    workers: int,
    swap: bool,
) -> Plan:
    running = lager or str(Layout.load(data).database(PRINCIPAL))
    if til is None and is_shared(running):
        raise ConfigurationError("oppgi --til: et tomt lager å bygge i, ved siden av databasen som kjører")
    target = til or str(swapping.beside(running))
    if swap:
        swapping.check_swappable(running, target)
    keys = tuple(innsyn or _innsyn(Layout.load(data)))
    folder = None if is_shared(target) else Path(target).absolute().parent
    kafka = kafka_access(data, principal=PRINCIPAL)
    return Plan(kafka, running, target, til is not None, folder, kept, _clock(data, lager), keys, workers, swap)


def _innsyn(layout: Layout) -> tuple[Path, Path]:
    return layout.key("innsyn"), layout.certificate("innsyn")


async def _rebuild(plan: Plan, *, accept_loss: bool, quiet: bool) -> Outcome:
    katalog = await read_katalog(plan.kafka)
    if not plan.stays:
        swapping.remove(Path(plan.target))  # of a rebuild that was interrupted
    try:
        async with _running(plan) as kept:
            outcome = await _into(plan, katalog, kept, quiet=quiet)
        if plan.swap:
            if outcome.missing_on_topics and not accept_loss:
                raise ConfigurationError(
                    f"{outcome.missing_on_topics} søknader i det gamle lageret finnes ikke lenger på emnene; lageret er ikke "
                    "byttet. Oppgi --godta-tap om de kan gå tapt"
                )
            former = swapping.swap(Path(plan.running), Path(plan.target), plan.clock())
            outcome.swapped, outcome.former, outcome.kept_at = True, str(former) if former else None, plan.running
    finally:
        if not plan.stays:
            swapping.remove(Path(plan.target))
    if plan.stays and not outcome.swapped:
        outcome.kept_at = plan.target
    return outcome


@asynccontextmanager
async def _running(plan: Plan) -> AsyncGenerator[BulkStore | None]:
    """Open the running store: to read beside the process that has it, or alone when it is to be exchanged.

    Raises:
        ConfigurationError: It is to be exchanged, and a process has it.
    """
    if not swapping.exists(plan.running):
        yield None
        return
    async with BulkStore(plan.running, read_only=not plan.swap) as kept:
        yield kept


async def _into(plan: Plan, katalog: Katalog, kept: BulkStore | None, *, quiet: bool) -> Outcome:
    readers = Readers(katalog.all(), plan.innsyn, tuple(sorted(topics_of(katalog))))
    with tempfile.TemporaryDirectory(prefix="formidler-rebuild-", dir=plan.folder) as folder:
        async with BulkStore(plan.target) as store:
            if not await store.is_empty():
                raise ConfigurationError("lageret i --til er ikke tomt")
            one = Rebuild(
                store,
                kept=kept,
                readers=readers,
                folder=Path(folder),
                workers=plan.workers,
                report=_silent if quiet else _tell,
            )
            outcome = Outcome(await one.run(_open_tail(plan.kafka), plan.clock()))
            if kept is not None:
                outcome.comparison = Comparison()
                before = plan.clock() - plan.kept
                async for found in compare(kept, store, outcome.comparison, forgotten_before=before):
                    outcome.missing_on_topics += found.felt == (MANGLER_PA_EMNENE,)
                    if len(outcome.differences) < KEPT:
                        outcome.differences.append(found)
            return outcome


def _clock(data: Path, lager: str | None) -> Clock:
    """Return the time of the set-up whose running store it is: somebody may have moved it."""
    moved = {} if lager or not Layout.exists(data) else {CLOCK_ENV: str(Layout.load(data).clock)}
    return process_clock(dict(os.environ) | moved)


def _open_tail(settings: KafkaSettings) -> Any:
    def open_tail(topics: Iterable[str], offsets: Mapping[TopicPartition, int]) -> KafkaTail:
        return KafkaTail(settings, topics, offsets=offsets, client_id="formidler-status")

    return open_tail


def _silent(_: Progress) -> None:
    """Say nothing: the reader is a machine."""


def _tell(progress: Progress) -> None:
    errors.print(
        f"[dim]{progress.step}: {progress.done} av {progress.total} poster, {progress.per_s:.0f} i sekundet, "
        f"{progress.left_s:.0f} s igjen[/]",
        soft_wrap=True,
    )


def _show(outcome: Outcome) -> None:
    document = outcome.to_json()
    counts = ", ".join(f"{count} {name}" for name, count in sorted(document["utfall"].items()))
    console.print(
        f"{document['poster']} poster om {document['soknader']} søknader på {document['sekunder']} s ({counts or 'ingenting'})"
    )
    for topic in document["beskarneEmner"]:
        console.print(f"[yellow]{escape(topic)} har ikke lenger sine første poster[/]")
    if outcome.comparison is None:
        console.print("det er ikke noe lager å sammenligne med")
    for found in outcome.differences[:SHOWN]:
        console.print(f"  {escape(found.digisos_id)}  {escape(', '.join(found.felt))}", soft_wrap=True)
    if outcome.comparison is not None:
        more = outcome.comparison.differing - len(outcome.differences[:SHOWN])
        console.print(f"  … og {more} til" if more > 0 else "", end="\n" if more > 0 else "")
        verdict = "[red]forskjellige[/]" if outcome.comparison.differing else "[green]like[/]"
        console.print(
            f"{verdict}: {outcome.comparison.compared} søknader sammenlignet, {outcome.comparison.differing} forskjellige, "
            f"{outcome.comparison.under_way} endret underveis",
            soft_wrap=True,
        )
    if outcome.swapped:
        console.print(f"byttet: {escape(str(outcome.kept_at))} er bygget på nytt", soft_wrap=True)
        console.print(f"det gamle ligger i {escape(str(outcome.former))}" if outcome.former else "", soft_wrap=True)
    elif outcome.kept_at:
        console.print(f"det nye lageret ligger i {escape(outcome.kept_at)}", soft_wrap=True)


@app.command(
    "godta-emner",
    epilog="Eksempel: `formidler status godta-emner --topic fiks.0301.kvittering.v1`",
)
def godta_emner(
    data: DataOption,
    lager: LagerOption = None,
    *,
    topic: Annotated[
        list[str] | None, typer.Option("--topic", help="Emnet som godtas. Kan gjentas. Uten: alle som er stoppet.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Ta over emner som kvittering har stoppet: slettet og laget på nytt, med andre partisjoner, eller med et hull.

    Kvittering må stå. Ved neste start leses emnene fra sin første post; alt som er kjent fra før blir værende, og det som kommer
    igjen er gjentakelser. Avslutter med 0 også når ingen emner er stoppet, med 1 når et emne som er oppgitt ikke er kjent.
    """
    place = lager or str(Layout.load(data).database(PRINCIPAL))
    if not swapping.exists(place):
        raise ConfigurationError(f"det er ikke noe lager i {place}")
    reasons = asyncio.run(_accept(place, topic))
    _log_acceptance(None if lager else Layout.load(data).log("status"), reasons)
    if as_json:
        print_json({"godtatt": [{"topic": name, "avvik": why} for name, why in sorted(reasons.items())]})
        return
    for name, why in sorted(reasons.items()):
        console.print(f"godtatt: {escape(name)}  [dim]{escape(why or 'ikke stoppet')}[/]", soft_wrap=True)
    if not reasons:
        console.print("ingen emner er stoppet")


async def _accept(place: str, topics: list[str] | None) -> dict[str, str | None]:
    """Let go of what these topics were; return them, and why each was stopped.

    Raises:
        ConfigurationError: A process has the store open, or a topic is not known.
    """
    async with StatusStore(place) as store:
        known = await store.read(emner.known)
        wanted = topics or [name for name, one in known.items() if one.avvik is not None]
        strange = sorted(set(wanted) - known.keys())
        if strange:
            raise ConfigurationError(f"lageret kjenner ikke disse emnene: {', '.join(strange)}")
        await store.write(lambda connection: emner.accept(connection, wanted))
        return {name: known[name].avvik for name in wanted}


def _log_acceptance(log: Path | None, reasons: Mapping[str, str | None]) -> None:
    """Write down who let go of what, beside the processes' logs, or on standard error where there is no data folder."""
    with nullcontext(sys.stderr) if log is None else open_private(log) as stream:
        configure_logging("status", stream=stream)
        for name, avvik in sorted(reasons.items()):
            get_logger().warning("topic_accepted", topic=name, avvik=avvik, navn=getpass.getuser())
