"""What operators ask of a process that acts for them, signed: a demand by one, and when it reaches many, an approval by another.

The process that carries it out judges the signatures itself, so that neither a command nor a machine's token decides who did it.
Who can get around it is said in ``broker.operatorer``.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final, Protocol, TypeVar

import orjson
from pydantic import AwareDatetime, Field, ValidationError

from broker.operator_register import Register
from broker.revisjon_records import MAX_TEXT_CHARS
from crypto.jws import verify_jws
from schemas.errors import ApprovalError, SignatureError
from schemas.model import WireModel
from schemas.names import Sha256, Uuid

KRAV_TYPE: Final = "krav+jws"
APPROVAL_TYPE: Final = "godkjenning+jws"
FRESH: Final = timedelta(minutes=10)
"""How far the time in a demand may be from the judge's: an old one is no demand any more."""


class Signed(WireModel):
    """What is common: who, and when."""

    aktor: str
    tidspunkt: AwareDatetime


class Krav(Signed):
    """A demand.

    Attributes:
        id: Of the act from now on; the same one twice is one act.
        handling: What is to be done.
        utvalg: To what, as JSON in the act's own terms.
        digest: Of the exact selection that the operator saw.
        antall: How many objects that was.
        begrunnelse: Why.
    """

    id: Uuid
    handling: str
    utvalg: str
    digest: Sha256
    antall: int = Field(ge=0)
    begrunnelse: str = Field(min_length=1, max_length=MAX_TEXT_CHARS)


class Godkjenning(Signed):
    """An approval of exactly one demand, named by its id, its selection and the digest of its JWS."""

    id: Uuid
    digest: Sha256
    krav: Sha256


S = TypeVar("S", bound=Signed)


class KravSigner(Protocol):
    """An operator whose key is at hand."""

    def sign(self, payload: bytes, *, typ: str = ...) -> str:
        """Return the compact JWS of ``payload``."""
        ...


def sign(document: Signed, operator: KravSigner) -> str:
    """Return the document as a compact JWS, by its operator."""
    return operator.sign(orjson.dumps(document.model_dump(mode="json", by_alias=True)), typ=_type_of(type(document)))


def verify(model: type[S], token: str, register: Register, now: datetime) -> S:
    """Return what an operator signed.

    Args:
        model: What it must be.
        token: The compact JWS.
        register: Who the operators are.
        now: Aware UTC.

    Raises:
        ApprovalError: Not signed by an operator of now, by another than it says, too old, or not of that form.
    """
    active = {one.aktor: one.certificate for one in register.operatorer if one.is_active(now)}
    try:
        payload, certificate = verify_jws(token, active.values(), typ=_type_of(model))
        document = model.model_validate_json(payload)
    except (SignatureError, ValidationError):
        raise ApprovalError("kravet er ikke signert av en operatør, eller kan ikke leses") from None
    if active.get(document.aktor) != certificate:
        raise ApprovalError("kravet er signert av en annen enn det sier")
    if abs(now - document.tidspunkt) > FRESH:
        raise ApprovalError("kravet er for gammelt, eller klokkene går ulikt")
    return document


def _type_of(model: type[Signed]) -> str:
    return APPROVAL_TYPE if issubclass(model, Godkjenning) else KRAV_TYPE
