"""Writing the revisjon straight to its topic. What a record is, and how records are chained: ``broker.revisjon_records``."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from broker.revisjon_records import (
    canonical,
    digest_of,
    new_record,
    revisjon_outgoing,
)
from schemas.errors import AuditError, TransportError

if TYPE_CHECKING:
    from broker.clock import Clock
    from broker.ports import Publisher
    from broker.record import Outgoing
    from schemas.names import Sha256
    from schemas.records import RevisjonRecord

FindHead = Callable[[str], Awaitable["Sha256 | None"]]
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
            records: list[RevisjonRecord] = []
            outgoing: list[Outgoing] = []
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
