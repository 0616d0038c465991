from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from broker.cli import dlq_show
from broker.cli.dlq_show import (
    WHY,
    act_documents,
    doubts,
    groups,
    header_document,
    sak_document,
    show_details,
    show_groups,
    show_result,
    show_sak,
)
from broker.dlq import plan
from broker.dlq.desk import Resultat
from broker.dlq.letters import Letter, Position
from broker.dlq.redrive import Utfall
from broker.dlq.state import LOKKEVERN, Sak, Tvil
from broker.revisjonskontroll import Act
from schemas.names import Kommunenummer, Sha256, Uuid
from schemas.records import RevisjonRecord

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
    show_groups([], 3, [])
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


def doubtful(objekt: str = "x") -> Tvil:
    record = RevisjonRecord(
        revisjon_id=Uuid.new(), aktor="operator-kari", handling="dlq.lukket", objekt=objekt, tidspunkt=NOW
    )
    return Tvil(Act(record, Sha256("a" * 64), 0, 0), "operatøren kari er ukjent her")


def test_acts_that_do_not_count_are_told_of_beside_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    some = replace(sak(), uten_virkning=(doubtful(), doubtful()))
    show_groups(groups([some], NOW), 0, doubts([some]))
    told = capsys.readouterr().out
    show_details([some], doubts([some]))
    for said in (told, capsys.readouterr().out):
        assert "2 handlinger teller ikke" in said
        assert "operatøren kari er ukjent her" in said
    show_groups([], 0, doubts([sak()]))
    assert "teller ikke" not in capsys.readouterr().out
    assert sak_document(some)["utenVirkning"] == 2


def test_an_act_that_does_not_count_is_shown_as_one_in_the_letter(capsys: pytest.CaptureFixture[str]) -> None:
    some = replace(sak(), uten_virkning=(doubtful(),), handlinger=(doubtful().act,))
    acts = act_documents(some)
    assert [act["tellerIkke"] for act in acts] == [None, "operatøren kari er ukjent her"]
    show_sak(sak_document(some) | {"brev": [], "handlinger": acts})
    assert capsys.readouterr().out.count("TELLER IKKE: operatøren kari er ukjent her") == 1
