"""``formidler kafka``: the embedded broker alone, in the background, for other programs and for looking into."""

from __future__ import annotations

from typing import Any, Final

import typer

from broker.cli.options import DataOption, JsonOption
from broker.cli.output import EXIT_UNREACHABLE, console, print_json
from broker.embedded.folder import ADMIN, DataFolder
from broker.embedded.server import EmbeddedKafka, answers, stop_folder

SUBFOLDER: Final = "kafka"
"""Where ``formidler up`` keeps its broker too: the same folder, the same broker."""

app = typer.Typer(no_args_is_help=True, add_completion=False, help="En ekte Kafka på denne maskinen: start, stopp, se.")


@app.command()
def start(data: DataOption, as_json: JsonOption = False) -> None:  # noqa: FBT002 - a flag
    """Start Kafka i bakgrunnen, og si hvordan den nås. Kjører den alt, endres ingenting.

    Første gang hentes Kafka med Maven og legges i ~/.cache/meldingsformidler. Data blir liggende til neste gang.

    Avslutter med 0 når Kafka svarer, 1 når den ikke kan startes (Java, Maven, mappe eller port), 3 når den ikke svarer.

    Eksempel: formidler kafka start --data /tmp/formidler
    """
    folder = DataFolder(data / SUBFOLDER)
    if not folder.is_locked():
        EmbeddedKafka(folder.path, die_with_parent=False).start()
    client = folder.write_client_properties()
    document = _describe(folder) | {"klient": str(client)}
    if as_json:
        print_json(document)
        return
    console.print(f"Kafka kjører på [bold]{document['adresse']}[/] (prosess {document['pid']})", soft_wrap=True)
    console.print(f"bruker {ADMIN}, SCRAM-SHA-512; passordet ligger i {client}", soft_wrap=True)
    console.print(f"se emnene:  kcat -F {client} -L", soft_wrap=True)
    console.print(f"stopp den:  formidler kafka stop --data {data}", soft_wrap=True)


@app.command()
def stop(data: DataOption, as_json: JsonOption = False) -> None:  # noqa: FBT002 - a flag
    """Stopp Kafka i god orden. Data blir liggende. Kjører den ikke, skjer ingenting.

    Avslutter med 0 når Kafka står, 3 når den ikke stoppet i tide.

    Eksempel: formidler kafka stop
    """
    stopped = stop_folder(data / SUBFOLDER)
    if as_json:
        print_json({"kjorer": False, "stoppet": stopped})
    else:
        console.print("Kafka er stoppet" if stopped else "Kafka kjørte ikke")


@app.command()
def status(data: DataOption, as_json: JsonOption = False) -> None:  # noqa: FBT002 - a flag
    """Si om Kafka kjører, og om den svarer.

    Avslutter med 0 når den svarer, ellers med 3.

    Eksempel: formidler kafka status --json
    """
    folder = DataFolder(data / SUBFOLDER)
    running = folder.is_locked()
    document: dict[str, Any] = _describe(folder) if running else {"kjorer": False, "mappe": str(folder.path)}
    document["svarer"] = running and answers(folder.admin_settings())
    if as_json:
        print_json(document)
    elif not running:
        console.print(f"Kafka kjører ikke i {folder.path}", soft_wrap=True)
    else:
        verdict = "svarer" if document["svarer"] else f"svarer ikke; se {folder.log}"
        console.print(f"Kafka på {document['adresse']} (prosess {document['pid']}) {verdict}", soft_wrap=True)
    if not document["svarer"]:
        raise typer.Exit(EXIT_UNREACHABLE)


def _describe(folder: DataFolder) -> dict[str, Any]:
    run = folder.last_run()
    return {
        "kjorer": True,
        "adresse": folder.admin_settings().bootstrap,
        "bruker": ADMIN,
        "pid": run.pid if run else None,
        "mappe": str(folder.path),
        "logg": str(folder.log),
    }
