from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from broker.krav import FRESH, Godkjenning, Krav, sign, verify
from broker.operatorer import Operatorer
from schemas.errors import ApprovalError
from schemas.names import Sha256, Uuid

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from broker.operatorer import Operator


@pytest.fixture
def operatorer(tmp_path: Path, now: datetime) -> Operatorer:
    operatorer = Operatorer(tmp_path)
    for name in ("kari", "ola"):
        operatorer.add(name, now)
    return operatorer


@pytest.fixture
def kari(operatorer: Operatorer, now: datetime) -> Operator:
    return operatorer.choose("kari", now)


@pytest.fixture
def krav(now: datetime) -> Callable[..., Krav]:
    def make(**changes: Any) -> Krav:
        fields: dict[str, Any] = {
            "aktor": "operator-kari",
            "tidspunkt": now,
            "id": Uuid.new(),
            "handling": "trekk",
            "utvalg": "{}",
            "digest": Sha256.of(b""),
            "antall": 1,
            "begrunnelse": "feil",
        }
        return Krav(**(fields | changes))

    return make


def test_what_an_operator_signed_is_what_is_read(operatorer: Operatorer, kari: Operator, krav: Any, now: Any) -> None:
    document = krav()
    assert verify(Krav, sign(document, kari), operatorer.load(), now) == document


def test_a_demand_is_no_approval_and_an_approval_no_demand(
    operatorer: Operatorer, kari: Operator, krav: Any, now: datetime
) -> None:
    document = krav()
    given = Godkjenning(aktor=kari.aktor, tidspunkt=now, id=document.id, digest=document.digest, krav=Sha256.of(b"x"))
    assert verify(Godkjenning, sign(given, kari), operatorer.load(), now) == given
    for model, token in ((Godkjenning, sign(document, kari)), (Krav, sign(given, kari))):
        with pytest.raises(ApprovalError):
            verify(model, token, operatorer.load(), now)


def test_nobody_demands_in_anothers_name(operatorer: Operatorer, kari: Operator, krav: Any, now: datetime) -> None:
    with pytest.raises(ApprovalError, match="annen enn det sier"):
        verify(Krav, sign(krav(aktor="operator-ola"), kari), operatorer.load(), now)


def test_a_removed_operator_demands_nothing(operatorer: Operatorer, kari: Operator, krav: Any, now: datetime) -> None:
    token = sign(krav(), kari)
    operatorer.remove("kari", now)
    with pytest.raises(ApprovalError, match="signert"):
        verify(Krav, token, operatorer.load(), now)


@pytest.mark.parametrize("away", [FRESH + timedelta(seconds=1), -FRESH - timedelta(seconds=1)])
def test_a_demand_of_another_time_is_none(
    operatorer: Operatorer, kari: Operator, krav: Any, now: datetime, away: timedelta
) -> None:
    with pytest.raises(ApprovalError, match="gammelt"):
        verify(Krav, sign(krav(tidspunkt=now + away), kari), operatorer.load(), now)


@pytest.mark.parametrize("token", ["", "a.b.c", "x" * 100])
def test_what_is_not_signed_is_refused(operatorer: Operatorer, now: datetime, token: str) -> None:
    with pytest.raises(ApprovalError):
        verify(Krav, token, operatorer.load(), now)
