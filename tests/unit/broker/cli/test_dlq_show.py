from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

import pytest

from broker.cli import dlq_show
from broker.cli.dlq_show import WHY, groups, header_document, show_groups, show_result
from broker.dlq import plan
from broker.dlq.desk import Resultat
from broker.dlq.letters import Letter, Position
from broker.dlq.redrive import Utfall
from broker.dlq.state import LOKKEVERN, Sak
from schemas.names import Kommunenummer, Uuid

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def sak(kode: str = "krypto.apning", tilstand: str = "APEN", hastegrad: str = "VANLIG") -> Sak:
    letter = Letter(
        id=Uuid.new(), position=Position("t", 0, 0), at_ms=0, key=b"k", digisos_id=None, melding_id=None,
        kommunenummer=Kommunenummer("0301"), kode=kode, trinn="APNING", tidspunkt=NOW, forsok=(), gjenkjoringer=0,
        sent_again_from=None, type=None, hastegrad=hastegrad, skjema=None, avsenderversjon=None, innsendt=None,
        gyldig_til=None, storrelse=1,
    )  # fmt: skip
    return Sak((letter,), cast("Any", tilstand), None, None, (), ())


def test_every_reason_for_holding_a_letter_says_what_to_do() -> None:
    reasons = {plan.STRIPPET, plan.UTLOPT, plan.FREMMED, plan.PARKERT, plan.VENTER, plan.UBESVART, LOKKEVERN}
    assert set(WHY) == reasons


def test_groups_with_nodhjelp_come_first_and_then_the_largest() -> None:
    saker = [sak("a"), sak("b"), sak("b"), sak("c", hastegrad="NODHJELP")]
    found = groups(saker, NOW)
    assert [(one["kode"], one["antall"], one["nodhjelp"]) for one in found] == [("c", 1, 1), ("b", 2, 0), ("a", 1, 0)]
    assert groups([sak("a"), sak("a", "PARKERT")], NOW)[0]["parkerte"] == 1


def test_headers_that_are_no_text_are_shown_as_hex() -> None:
    assert header_document([("a", b"x"), ("b", b"\x00\x01"), ("c", b"\xff")]) == {"a": "x", "b": "0001", "c": "ff"}


def test_what_could_not_be_read_is_told_beside_the_groups(capsys: pytest.CaptureFixture[str]) -> None:
    show_groups([], 3)
    said = capsys.readouterr().out
    assert "ingen døde brev" in said
    assert "3 oppføringer kan ikke leses" in said


def test_a_proposal_says_what_the_other_operator_types(capsys: pytest.CaptureFixture[str]) -> None:
    forslag = Uuid.new()
    show_result(Resultat(forslag=forslag), "parkert")
    assert f"formidler dlq approve {forslag}" in capsys.readouterr().out


def test_what_did_not_go_and_what_is_left_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    brev = Uuid.new()
    utfall = Utfall(sendt=2, feilet={brev: "transport.for-stor"}, igjen=1)
    show_result(Resultat(utfall=utfall, utfort=True), "sendt på nytt")
    said = capsys.readouterr().out
    assert "2 brev sendt på nytt" in said
    assert "transport.for-stor" in said
    assert "1 brev er igjen" in said
    assert dlq_show.result_document(Resultat(utfall=utfall, utfort=True))["igjen"] == 1
