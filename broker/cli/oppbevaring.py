"""``formidler oppbevaring``: what lies on topics longer than it may."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from broker.cli.kafka_access import administrator_access, read_katalog
from broker.cli.options import DataOption, JsonOption
from broker.cli.output import console, print_json, table
from broker.kafka.admin import KafkaAdmin
from broker.kafka.expiry import delete_expired, expired
from broker.process_clock import ProcessClock
from broker.retention import RetentionSettings, cutoffs
from broker.routing import central_topics, kommune_topics
from broker.runtime import run_command
from broker.settings import load_settings
from broker.supervisor.layout import Layout

if TYPE_CHECKING:
    from pathlib import Path

    from broker.kafka.settings import KafkaSettings
    from broker.retention import Cutoff

app = typer.Typer(
    help="Oppbevaring: hva som ligger på emnene lenger enn det skal.", no_args_is_help=True, add_completion=False
)


@app.command("plan", epilog="Eksempel: formidler oppbevaring plan")
def plan(data: DataOption, as_json: JsonOption = False) -> None:  # noqa: FBT002 - a flag
    """Vis hva `oppbevaring kjor` ville ha slettet nå. Sletter ingenting."""
    _show(run_command(_plan(data)), "kan slettes", as_json=as_json)


@app.command("kjor", epilog="Eksempel: formidler oppbevaring kjor --json")
def run(data: DataOption, as_json: JsonOption = False) -> None:  # noqa: FBT002 - a flag
    """Slett for godt det som er eldre enn emnets oppbevaringstid.

    Kafka sletter selv, men bare hele segmenter, og bare etter sine egne tidsstempler. Denne tar resten. `formidler up` gjør
    det selv hver time; på en klynge kjøres kommandoen som administrator, for eksempel hver natt. Tidene settes med
    FORMIDLER_OPPBEVARING_SOKNAD, _KVITTERING og _REVISJON, for eksempel 90d, og gjelder fra neste `up`.
    """
    _show(run_command(_run(data)), "slettet", as_json=as_json)


async def _plan(data: Path) -> dict[str, int]:
    kafka = administrator_access(data)
    counts: dict[str, int] = {}
    async with KafkaAdmin(kafka) as admin:
        async for before in expired(kafka, await _cutoffs(data, kafka, admin)):
            starts = await admin.start_offsets({partition.topic for partition in before})
            for partition, offset in before.items():
                counts[partition.topic] = counts.get(partition.topic, 0) + offset - starts[partition]
    return counts


async def _run(data: Path) -> dict[str, int]:
    kafka = administrator_access(data)
    async with KafkaAdmin(kafka) as admin:
        return await delete_expired(kafka, admin, await _cutoffs(data, kafka, admin))


async def _cutoffs(data: Path, kafka: KafkaSettings, admin: KafkaAdmin) -> tuple[Cutoff, ...]:
    retention = load_settings(RetentionSettings).retention()
    clock = ProcessClock(Layout.load(data).clock if Layout.exists(data) else None)
    katalog = await read_katalog(kafka)
    wanted = [
        *central_topics(retention),
        *(topic for entry in katalog.all() for topic in kommune_topics(entry.kommunenummer, retention=retention)),
    ]
    present = await admin.list_topics()
    return cutoffs([spec for spec in wanted if spec.name in present], clock())


def _show(counts: dict[str, int], what: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"emner": counts, "antall": sum(counts.values())})
    elif counts:
        table("Emne", "Meldinger", rows=[(name, str(count)) for name, count in sorted(counts.items())])
        console.print(f"{sum(counts.values())} meldinger {what}")
    else:
        console.print("ingenting er eldre enn det skal være")
