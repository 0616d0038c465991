"""Issuing kvitteringer: claims, signature, chain, and publishing in the chain's order.

Rules:

1. Stored before published (``consumers.dedup``), and the same bytes every time it is published.
2. One søknad's kvitteringer are published in the order of their ``nr``: whoever publishes one publishes what is left before it.
   What a former life left is published by whoever has the søknad's partition, and has read the topic first.
3. A repeat of something answered gets the melding's own kvitteringer again, all of them, oldest first; no new one is issued.
4. What lost its place in the chain to a kvittering on the topic is never published. What it said is issued again with the next
   number, unless the chain says it already.
"""

from __future__ import annotations

import asyncio
from bisect import insort
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

from broker.krasj import crash_point
from broker.record import Outgoing, cloud_event_headers
from broker.routing import kvittering_topic
from consumers.issued import Issued, claims_of
from crypto import sign_jws, verify_jws
from schemas.codec import encode
from schemas.errors import PartitionLostError
from schemas.kvittering import KvitteringClaims
from schemas.names import Uuid

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

    from broker.clock import Clock
    from broker.ports import Publisher
    from consumers.dedup import DedupStore
    from schemas.names import DigisosId, Kommunenummer, MeldingId, Sha256

EVENT: Final = "no.fiks.kvittering.v1"
MAX_UNMARKED: Final = 200
"""How many publications may be unknown to the store; after a crash these are published once more."""


@dataclass(frozen=True)
class Issuer:
    """Who signs.

    Attributes:
        name: The connector's id, ``utsteder`` in every kvittering.
        certificate: P-256.
        key: Its private key.
        former: Certificates that this connector signed with before; what they signed is taken over in a rebuild.
    """

    name: str
    certificate: x509.Certificate
    key: EllipticCurvePrivateKey
    former: tuple[x509.Certificate, ...] = ()

    def verify(self, jws: str) -> Issued | None:
        """Return the kvittering if this connector issued it, None if somebody else did.

        Raises:
            SignatureError: It is not signed by us.
            DecodeError: It is signed by us, and unreadable all the same.
        """
        payload, _ = verify_jws(jws, (self.certificate, *self.former))
        claims = KvitteringClaims.from_json(payload)
        return Issued.of(claims, jws) if claims.utsteder == self.name else None


@dataclass(frozen=True, slots=True)
class Answer:
    """What a kvittering shall say; see ``KvitteringClaims``."""

    digisos_id: DigisosId
    melding_id: MeldingId | None
    sha256: Sha256
    status: str
    grad: str
    kode: str | None = None


class Kvitteringer:
    """Issues and publishes one kommune's kvitteringer.

    Args:
        kommunenummer: The kommune.
        issuer: Who signs.
        store: The local store.
        publisher: Where they go.
        clock: What the time is.
    """

    def __init__(
        self, kommunenummer: Kommunenummer, *, issuer: Issuer, store: DedupStore, publisher: Publisher, clock: Clock
    ) -> None:
        self._kommunenummer = kommunenummer
        self._issuer = issuer
        self._store = store
        self._publisher = publisher
        self._clock = clock
        self._chains: dict[DigisosId, _Chain] = {}
        self._unmarked: set[Uuid] = set()

    async def reconcile(self, owns: Callable[[DigisosId], bool]) -> None:
        """Publish what is left, once the store has learnt what is on the topic and what lost its place there has a new one.

        Args:
            owns: Whether this process answers for a søknad; what another one answers for is left alone.

        Raises:
            StoreError: Not everything was done. Call again.
            TransportError: Likewise.
        """
        displaced = [each for each in await self._store.displaced(self._kommunenummer) if owns(each.digisos_id)]
        for each in displaced:
            await self._take_out(each)
            await self._issue_again(each)
        for issued in await self._store.unpublished(self._kommunenummer):
            if issued.kvittering_id not in self._unmarked:
                self._chain(issued.digisos_id).add(issued, claims_of(issued.jws))
        for digisos_id in list(self._chains):
            if owns(digisos_id):
                await self.publish(digisos_id, allowed=partial(owns, digisos_id))

    async def _take_out(self, displaced: Issued) -> None:
        chain = self._chain(displaced.digisos_id)
        async with chain.lock:
            chain.waiting = [one for one in chain.waiting if one[0].kvittering_id != displaced.kvittering_id]

    async def _issue_again(self, displaced: Issued) -> None:
        """Give what was displaced a new place, unless the chain says the same without it (rule 4)."""
        claims = claims_of(displaced.jws)
        if not any(_covers(each, displaced) for each in await self._said(displaced)):
            answer = Answer(
                claims.digisos_id, claims.melding_id, claims.sha256, claims.status, claims.grad, claims.kode
            )
            await self.issue(answer, unless=lambda each: _covers(each, displaced))
        await self._store.forget_displaced(displaced.kvittering_id)

    async def _said(self, displaced: Issued) -> tuple[Issued, ...]:
        if displaced.melding_id is None:
            return await self._store.of_unreadable(displaced.digisos_id, displaced.sha256)
        return await self._store.of_melding(displaced.melding_id)

    async def issue(
        self, answer: Answer, *, dead_key: str | None = None, unless: Callable[[Issued], bool] | None = None
    ) -> Issued:
        """Sign and store a kvittering, unless the melding has one already that is enough; ``publish`` it next.

        Args:
            answer: What it shall say.
            dead_key: A key that dies with it.
            unless: Which of the melding's kvitteringer is enough.

        Raises:
            StoreError: Nothing was issued.
        """

        def sign(nr: int, forrige: Sha256 | None) -> tuple[KvitteringClaims, str]:
            claims = KvitteringClaims(
                kvittering_id=Uuid.new(),
                digisos_id=answer.digisos_id,
                melding_id=answer.melding_id,
                kommunenummer=self._kommunenummer,
                utsteder=self._issuer.name,
                status=answer.status,
                grad=answer.grad,
                kode=answer.kode,
                sha256=answer.sha256,
                tidspunkt=self._clock(),
                nr=nr,
                forrige=forrige,
            )
            return claims, sign_jws(claims.to_json(), self._issuer.key, self._issuer.certificate)

        enough = (answer.melding_id, unless) if answer.melding_id is not None and unless is not None else None
        issued = await self._store.issue(self._kommunenummer, answer.digisos_id, sign, dead_key=dead_key, unless=enough)
        # Read from what is kept: the store may have had it signed more than once, and one that was there already may be left over
        # from a delivery that was cut off before it could publish.
        self._chain(answer.digisos_id).add(issued, claims_of(issued.jws))
        return issued

    async def publish(
        self,
        digisos_id: DigisosId,
        *,
        again: tuple[Issued, ...] = (),
        parent: bytes | None = None,
        allowed: Callable[[], bool] = lambda: True,
    ) -> None:
        """Publish what is left of the søknad's chain, in order; durable on its topic when this returns.

        Args:
            digisos_id: The søknad.
            again: Kvitteringer to repeat byte for byte, oldest first.
            parent: ``traceparent`` of what led to it.
            allowed: Asked before each: whether the søknad's partition is still ours.

        Raises:
            PartitionLostError: It is not.
            TransportError: Not known to be published. Call again.
        """
        chain = self._chain(digisos_id)
        chain.users += 1
        try:
            async with chain.lock:
                left = {issued.kvittering_id for issued, _ in chain.waiting}
                for issued in again:
                    if issued.kvittering_id not in left:
                        await self._send(issued, claims_of(issued.jws), parent, allowed)
                while chain.waiting:
                    crash_point("consumers.kvittering.before-publish")
                    await self._send(*chain.waiting[0], parent, allowed)
                    crash_point("consumers.kvittering.after-publish")
                    self._unmarked.add(chain.waiting.pop(0)[0].kvittering_id)
        finally:
            chain.users -= 1
            if not chain.users and not chain.waiting:
                self._chains.pop(digisos_id, None)
        if len(self._unmarked) >= MAX_UNMARKED:
            await self.mark_published()

    async def _send(
        self, issued: Issued, claims: KvitteringClaims, parent: bytes | None, allowed: Callable[[], bool]
    ) -> None:
        if not allowed():
            raise PartitionLostError("kvitteringen er det nå en annen som har å gjøre med")
        await self._publisher.publish(self._outgoing(issued, claims, parent))

    async def mark_published(self) -> None:
        """Tell the store what was published since the last time."""
        marked = frozenset(self._unmarked)
        if marked:
            await self._store.mark_published(marked)
            self._unmarked -= marked

    def _chain(self, digisos_id: DigisosId) -> _Chain:
        return self._chains.setdefault(digisos_id, _Chain())

    def _outgoing(self, issued: Issued, claims: KvitteringClaims, parent: bytes | None) -> Outgoing:
        headers = cloud_event_headers(
            event_id=claims.kvittering_id,
            event_type=EVENT,
            source=f"/konnektor/{self._issuer.name}",
            subject=self._kommunenummer,
            time=claims.tidspunkt,
            parent=parent,
        )
        key = claims.digisos_id.encode("ascii")
        return Outgoing(kvittering_topic(self._kommunenummer), key, encode(claims.record(issued.jws)), headers)


@dataclass(slots=True)
class _Chain:
    """What is left to publish of one søknad's chain, and who is at it."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: list[tuple[Issued, KvitteringClaims]] = field(default_factory=list[tuple[Issued, KvitteringClaims]])
    users: int = 0

    def add(self, issued: Issued, claims: KvitteringClaims) -> None:
        """Put ``issued`` in its place; one that is there already is left as it is."""
        if all(each.nr != issued.nr for each, _ in self.waiting):
            insort(self.waiting, (issued, claims), key=lambda each: each[0].nr)


def _covers(issued: Issued, displaced: Issued) -> bool:
    """Whether ``displaced`` has nothing to add: the same is said, or the last word, or what a dead letter was wrong about."""
    return (
        issued.says_the_same_as(displaced)
        or issued.is_final
        or (displaced.is_dead_letter and not issued.is_dead_letter)
    )
