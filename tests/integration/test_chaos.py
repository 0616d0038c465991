"""The fault harness in small, and the proof that its judge finds what it is there to find.

One wave of crashes against a real set-up is run and recorded; then one fault at a time is planted into what was recorded.
"""

from __future__ import annotations

import base64
import copy
import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from crypto.authority import Authority
from crypto.certificates import certificate_pem
from crypto.jws import sign_jws
from schemas.codec import decode, encode
from schemas.kvittering import KvitteringClaims
from schemas.names import Organisasjonsnummer, Uuid
from schemas.records import DeadLetterRecord, KvitteringRecord, SoknadRecord, StatusRecord, TransportRecord

pytestmark = pytest.mark.kafka

CHAOS = Path(__file__).parents[1] / "chaos"
POINTS = ("producers.outbox.after-commit", "consumers.deliver.after-hand-over", "kvittering.apply.before-commit")
SEED = 7


@dataclass
class Recording:
    """What a judge is given; a test changes its own copy."""

    folder: Path
    story: Any
    observed: Any
    modules: Any

    def judge(self) -> list[Any]:
        return list(self.modules.checker.Checker().judge(self.story, self.observed))

    def kinds(self) -> set[str]:
        return {finding.kind for finding in self.judge()}

    def read_folders(self) -> None:
        self.observed.deliveries = self.modules.witness.read_deliveries(self.folder / "fagsystem")

    @property
    def entry(self) -> Any:
        """A søknad that has an ettersendelse behind it."""
        followed = {entry.digisos_id for entry in self.story.entries.values() if entry.nr == 1}
        return next(e for e in self.story.entries.values() if e.nr == 0 and e.digisos_id in followed)

    def delivery(self, ref: str) -> Any:
        return next(one for one in self.observed.deliveries if one.leveranse["navEksternRefId"] == ref)

    def drop_records(self, unwanted: Callable[[Any], bool]) -> None:
        before = len(self.observed.records)
        self.observed.records = [raw for raw in self.observed.records if not unwanted(raw)]
        assert len(self.observed.records) < before, "there was nothing to take away"

    def add(self, like: Any, record: Any) -> None:
        """Add a record at the end of the partition of another."""
        last = max(raw.offset for raw in self.observed.records if raw.topic == like.topic)
        self.observed.records.append(replace(like, offset=last + 1, value=encode(record)))

    def links(self) -> list[Any]:
        """The kvitteringer of the søknad, as records on their topic."""
        key = str(self.entry.digisos_id).encode()
        return [one for one in self.observed.records if one.topic.endswith(".kvittering.v1") and one.key == key]


@pytest.fixture(scope="module")
def modules() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(CHAOS))
        yield SimpleNamespace(
            **{name: importlib.import_module(name) for name in ("checker", "evidence", "journal", "witness")}
        )


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    folder = tmp_path_factory.mktemp("kaos")
    points = [argument for point in POINTS for argument in ("--punkt", point)]
    command = [
        sys.executable, str(CHAOS), "--json", "--uten-nett", "--seed", str(SEED), *points,
        "--opptak", str(folder / "opptak"), "--behold", str(folder / "oppsett"),
    ]  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FORMIDLER_")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=150)
    return done, folder / "opptak"


@pytest.fixture
def recorded(ran: tuple[Any, Path], modules: Any, tmp_path: Path) -> Recording:
    _, source = ran
    shutil.copytree(source / "fagsystem", tmp_path / "fagsystem")
    story = modules.journal.read_journal(source / "last.journal")
    observed = modules.witness.Observed.load(json.loads((source / "sett.json").read_text("utf-8")))
    return Recording(tmp_path, story, copy.deepcopy(observed), modules)


def test_processes_that_die_at_named_places_lose_and_double_nothing(ran: tuple[Any, Path]) -> None:
    done, _ = ran
    assert done.returncode == 0, done.stderr[-4000:]
    told = json.loads(done.stdout)
    assert told["ok"]
    assert told["fro"] == SEED
    rows = {row["navn"]: row for row in told["scenarier"]}
    assert {point: rows[point]["drept"] for point in POINTS} == dict.fromkeys(POINTS, 1)
    assert all(rows[point]["meldinger"] >= 6 for point in POINTS)
    assert f"frø {SEED}" in done.stderr


def test_the_judge_finds_nothing_where_all_is_well(recorded: Recording) -> None:
    assert recorded.judge() == []
    recorded.read_folders()
    assert recorded.judge() == []


def test_a_lost_soknad_is_found(recorded: Recording) -> None:
    shutil.rmtree(recorded.folder / "fagsystem" / recorded.delivery(recorded.entry.ref).place)
    recorded.read_folders()
    assert {"tapt", "usann"} <= recorded.kinds()


def test_a_soknad_that_never_reached_its_topic_is_found(recorded: Recording) -> None:
    ref = recorded.entry.ref
    recorded.drop_records(
        lambda raw: (
            raw.topic.endswith(".soknad.v1")
            and ref.encode() in raw.value
            and decode(SoknadRecord, raw.value).nav_ekstern_ref_id == ref
        )
    )
    assert "tapt" in recorded.kinds()


def test_a_lost_file_is_found(recorded: Recording) -> None:
    next((recorded.folder / "fagsystem" / recorded.delivery(recorded.entry.ref).place).glob("*.pdf")).unlink()
    recorded.read_folders()
    assert recorded.kinds() == {"tapt"}


def test_a_changed_file_is_found(recorded: Recording) -> None:
    file = next((recorded.folder / "fagsystem" / recorded.delivery(recorded.entry.ref).place).glob("*.pdf"))
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    recorded.read_folders()
    assert recorded.kinds() == {"tapt"}


def test_a_soknad_that_came_twice_is_found(recorded: Recording) -> None:
    place = recorded.folder / "fagsystem" / recorded.delivery(recorded.entry.ref).place
    shutil.copytree(place, place.with_name(str(Uuid.new())))
    recorded.read_folders()
    assert recorded.kinds() == {"doblet"}


def test_a_soknad_that_was_published_twice_under_two_ids_is_found(recorded: Recording) -> None:
    raw = next(
        one
        for one in recorded.observed.records
        if one.topic.endswith(".soknad.v1") and one.key == str(recorded.entry.digisos_id).encode()
    )
    recorded.add(raw, decode(SoknadRecord, raw.value).model_copy(update={"melding_id": Uuid.new()}))
    assert "doblet" in recorded.kinds()


def test_an_ettersendelse_that_came_before_its_soknad_is_found(recorded: Recording) -> None:
    place = recorded.folder / "fagsystem" / recorded.delivery(recorded.entry.ref).place / "leveranse.json"
    later = recorded.delivery(recorded.entry.ref).at_ns + 60_000_000_000
    os.utime(place, ns=(later, later))
    recorded.read_folders()
    assert recorded.kinds() == {"rekkefolge"}


def test_a_wrong_order_on_the_topic_is_found(recorded: Recording) -> None:
    key = str(recorded.entry.digisos_id).encode()
    places = [
        nr for nr, raw in enumerate(recorded.observed.records) if raw.topic.endswith(".soknad.v1") and raw.key == key
    ]
    first, second = (recorded.observed.records[nr] for nr in (places[0], places[-1]))
    recorded.observed.records[places[0]] = replace(first, offset=second.offset)
    recorded.observed.records[places[-1]] = replace(second, offset=first.offset)
    assert "rekkefolge" in recorded.kinds()


def test_a_status_that_came_too_early_is_found(recorded: Recording) -> None:
    refs = {e.ref for e in recorded.story.entries.values() if e.digisos_id == recorded.entry.digisos_id}
    recorded.observed.deliveries = [
        one for one in recorded.observed.deliveries if one.leveranse["navEksternRefId"] not in refs
    ]
    early = [finding for finding in recorded.judge() if finding.kind == "usann" and finding.lasting]
    assert [finding.ref for finding in early] == [recorded.entry.ref]


def test_a_status_that_stands_still_is_found(recorded: Recording) -> None:
    seen = recorded.observed.statuses[recorded.entry.digisos_id]
    recorded.observed.statuses[recorded.entry.digisos_id] = replace(seen, view=seen.view | {"status": "SENDT"})
    assert recorded.kinds() == {"usann"}


def test_a_status_that_nobody_knows_is_found(recorded: Recording) -> None:
    seen = recorded.observed.statuses[recorded.entry.digisos_id]
    recorded.observed.statuses[recorded.entry.digisos_id] = replace(seen, code=404, view={})
    assert recorded.kinds() == {"usann"}


def test_a_status_topic_that_says_something_else_is_found(recorded: Recording) -> None:
    raw = next(
        one
        for one in recorded.observed.records
        if one.topic == "fiks.status.v1" and one.key == str(recorded.entry.digisos_id).encode()
    )
    recorded.add(raw, decode(StatusRecord, raw.value).model_copy(update={"status": "AKSEPTERT"}))
    assert recorded.kinds() == {"usann"}


def test_somebody_elses_look_is_found(recorded: Recording) -> None:
    seen = recorded.observed.statuses[recorded.entry.digisos_id]
    recorded.observed.statuses[recorded.entry.digisos_id] = replace(seen, stranger=200)
    assert recorded.kinds() == {"fremmed"}


def test_a_forged_kvittering_is_found(recorded: Recording) -> None:
    raw = recorded.links()[-1]
    record = decode(KvitteringRecord, raw.value)
    head, body, signature = record.jws.split(".")
    other = signature[:-4] + ("AAAA" if signature[-4:] != "AAAA" else "BBBB")
    at = recorded.observed.records.index(raw)
    forged = record.model_copy(update={"jws": f"{head}.{body}.{other}"})
    recorded.observed.records[at] = replace(raw, value=encode(forged))
    assert "kjede" in recorded.kinds()


def test_a_kvittering_by_a_stranger_is_found(recorded: Recording) -> None:
    recorded.observed.signers = {number: [] for number in recorded.observed.signers}
    assert "kjede" in recorded.kinds()


def test_a_certificate_that_the_authority_did_not_issue_is_found(recorded: Recording) -> None:
    recorded.observed.root = certificate_pem(Authority.create(datetime.now(UTC)).certificate).decode()
    assert "kjede" in recorded.kinds()


def test_a_missing_link_is_found(recorded: Recording) -> None:
    first = recorded.links()[0]
    recorded.drop_records(lambda raw: raw is first)
    assert "kjede" in recorded.kinds()


def test_a_missing_mottatt_is_found(recorded: Recording) -> None:
    unwanted = recorded.links()
    recorded.drop_records(lambda raw: any(raw is one for one in unwanted))
    assert recorded.kinds() == {"kjede"}


def test_links_in_the_wrong_order_on_the_topic_are_found(recorded: Recording) -> None:
    first, second = recorded.links()[:2]
    at = [recorded.observed.records.index(one) for one in (first, second)]
    recorded.observed.records[at[0]] = replace(first, offset=second.offset)
    recorded.observed.records[at[1]] = replace(second, offset=first.offset)
    assert recorded.kinds() == {"kjede"}


def test_a_fork_is_found(recorded: Recording) -> None:
    """Made with a key that the checker is told to believe, as a connector that runs twice would make it."""
    raw = recorded.links()[0]
    claims = _claims(raw)
    fork = claims.model_copy(update={"kvittering_id": Uuid.new()})
    jws = _signed(recorded, fork)
    recorded.add(raw, fork.record(jws))
    assert any(finding.kind == "kjede" and "deler seg" in finding.text for finding in recorded.judge())


def test_a_kvittering_for_another_package_is_found(recorded: Recording) -> None:
    raw = recorded.links()[-1]
    claims = _claims(raw).model_copy(update={"sha256": "0" * 64})
    at = recorded.observed.records.index(raw)
    recorded.observed.records[at] = replace(raw, value=encode(claims.record(_signed(recorded, claims))))
    assert "kjede" in recorded.kinds()


def _claims(raw: Any) -> KvitteringClaims:
    body = decode(KvitteringRecord, raw.value).jws.split(".")[1]
    return KvitteringClaims.from_json(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))


def _signed(recorded: Recording, claims: KvitteringClaims) -> str:
    """Sign with a new key, whose certificate the recording's checker believes from now on."""
    authority = Authority.create(datetime.now(UTC))
    certificate, key = authority.issue(
        "konnektor", Organisasjonsnummer("958935420"), purpose="signering", now=datetime.now(UTC), key="p256"
    )
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    recorded.observed.root += certificate_pem(authority.certificate).decode()
    recorded.observed.signers[str(claims.kommunenummer)].append(certificate_pem(certificate).decode())
    return sign_jws(claims.to_json(), key, certificate)


def test_an_event_that_is_missing_on_the_way_is_found(recorded: Recording) -> None:
    key = str(recorded.entry.digisos_id).encode()
    recorded.drop_records(
        lambda raw: (
            raw.topic == "fiks.transport.v1" and raw.key == key and decode(TransportRecord, raw.value).type == "SENDT"
        )
    )
    assert recorded.kinds() == {"kjede"}


def test_a_sendt_from_before_the_topic_had_it_is_found(recorded: Recording) -> None:
    key = str(recorded.entry.digisos_id).encode()
    for nr, raw in enumerate(recorded.observed.records):
        if raw.topic == "fiks.transport.v1" and raw.key == key and decode(TransportRecord, raw.value).type == "SENDT":
            recorded.observed.records[nr] = replace(raw, timestamp_ms=raw.timestamp_ms - 60_000)
    assert recorded.kinds() == {"usann"}


def test_a_delivery_to_another_kommune_is_found(recorded: Recording) -> None:
    delivery = recorded.delivery(recorded.entry.ref)
    recorded.observed.deliveries.remove(delivery)
    recorded.observed.deliveries.append(replace(delivery, kommunenummer="0301"))
    assert recorded.kinds() == {"fremmed"}


def test_a_soknad_that_nobody_sent_is_found(recorded: Recording) -> None:
    del recorded.story.entries[recorded.entry.ref]
    assert "fremmed" in recorded.kinds()


def test_a_broken_record_without_a_dead_letter_is_found(recorded: Recording) -> None:
    letters = [raw for raw in recorded.observed.records if raw.topic.endswith(".soknad.v1.dlq")]
    assert letters
    recorded.drop_records(lambda raw: raw is letters[0])
    assert recorded.kinds() == {"uforklart"}


def test_a_dead_letter_without_a_negative_kvittering_is_found(recorded: Recording) -> None:
    dead = {
        str(decode(DeadLetterRecord, raw.value).digisos_id).encode()
        for raw in recorded.observed.records
        if raw.topic.endswith(".soknad.v1.dlq")
    }
    recorded.drop_records(lambda raw: raw.topic.endswith(".kvittering.v1") and raw.key in dead)
    assert recorded.kinds() == {"uforklart"}


def test_a_good_soknad_that_ended_as_a_dead_letter_is_found(recorded: Recording) -> None:
    recorded.observed.deliveries.remove(recorded.delivery(recorded.entry.ref))
    assert "tapt" in recorded.kinds()


def test_a_refusal_that_came_all_the_same_is_found(recorded: Recording) -> None:
    recorded.story.entries[recorded.entry.ref].refused = "400"
    assert {"uforklart", "fremmed"} == recorded.kinds()


def _on_paper(recorded: Recording) -> Any:
    """Make of a delivered søknad one that was to be printed, and of its files a letter set."""
    entry, delivery = recorded.entry, recorded.delivery(recorded.entry.ref)
    entry.ventet = "PAPIR"
    files = {name: digest for name, digest in delivery.files.items() if name.endswith(".pdf")}
    return recorded.modules.witness.Letter("ferdig/x", delivery.leveranse["meldingId"], files)


def test_a_letter_that_is_at_the_fagsystem_too_is_found(recorded: Recording) -> None:
    recorded.observed.letters.append(_on_paper(recorded))
    assert {"doblet", "kjede"} <= recorded.kinds()


def test_a_letter_that_was_never_printed_is_found(recorded: Recording) -> None:
    _on_paper(recorded)
    recorded.observed.deliveries.remove(recorded.delivery(recorded.entry.ref))
    assert "tapt" in recorded.kinds()


def test_a_letter_set_without_its_pdf_is_found(recorded: Recording) -> None:
    letter = _on_paper(recorded)
    recorded.observed.deliveries.remove(recorded.delivery(recorded.entry.ref))
    recorded.observed.letters.append(replace(letter, files={}))
    assert any(finding.kind == "tapt" and "brevsettet" in finding.text for finding in recorded.judge())


def test_two_letter_sets_of_one_soknad_are_found(recorded: Recording) -> None:
    letter = _on_paper(recorded)
    recorded.observed.deliveries.remove(recorded.delivery(recorded.entry.ref))
    recorded.observed.letters += [letter, replace(letter, place="ko/x")]
    assert "doblet" in recorded.kinds()


def test_a_letter_that_the_citizen_sees_as_received_is_found(recorded: Recording) -> None:
    letter = _on_paper(recorded)
    recorded.observed.letters.append(letter)
    assert "usann" in recorded.kinds()
