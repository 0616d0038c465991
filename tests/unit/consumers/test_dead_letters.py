from __future__ import annotations

from typing import Any

import pytest

from consumers.dead_letters import dead_letter, stripped, trinn
from schemas.codec import decode, encode
from schemas.errors import (
    BehindDeadLetterError,
    CertificateError,
    DecodeError,
    FagsystemFailureError,
    InvalidDocumentError,
    MeldingsformidlerError,
    MismatchError,
    PackageMissingError,
    UnexpectedRecordError,
    UnsealError,
)
from schemas.names import DigisosId, Kommunenummer
from schemas.records import DeadLetterRecord

NUMBER = Kommunenummer("4601")


@pytest.mark.parametrize(
    ("error", "step"),
    [
        (DecodeError("x"), "DEKODING"),
        (PackageMissingError("x"), "HENTING"),
        (UnsealError(), "APNING"),
        (CertificateError("x"), "APNING"),
        (MismatchError("x"), "KONTROLL"),
        (InvalidDocumentError("soknad.json", "data", "mangler"), "KONTROLL"),
        (FagsystemFailureError("x"), "OVERLEVERING"),
        (BehindDeadLetterError(), "KO"),
        (UnexpectedRecordError("x"), "KONTROLL"),
    ],
)
def test_the_step_follows_from_the_error(error: MeldingsformidlerError, step: str) -> None:
    assert trinn(error) == step


def letter(incoming: Any, clock: Any, **more: Any) -> DeadLetterRecord:
    given = {"record": None, "digisos_id": None, "error": UnsealError(), "attempts": (), "redrives": 0} | more
    return dead_letter(incoming, kommunenummer=NUMBER, now=clock(), **given)


def test_the_record_travels_byte_for_byte_and_survives_the_wire(incoming: Any, clock: Any) -> None:
    record = incoming(b"\0junk", key=b"\xff", headers=(("a", b"1"), ("a", b"2")))
    made = letter(record, clock, digisos_id=DigisosId.new(), redrives=3)
    again = decode(DeadLetterRecord, encode(made))
    assert again == made
    assert (again.opprinnelig.verdi, again.opprinnelig.nokkel) == (b"\0junk", b"\xff")
    assert [(one.navn, one.verdi) for one in again.opprinnelig.headere] == [("a", b"1"), ("a", b"2")]
    assert again.gjenkjoringer == 3


def test_the_same_place_gives_the_same_id_and_another_place_another(incoming: Any, clock: Any) -> None:
    first, second = letter(incoming(b"x"), clock), letter(incoming(b"x"), clock)
    assert first.dead_letter_id == second.dead_letter_id
    assert letter(incoming(b"x", offset=1), clock).dead_letter_id != first.dead_letter_id


def test_an_errors_text_does_not_travel(incoming: Any, clock: Any) -> None:
    made = letter(incoming(b"x"), clock, error=FagsystemFailureError("noe om noen"))
    assert b"noe om noen" not in encode(made)
    assert made.kode == "fagsystem.feil"


def test_a_stripped_record_keeps_its_place_and_says_what_it_was(incoming: Any, clock: Any) -> None:
    whole = incoming(b"x" * 2_000_000, key=b"k" * 10, offset=7, headers=(("a", b"1" * 1_000_000),))
    bare = stripped(whole)
    assert (bare.key, bare.value, bare.offset) == (whole.key, b"", 7)
    assert [name for name, _ in bare.headers] == ["fiks_verdi"]
    assert bare.headers[0][1].endswith(b";2000000 bytes")
    assert letter(bare, clock).dead_letter_id == letter(incoming(b"x", offset=7), clock).dead_letter_id
