from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from broker.operatorer import Operator, Operatorer
from broker.revisjon_records import canonical, new_record
from broker.revisjonskontroll import Act
from broker.styring import (
    FORESLATT,
    GODKJENT,
    TRUKKET,
    UTFORT,
    VALID_FOR,
    Forslag,
    carried_out,
    check_approval,
    check_selection,
    counting,
    done_alone,
    needs_approval,
    proposal_details,
    proposals,
    selection_digest,
)
from schemas.codec import encode
from schemas.errors import ApprovalError, SelectionChangedError
from schemas.names import Sha256, Uuid

if TYPE_CHECKING:
    from datetime import datetime

    from broker.operator_register import Register

IDS = ("b", "a", "c")


class Office:
    """Kari and Ola, whose keys lie on two machines; and what they have signed."""

    def __init__(self, folder: Path, now: datetime) -> None:
        self.now = now
        kari, ola = Operatorer(folder / "kari"), Operatorer(folder / "ola")
        ola.add("ola", now)
        kari.add("kari", now)
        kari.add("ola", now, certificate_pem=ola.load().operatorer[0].sertifikat)
        self.register: Register = kari.load()
        self.kari: Operator = kari.choose("kari", now)
        self.ola: Operator = ola.choose("ola", now)
        self.acts: list[Act] = []

    def sign(self, who: Operator, handling: str, objekt: str, detaljer: dict[str, str] | None = None) -> Act:
        record = new_record(who.aktor, handling, objekt, now=self.now, forrige=None, detaljer=detaljer)
        signed = record.model_copy(update={"signatur": who.sign(canonical(record))})
        act = Act(signed, Sha256.of(encode(signed)), 0, len(self.acts))
        self.acts.append(act)
        return act

    def propose(self, who: Operator | None = None, ids: tuple[str, ...] = IDS) -> Forslag:
        details = proposal_details("dlq.gjenkjor", "{}", selection_digest("dlq.gjenkjor", ids), len(ids))
        forslag = Uuid.new()
        self.sign(who or self.kari, FORESLATT, forslag, details)
        return proposals(self.acts)[forslag]


@pytest.fixture
def office(tmp_path: Path, now: datetime) -> Office:
    return Office(tmp_path, now)


@pytest.fixture
def replace() -> Callable[..., Forslag]:
    def replace(forslag: Forslag, **changes: Any) -> Forslag:
        record = forslag.act.record.model_copy(update=changes)
        return proposals([Act(record, Sha256.of(encode(record)), 0, 0)])[forslag.id]

    return replace


def test_a_selection_is_the_same_whatever_order_it_is_listed_in() -> None:
    assert selection_digest("x", ["a", "b"]) == selection_digest("x", ["b", "a", "b"])
    assert selection_digest("x", ["a", "b"]) != selection_digest("y", ["a", "b"])
    assert selection_digest("x", ["a"]) != selection_digest("x", ["a", "b"])


def test_more_than_the_limit_needs_another(office: Office) -> None:
    assert not needs_approval(office.register.grense, office.register)
    assert needs_approval(office.register.grense + 1, office.register)


def test_another_operator_approves(office: Office) -> None:
    check_approval(office.propose(), office.ola.aktor, office.register, office.now)


def test_nobody_approves_their_own(office: Office) -> None:
    with pytest.raises(ApprovalError, match="den som foreslo"):
        check_approval(office.propose(), office.kari.aktor, office.register, office.now)


@pytest.mark.parametrize("aktor", ["operator-per", "producers", "ola"])
def test_who_is_no_operator_approves_nothing(office: Office, aktor: str) -> None:
    with pytest.raises(ApprovalError):
        check_approval(office.propose(), aktor, office.register, office.now)


def test_a_removed_operator_approves_nothing(office: Office) -> None:
    gone = tuple(
        one.model_copy(update={"fjernet": office.now}) if one.navn == "ola" else one
        for one in office.register.operatorer
    )
    register = office.register.model_copy(update={"operatorer": gone})
    with pytest.raises(ApprovalError):
        check_approval(office.propose(), office.ola.aktor, register, office.now)


def test_one_operator_cannot_make_a_proposal_look_like_anothers(office: Office, replace: Any) -> None:
    forslag = office.propose(office.kari)
    stolen = replace(forslag, aktor=office.ola.aktor)
    with pytest.raises(ApprovalError, match="signert"):
        check_approval(stolen, office.kari.aktor, office.register, office.now)
    resigned = forslag.act.record.model_copy(update={"aktor": office.ola.aktor})
    by_kari = replace(forslag, aktor=office.ola.aktor, signatur=office.kari.sign(canonical(resigned)))
    with pytest.raises(ApprovalError, match="signert"):
        check_approval(by_kari, office.kari.aktor, office.register, office.now)


@pytest.mark.parametrize(
    "change",
    [
        {"signatur": None},
        {"signatur": "a.b.c"},
        {"begrunnelse": "noe annet"},
        {"aktor": "producers"},
    ],
)
def test_a_proposal_that_was_changed_or_is_not_signed_is_not_approved(
    office: Office, replace: Any, change: dict[str, Any]
) -> None:
    with pytest.raises(ApprovalError):
        check_approval(replace(office.propose(), **change), office.ola.aktor, office.register, office.now)


def test_a_proposal_with_another_digest_than_was_signed_is_not_approved(office: Office, replace: Any) -> None:
    forslag = office.propose()
    details = dict(forslag.act.record.detaljer) | {"digest": selection_digest("dlq.gjenkjor", ["alt"])}
    with pytest.raises(ApprovalError):
        check_approval(replace(forslag, detaljer=details), office.ola.aktor, office.register, office.now)


def test_an_old_proposal_is_made_anew(office: Office) -> None:
    forslag = office.propose()
    check_approval(forslag, office.ola.aktor, office.register, office.now + VALID_FOR)
    with pytest.raises(ApprovalError, match="gammelt"):
        check_approval(forslag, office.ola.aktor, office.register, office.now + VALID_FOR + timedelta(seconds=1))


@pytest.mark.parametrize("ended", [UTFORT, TRUKKET])
def test_what_is_ended_is_not_done_again_and_does_not_come_back(office: Office, ended: str) -> None:
    forslag = office.propose()
    office.sign(office.ola, ended, forslag.id)
    office.sign(office.ola, GODKJENT, forslag.id)
    with pytest.raises(ApprovalError, match="allerede"):
        check_approval(proposals(office.acts)[forslag.id], office.ola.aktor, office.register, office.now)


def test_one_that_was_interrupted_goes_on(office: Office) -> None:
    forslag = office.propose()
    office.sign(office.ola, GODKJENT, forslag.id)
    again = proposals(office.acts)[forslag.id]
    assert (again.tilstand, again.godkjent_av) == ("GODKJENT", office.ola.aktor)
    check_approval(again, office.ola.aktor, office.register, office.now)


def test_the_selection_must_be_the_very_one(office: Office) -> None:
    forslag = office.propose()
    check_selection(forslag, reversed(IDS))
    for other in ((), ("a", "b"), (*IDS, "d"), ("a", "b", "d")):
        with pytest.raises(SelectionChangedError, match="var 3"):
            check_selection(forslag, other)


def test_what_is_no_proposal_is_passed_over(office: Office) -> None:
    office.sign(office.kari, FORESLATT, "ikke en id", {})
    office.sign(office.kari, FORESLATT, Uuid.new(), {"antall": "mange"})
    office.sign(office.kari, GODKJENT, Uuid.new())
    office.sign(office.kari, TRUKKET, "ikke en id")
    assert proposals(office.acts) == {}


def test_a_second_proposal_under_the_same_id_changes_nothing(office: Office) -> None:
    forslag = office.propose()
    details = proposal_details("dlq.lukk", "{}", selection_digest("dlq.lukk", ["alt"]), 1)
    office.sign(office.ola, FORESLATT, forslag.id, details)
    assert proposals(office.acts)[forslag.id] == forslag


@pytest.mark.parametrize("handling", [GODKJENT, TRUKKET, UTFORT])
def test_what_no_operator_has_signed_moves_no_proposal(office: Office, handling: str) -> None:
    forslag = office.propose()
    for aktor in (office.ola.aktor, "broker"):
        record = new_record(aktor, handling, forslag.id, now=office.now, forrige=None)
        office.acts.append(Act(record, Sha256.of(encode(record)), 0, len(office.acts)))
    assert proposals(counting(office.acts, office.register))[forslag.id].tilstand == "FORESLATT"
    office.sign(office.ola, handling, forslag.id)
    assert proposals(counting(office.acts, office.register))[forslag.id].tilstand != "FORESLATT"


def test_an_interrupted_run_is_done_with_what_its_operators_signed_and_no_more(office: Office) -> None:
    forslag = office.propose()
    done, forged, others = Uuid.new(), Uuid.new(), Uuid.new()
    office.sign(office.ola, "dlq.gjenkjort", done, {"forslag": forslag.id})
    office.sign(office.ola, "dlq.gjenkjort", others)
    record = new_record(
        office.ola.aktor, "dlq.gjenkjort", forged, now=office.now, forrige=None, detaljer={"forslag": forslag.id}
    )
    office.acts.append(Act(record, Sha256.of(encode(record)), 0, 9))
    assert carried_out(office.acts, forslag, "dlq.gjenkjort", office.register) == {done}


def test_what_an_operator_did_alone_is_counted_and_nothing_else_is(office: Office) -> None:
    wanted = {"dlq.gjenkjort", "dlq.lukket"}
    office.sign(office.kari, "dlq.gjenkjort", "gammelt")
    since = office.now
    office.acts[-1] = Act(office.acts[-1].record, office.acts[-1].digest, round(since.timestamp() * 1000) - 1, 0)

    def later(who: Operator, handling: str, objekt: str, detaljer: dict[str, str] | None = None) -> None:
        act = office.sign(who, handling, objekt, detaljer)
        office.acts[-1] = Act(act.record, act.digest, round(since.timestamp() * 1000), act.offset)

    later(office.kari, "dlq.gjenkjort", "a")
    later(office.kari, "dlq.lukket", "a")
    later(office.kari, "dlq.lukket", "b")
    later(office.kari, "dlq.gjenkjoring.startet", "c")
    later(office.kari, "dlq.lukket", "d", {"forslag": Uuid.new()})
    later(office.ola, "dlq.lukket", "e")
    assert done_alone(office.acts, office.kari.aktor, wanted, since) == {"a", "b"}
