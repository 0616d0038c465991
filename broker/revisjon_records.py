"""The revisjon: who did what, when and why, as records of ``fiks.revisjon.v1`` that are chained for each actor.

Rules:

1. ``forrige`` is the SHA-256 of the bytes of the actor's former record as they lie on the topic, None for the actor's first. A
   record that is changed, put in or taken out of the middle shows. What is cut off the *end* of a chain does not show from the
   chain itself; Kafka's own rights hold that: nobody of ours may delete.
2. An actor is a process, or an operator as ``operator-<navn>``. Two writers of one actor would make a fork, which shows too: a
   process with several instances chains in their common database, an operator's commands hold a lock beside the operator's key.
3. The same bytes twice are one record: publishing is at least once.
4. An operator's record is signed: a compact JWS over ``canonical`` of the record.
5. A reason is a person's free text. What looks like a fødselsnummer is refused in it, and in every detail.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import orjson

from broker.clock import timestamp, to_milliseconds
from broker.record import Outgoing, cloud_event_headers
from broker.routing import REVISJON
from schemas.codec import encode
from schemas.errors import AuditError
from schemas.names import Sha256, Uuid
from schemas.records import RevisjonRecord

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

EVENT: Final = "no.fiks.revisjon.v1"
SIGNATURE_TYPE: Final = "revisjon+jws"
OPERATOR_PREFIX: Final = "operator-"
MAX_TEXT_CHARS: Final = 500
MAX_DETAIL_CHARS: Final = 32 * 1024

_ID: Final = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}|[0-9A-Fa-f]{32,}")
"""UUIDs and digests: their digits are nobody's."""
_PERSON: Final = re.compile(
    r"(?<![0-9A-Fa-f])[0-9]{2}[\s./-]?[0-9]{2}[\s./-]?[0-9]{2}[\s./-]{0,3}[0-9]{3}\s?[0-9]{2}(?![0-9A-Fa-f])"
)


def new_record(
    aktor: str,
    handling: str,
    objekt: str,
    *,
    now: datetime,
    forrige: Sha256 | None,
    begrunnelse: str | None = None,
    detaljer: Mapping[str, str] | None = None,
) -> RevisjonRecord:
    """Return an act as a record, not signed.

    Args:
        aktor: Process, or ``operator-<navn>``.
        handling: What was done, as words with dots: ``dlq.gjenkjort``.
        objekt: An id of ours, or a kommunenummer.
        now: Aware UTC; kept in milliseconds.
        forrige: Digest of the actor's former record.
        begrunnelse: Why, in an operator's words.
        detaljer: Facts for machines: ids, digests, numbers.

    Raises:
        AuditError: A text is too long, or looks as if it names a person (rule 5).
    """
    facts = dict(detaljer or {})
    check_text("begrunnelsen", begrunnelse or "", MAX_TEXT_CHARS)
    check_text("objektet", objekt, MAX_TEXT_CHARS)
    for name, value in facts.items():
        check_text(f"detaljen {name}", value, MAX_DETAIL_CHARS)
    return RevisjonRecord(
        revisjon_id=Uuid.new(),
        aktor=aktor,
        handling=handling,
        objekt=objekt,
        tidspunkt=to_milliseconds(now),
        begrunnelse=begrunnelse,
        forrige=forrige,
        detaljer=facts,
    )


def check_text(what: str, text: str, longest: int = MAX_TEXT_CHARS) -> None:
    """Refuse what may not stand in the revisjon; the error does not repeat it.

    Raises:
        AuditError: Longer than ``longest`` characters, or with what looks like a fødselsnummer.
    """
    if len(text) > longest:
        raise AuditError(f"{what} er lengre enn {longest} tegn")
    if _PERSON.search(_ID.sub(" ", text)):
        raise AuditError(f"{what} ser ut til å ha et fødselsnummer i seg; skriv det uten personopplysninger")


def canonical(record: RevisjonRecord) -> bytes:
    """Return what is signed: the record without its signature as UTF-8 JSON, names sorted, no spaces, times in milliseconds."""
    document = record.model_dump(by_alias=True, exclude={"signatur", "tidspunkt"})
    return orjson.dumps(document | {"tidspunkt": timestamp(record.tidspunkt)}, option=orjson.OPT_SORT_KEYS)


def revisjon_outgoing(record: RevisjonRecord, *, source: str = "/broker") -> Outgoing:
    """Return the record as it is published; ``digest_of`` of its value is the ``forrige`` of the actor's next.

    Args:
        record: Complete, signed if it is to be.
        source: URI reference of the process that writes, for example ``/producers``.
    """
    headers = cloud_event_headers(
        event_id=record.revisjon_id, event_type=EVENT, source=source, subject=record.objekt, time=record.tidspunkt
    )
    return Outgoing(REVISJON, record.aktor.encode(), encode(record), headers)


def digest_of(outgoing: Outgoing) -> Sha256:
    """Return what the actor's next record has as ``forrige``."""
    return Sha256.of(outgoing.value or b"")
