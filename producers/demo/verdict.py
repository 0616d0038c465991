"""The verdict: every line is checked against what lies on disk, on topics and behind the APIs, never against what we meant."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from broker.catch_up import read_until_caught_up
from broker.kafka.settings import KafkaSettings
from broker.kafka.subscriber import read_from_start
from broker.record import Incoming
from broker.routing import dead_letter_topic, soknad_topic
from broker.supervisor.layout import Layout
from producers.demo.fagsystem import Fagsystem
from producers.demo.journey import DONE, Journey
from producers.demo.plan import Day, Role
from producers.demo.portal import Portal
from producers.demo.scan import Scan, patterns_of, scan
from schemas.codec import decode
from schemas.errors import UnsealError
from schemas.names import Kommunenummer
from schemas.records import DeadLetterRecord, SoknadRecord

SENT = "SENDT"
OSLO = "0301"
_SCANNED = ("kafka", "data", "dokumentlager", "logg")


@dataclass(frozen=True)
class Check:
    """One line of the verdict.

    Attributes:
        claim: What should hold.
        holds: Whether it does.
        seen: What was seen, in a few words without personal data.
    """

    claim: str
    holds: bool
    seen: str


async def judge(
    day: Day,
    journeys: Sequence[Journey],
    *,
    layout: Layout,
    kafka: KafkaSettings,
    portal: Portal,
    fagsystem: Fagsystem,
    seen_while_down: Sequence[str],
) -> list[Check]:
    """Return the verdict on a day that has ended."""
    patterns = patterns_of(journey.planned for journey in journeys)
    records, letters, found, kvitteringer, strangers = await asyncio.gather(
        read_all(kafka, [soknad_topic(number) for number in _kommuner(day)]),
        read_all(kafka, [dead_letter_topic(number) for number in _kommuner(day)]),
        asyncio.to_thread(scan, [layout.folder / name for name in _SCANNED], patterns),
        check_kvitteringer(journeys, portal, layout.certificate("ca")),
        check_strangers(journeys, portal),
    )
    return [
        check_statuses(journeys),
        check_files(journeys, {j.planned.ref: fagsystem.received(j) for j in journeys}),
        check_offices(journeys, {j.planned.ref: fagsystem.offices(j) for j in journeys}),
        check_duplicate(journeys),
        check_down(seen_while_down, journeys, day),
        check_refused(journeys),
        check_dead_letters(journeys, [decode(DeadLetterRecord, record.value) for record in letters]),
        check_records(journeys, records),
        kvitteringer,
        strangers,
        check_scan(found),
    ]


def check_statuses(journeys: Sequence[Journey]) -> Check:
    """Every citizen sees what is true: done, or still sent where the kommune does not have it."""
    wanted = {Role.AVVISES: SENT, Role.ENDRES: SENT}
    wrong = [j.planned.ref for j in journeys if j.status != wanted.get(j.planned.role, DONE)]
    counts = Counter(journey.status for journey in journeys)
    seen = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    return Check("hver søknad har den statusen som er sann", not wrong, seen + _listed(wrong))


def check_files(journeys: Sequence[Journey], received: Mapping[str, Sequence[Mapping[str, str]]]) -> Check:
    """Each file at the fagsystem is the file that was sent, once; and nothing came where nothing should."""
    wrong: list[str] = []
    files = 0
    for journey in journeys:
        expected = [] if journey.planned.role in {Role.AVVISES, Role.ENDRES} else [journey.planned.files()]
        actual = [dict(delivery) for delivery in received[journey.planned.ref]]
        files += sum(map(len, actual))
        if actual != expected:
            wrong.append(journey.planned.ref)
    seen = f"{files} filer hos fagsystemene, sammenlignet på SHA-256"
    return Check("hver fil hos fagsystemet er lik den som ble sendt, én gang", not wrong, seen + _listed(wrong))


def check_offices(journeys: Sequence[Journey], offices: Mapping[str, Sequence[str | None]]) -> Check:
    """Each søknad is handed over for the office that it was sent to, which is how a bydel gets its own."""
    wrong = [j.planned.ref for j in journeys if set(offices[j.planned.ref]) - {j.planned.enhetsnummer}]
    reached = {office for found in offices.values() for office in found if office}
    in_oslo = {j.planned.enhetsnummer for j in journeys if j.planned.kommunenummer == OSLO} & reached
    seen = f"{len(reached)} kontorer, {len(in_oslo)} av dem bydeler i Oslo"
    return Check("hver søknad kom til sitt eget NAV-kontor", bool(reached) and not wrong, seen + _listed(wrong))


def check_duplicate(journeys: Sequence[Journey]) -> Check:
    """The same reference again is the same søknad."""
    doubled = [journey for journey in journeys if journey.planned.role is Role.DOBBEL]
    holds = bool(doubled) and all(j.repeated is not None and j.repeated == j.digisos_id for j in doubled)
    return Check("sendt to ganger er fortsatt én søknad", holds, f"{len(doubled)} sendt igjen, samme DigisosId tilbake")


def check_down(seen_while_down: Sequence[str], journeys: Sequence[Journey], day: Day) -> Check:
    """A fagsystem that is down loses nothing, and nobody is told that it has what it does not have."""
    refused = {Role.AVVISES, Role.ENDRES}
    late = [j for j in journeys if j.planned.kommunenummer == day.down and j.planned.role not in refused]
    holds = bool(late) and set(seen_while_down) == {SENT} and all(journey.status == DONE for journey in late)
    return Check(
        "et fagsystem som er nede taper ingenting",
        holds,
        f"{len(late)} søknader sto som {', '.join(sorted(set(seen_while_down))) or '?'} og kom så fram",
    )


def check_refused(journeys: Sequence[Journey]) -> Check:
    """A no from the fagsystem reaches the operators as a code and is not shown as received."""
    refused = [journey for journey in journeys if journey.planned.role is Role.AVVISES]
    holds = bool(refused) and all("AVVIST" in _answers(j) and "MOTTATT" not in _answers(j) for j in refused)
    codes = sorted({code for journey in refused for code in journey.codes})
    return Check("en avvist søknad står ikke som mottatt", holds, f"{len(refused)} avvist: {', '.join(codes)}")


def check_dead_letters(journeys: Sequence[Journey], letters: Sequence[DeadLetterRecord]) -> Check:
    """What was tampered with is the only dead letter, for the one reason that may be given."""
    tampered = {str(journey.digisos_id) for journey in journeys if journey.planned.role is Role.ENDRES}
    seen = [(str(letter.digisos_id), letter.kode) for letter in letters]
    holds = bool(tampered) and sorted(seen) == sorted((digisos_id, UnsealError.code) for digisos_id in tampered)
    codes = ", ".join(letter.kode for letter in letters) or "ingen"
    return Check("en melding som er endret underveis blir et dødt brev", holds, f"{len(letters)} dødt brev: {codes}")


def check_records(journeys: Sequence[Journey], records: Sequence[Incoming]) -> Check:
    """Each søknad lies once on its own kommune's topic."""
    actual = Counter((record.topic, str(decode(SoknadRecord, record.value).digisos_id)) for record in records)
    wanted = Counter((soknad_topic(j.planned.kommunenummer), str(j.digisos_id)) for j in journeys)
    return Check(
        "hver søknad ligger én gang på sin kommunes topic", actual == wanted, f"{sum(actual.values())} meldinger"
    )


async def check_kvitteringer(journeys: Sequence[Journey], portal: Portal, root: Path) -> Check:
    """Every kvittering verifies offline against the CA, by the command that a stranger would use."""
    bundles = {
        str(journey.planned.ref): await portal.bundle(journey.digisos_id, journey.planned.person)
        for journey in journeys
        if journey.digisos_id is not None
    }
    code, report = await asyncio.to_thread(verify, bundles, root)
    verified = sum(len(kjede["kvitteringer"]) for kjede in report["kjeder"])
    wrong = [Path(kjede["navn"]).stem for kjede in report["kjeder"] if not kjede["holder"]]
    holds = code == 0 and bool(report["holder"]) and len(report["kjeder"]) == len(journeys)
    return Check("alle kvitteringer er signert og henger sammen", holds, f"{verified} kvitteringer" + _listed(wrong))


def verify(bundles: Mapping[str, Any], root: Path) -> tuple[int, dict[str, Any]]:
    """Run ``formidler kvittering verify`` over every bundle; return its exit code and its report."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, f"{name}.json") for name in bundles]
        for path, bundle in zip(paths, bundles.values(), strict=True):
            path.write_text(json.dumps(bundle), "utf-8")
        command = [
            sys.executable,
            "-m",
            "broker.cli",
            "kvittering",
            "verify",
            *map(str, paths),
            "--rot",
            str(root),
            "--json",
        ]
        ended = subprocess.run(command, stdout=subprocess.PIPE, check=False)  # noqa: S603 - our own command
    return ended.returncode, json.loads(ended.stdout or '{"holder": false, "kjeder": []}')


async def check_strangers(journeys: Sequence[Journey], portal: Portal) -> Check:
    """No citizen sees another's søknad."""
    answers: Counter[int] = Counter()
    for journey, other in zip(journeys, [*journeys[1:], journeys[0]], strict=True):
        if journey.digisos_id is not None:
            answers[await portal.status_code(journey.digisos_id, other.planned.person)] += 1
    seen = ", ".join(f"{count} × HTTP {status}" for status, count in answers.items())
    return Check("ingen ser en annens søknad", set(answers) == {403}, seen)


def check_scan(found: Scan) -> Check:
    """No plaintext, name or fødselsnummer in topics, databases, packages or logs."""
    seen = f"{found.files} filer, {found.size / 1e6:.0f} MB, {found.patterns} mønstre"
    return Check("ingen klartekst og ikke noe fødselsnummer noe sted", not found.hits, seen + _listed(found.hits[:5]))


async def read_all(kafka: KafkaSettings, topics: Sequence[str]) -> list[Incoming]:
    """Return every record on ``topics`` now."""
    records: list[Incoming] = []

    async def collect(batch: Sequence[Incoming]) -> None:
        records.extend(batch)

    async with read_from_start(kafka, topics) as tail:
        await read_until_caught_up(tail, collect)
    return records


def _kommuner(day: Day) -> list[Kommunenummer]:
    return sorted(number for connector in day.connectors.values() for number in connector.kommuner)


def _answers(journey: Journey) -> list[str]:
    return [str(line["verdi"]) for line in journey.history if line["type"] == "kvittering"]


def _listed(wrong: Sequence[str]) -> str:
    return f"; ikke: {', '.join(wrong)}" if wrong else ""
