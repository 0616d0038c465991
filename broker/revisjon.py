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

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Final, Protocol

import orjson

from broker.clock import timestamp, to_milliseconds
from broker.record import Outgoing, cloud_event_headers
from broker.routing import REVISJON
from schemas.codec import encode
from schemas.errors import AuditError, TransportError
from schemas.names import Sha256, Uuid
from schemas.records import RevisjonRecord

if TYPE_CHECKING:
    from datetime import datetime

    from broker.clock import Clock
    from broker.ports import Publisher

EVENT: Final = "no.fiks.revisjon.v1"
SIGNATURE_TYPE: Final = "revisjon+jws"
OPERATOR_PREFIX: Final = "operator-"
MAX_TEXT_CHARS: Final = 500
MAX_DETAIL_CHARS: Final = 32 * 1024

_PERSON: Final = re.compile(r"(?<![0-9A-Fa-f-])[0-9]{6}[ .]?[0-9]{5}(?![0-9A-Fa-f-])")

FindHead = Callable[[str], Awaitable[Sha256 | None]]
"""Returns the digest of an actor's last record on the topic, None when there is none."""


class ActSigner(Protocol):
    """Signs an operator's acts."""

    @property
    def aktor(self) -> str:
        """The actor that it signs for."""
        ...

    def sign(self, payload: bytes) -> str:
        """Return the compact JWS of ``payload``."""
        ...


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
    if _PERSON.search(text):
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


class RevisjonWriter:
    """Writes acts straight to the topic, one at a time: for commands, and for processes without an outbox.

    Args:
        publisher: Writes the topic.
        clock: What the time is.
        find_head: Finds where an actor's chain ends; asked at the actor's first act, and again after a failed one.
        source: URI reference of the writing process.
    """

    def __init__(
        self, publisher: Publisher, clock: Clock, find_head: FindHead, *, source: str = "/broker/kommando"
    ) -> None:
        self._publisher = publisher
        self._clock = clock
        self._find_head = find_head
        self._source = source
        self._heads: dict[str, Sha256 | None] = {}
        self._lock = asyncio.Lock()

    async def record(
        self,
        aktor: str,
        handling: str,
        objekt: str,
        *,
        begrunnelse: str | None = None,
        detaljer: Mapping[str, str] | None = None,
        signer: ActSigner | None = None,
    ) -> RevisjonRecord:
        """Write an act; return when it is durable on the topic.

        Args:
            aktor: Who; see ``new_record`` for this and the following.
            handling: What.
            objekt: To what.
            begrunnelse: Why.
            detaljer: Facts for machines.
            signer: Signs it, for an operator.

        Raises:
            AuditError: A text may not stand in the revisjon, or the signer is another actor. Nothing was written.
            TransportError: Not known to be written.
        """
        (record,) = await self.record_all(
            aktor, handling, {objekt: detaljer or {}}, begrunnelse=begrunnelse, signer=signer
        )
        return record

    async def record_all(
        self,
        aktor: str,
        handling: str,
        objekter: Mapping[str, Mapping[str, str]],
        *,
        begrunnelse: str | None = None,
        signer: ActSigner | None = None,
    ) -> list[RevisjonRecord]:
        """Write one act for each of many objects, pipelined; return when all are durable.

        Args:
            aktor: Who; see ``record``.
            handling: What.
            objekter: To what, each with its details.
            begrunnelse: Why.
            signer: Signs each, for an operator.

        Raises:
            AuditError: A text may not stand in the revisjon, or the signer is another actor. Nothing was written.
            TransportError: Not all are known to be written.
        """
        if signer is not None and signer.aktor != aktor:
            raise AuditError("en handling signeres av den som gjør den")
        async with self._lock:
            if aktor not in self._heads:
                self._heads[aktor] = await self._find_head(aktor)
            head = self._heads[aktor]
            records, outgoing = [], []
            for objekt, detaljer in objekter.items():
                record = new_record(
                    aktor,
                    handling,
                    objekt,
                    now=self._clock(),
                    forrige=head,
                    begrunnelse=begrunnelse,
                    detaljer=detaljer,
                )
                if signer is not None:
                    record = record.model_copy(update={"signatur": signer.sign(canonical(record))})
                records.append(record)
                outgoing.append(revisjon_outgoing(record, source=self._source))
                head = digest_of(outgoing[-1])
            del self._heads[aktor]  # unknown until these are known to be written
            for outcome in await self._publisher.publish_all(outgoing):
                if isinstance(outcome, TransportError):
                    raise outcome
            self._heads[aktor] = head
            return records
