"""Reads the kommuner's kvitteringer, and destroys the sender's copy of what somebody has vouched for.

Rules:

1. Only a kvittering MOTTATT destroys a copy, and only if it is real: signed by a certificate that the katalog has for the topic's
   kommune, valid then and not revoked, in its connector's own name; the record's clear fields are what was signed; the melding,
   the søknad and the kommune are the copy's, and the digest is one that the melding was sent as. Nor had the certificate ended
   ``UNDERVEIS`` before Kafka appended it: who has an ended key can write any time into what it signs. Anything else destroys
   nothing.
2. The copy, its proof and the place in the topic are one transaction.
3. The place is ours to keep, with the digest of the record before it. A topic on which another record lies there, or which is
   shorter, was made again: it is read from its beginning, since to destroy twice is to destroy once.
4. A topic that cannot be read holds up no other one's kommuner for long: they are halved until it stands alone.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Self

from broker.krasj import crash_point
from broker.log import get_logger
from broker.record import TopicPartition
from broker.routing import kvittering_topic, parse_topic
from crypto.certificates import judge_validity, nokkel_id
from crypto.jws import verify_jws
from producers import kopi_rows, metrics
from producers.avsenderkopi import destroy_in
from schemas.codec import decode
from schemas.errors import (
    CertificateError,
    MeldingsformidlerError,
    MismatchError,
    SignatureError,
    StoreError,
    TopicShorterError,
    TransportError,
)
from schemas.kvittering import MOTTATT, UNDERVEIS, KvitteringClaims
from schemas.names import Kommunenummer, Sha256
from schemas.records import KvitteringRecord

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cryptography import x509

    from broker.clock import Clock
    from broker.katalog import Katalog
    from broker.ports import OpenTail
    from broker.record import Incoming
    from broker.sql import Connection
    from producers.avsenderkopi import Avsenderkopier
    from schemas.names import MeldingId, Uuid

RETRY_S: Final = 1.0
SCRUB_S: Final = 5.0
"""So long destroyed keys may lie in the database's log of former pages; see ``Database.scrub``."""


class TopicChangedError(Exception):
    """A topic is not the one that was read before (rule 3)."""


@dataclass(frozen=True, slots=True)
class Place:
    """How far a partition was read.

    Attributes:
        next: The next offset.
        last: Digest of the record before it.
    """

    next: int
    last: Sha256


@dataclass(frozen=True, slots=True)
class Issuer:
    """Who may sign in a kommune's name, by the katalog.

    Attributes:
        name: The connector's id; None when the kommune is unknown.
        certificates: Those that it signs with, without those that were revoked.
    """

    name: str | None
    certificates: tuple[x509.Certificate, ...]

    @classmethod
    def of(cls, katalog: Katalog, kommunenummer: Kommunenummer) -> Self:
        """Return the kommune's, as the katalog has it now."""
        entry = katalog.get(kommunenummer)
        revoked = {each.nokkel_id for each in (entry.sertifikater if entry else ()) if each.tilbakekalt is not None}
        signers = katalog.signers(kommunenummer)
        return cls(
            entry.konnektor if entry else None, tuple(each for each in signers if nokkel_id(each) not in revoked)
        )

    def at(self, lagret: datetime) -> Self:
        """Return it without the certificates that had ended too long before Kafka appended something."""
        return replace(
            self, certificates=tuple(one for one in self.certificates if lagret - UNDERVEIS < one.not_valid_after_utc)
        )


class KvitteringFollower:
    """Follows the kvittering topics of every kommune in the katalog.

    Args:
        katalog: Who may sign.
        changed: Set when the katalog has changed.
        open_tail: Opens a reader of these topics from these offsets on.
        kopier: What is destroyed.
        clock: What the time is, for the proof.
    """

    def __init__(
        self, *, katalog: Katalog, changed: asyncio.Event, open_tail: OpenTail, kopier: Avsenderkopier, clock: Clock
    ) -> None:
        self._katalog = katalog
        self._changed = changed
        self._open_tail = open_tail
        self._kopier = kopier
        self._clock = clock

    async def run(self, katalog_ready: asyncio.Event) -> None:
        """Follow every kommune's topic, and those that come, until cancelled.

        Args:
            katalog_ready: Nothing is read before it is set: every kvittering would look forged.
        """
        await katalog_ready.wait()
        followed: frozenset[str] = frozenset()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._scrub())
            while True:
                self._changed.clear()
                topics = frozenset(kvittering_topic(entry.kommunenummer) for entry in self._katalog.all())
                if new := topics - followed:
                    followed |= new
                    tasks.create_task(self._follow(tasks, new))
                await self._changed.wait()

    async def _follow(self, tasks: asyncio.TaskGroup, topics: frozenset[str]) -> None:
        while True:
            try:
                await self._read(topics)
            except (TopicChangedError, TopicShorterError) as error:
                get_logger().warning("kvittering_topics_read_again", antall=len(topics), exc_info=error)
                await self._forget(topics)
                continue
            except TransportError as error:
                get_logger().warning(
                    "kvittering_topics_unavailable", antall=len(topics), vent_s=RETRY_S, exc_info=error
                )
                if len(topics) > 1:
                    for half in _halves(topics):
                        tasks.create_task(self._follow(tasks, half))
                    return
            except StoreError as error:
                get_logger().warning("sender_copies_unavailable", antall=len(topics), vent_s=RETRY_S, exc_info=error)
            await asyncio.sleep(RETRY_S)

    async def _read(self, topics: frozenset[str]) -> None:
        places = await self._kopier.database.read(lambda connection: _places(connection, topics))
        # The record before the place is read once more, to see that it is the same one.
        offsets = {partition: place.next - 1 for partition, place in places.items()}
        async with self._open_tail(topics, offsets) as tail:
            ends = await tail.ends(topics)
            if shorter := [one.topic for one, place in places.items() if ends.get(one, 0) < place.next]:
                raise TopicChangedError(shorter[0])
            expected = {one: place for one, place in places.items() if tail.first.get(one, 0) < place.next}
            async for batch in tail:
                await self._take(_unseen(batch, expected))

    async def _take(self, batch: Sequence[Incoming]) -> None:
        """Destroy what this batch vouches for, and remember how far it came."""
        if not batch:
            return
        numbers = {parse_topic(record.topic).kommunenummer for record in batch}
        issuers = {number: Issuer.of(self._katalog, number) for number in numbers if number is not None}
        found = await asyncio.to_thread(_verified, batch, issuers)
        reached = {record.topic_partition: record for record in batch}
        now = self._clock()

        def write(connection: Connection) -> list[tuple[MeldingId, Uuid]]:
            _reach(connection, reached)
            destroyed = [
                (melding_id, claims.kvittering_id)
                for claims in found
                if (melding_id := _vouched(connection, claims)) is not None
                and destroy_in(connection, melding_id, now=now, kvittering_id=claims.kvittering_id)
            ]
            if destroyed:
                crash_point("producers.kopi.before-commit")
            return destroyed

        for melding_id, kvittering_id in await self._kopier.database.write(write):
            self._kopier.told([melding_id], kvittering_id=kvittering_id)

    async def _forget(self, topics: frozenset[str]) -> None:
        def write(connection: Connection) -> None:
            connection.executemany("DELETE FROM lesestand WHERE topic = ?", [(topic,) for topic in topics])

        await self._kopier.database.write(write)

    async def _scrub(self) -> None:
        """Take destroyed keys out of the database's files, some time after they were destroyed, whatever for."""
        unscrubbed = self._kopier.unscrubbed
        while True:
            await unscrubbed.wait()
            await asyncio.sleep(SCRUB_S)
            unscrubbed.clear()
            try:
                if not await self._kopier.database.scrub():
                    unscrubbed.set()
            except StoreError as error:
                get_logger().warning("database_not_scrubbed", vent_s=SCRUB_S, exc_info=error)
                unscrubbed.set()


def _verified(batch: Sequence[Incoming], issuers: Mapping[Kommunenummer, Issuer]) -> list[KvitteringClaims]:
    found: list[KvitteringClaims] = []
    for record in batch:
        try:
            claims = _claims(record, issuers)
        except Exception as error:  # noqa: BLE001 - one record must never stop all the others
            _passed_over(record, error)
        else:
            found += [claims] if claims is not None else []
    return found


def _claims(incoming: Incoming, issuers: Mapping[Kommunenummer, Issuer]) -> KvitteringClaims | None:
    """Return what a real kvittering MOTTATT says; None for one with another status."""
    record = decode(KvitteringRecord, incoming.value)
    if record.status != MOTTATT:
        return None
    kommunenummer = parse_topic(incoming.topic).kommunenummer
    if kommunenummer is None:
        raise MismatchError("emnet er ikke en kommunes")
    lagret = datetime.fromtimestamp(incoming.timestamp_ms / 1000, UTC)
    return verify_kvittering(record, kommunenummer, issuers[kommunenummer].at(lagret))


def verify_kvittering(record: KvitteringRecord, kommunenummer: Kommunenummer, issuer: Issuer) -> KvitteringClaims:
    """Return what is signed in a kvittering, if it is real (rule 1).

    Args:
        record: As it lay on the topic.
        kommunenummer: Whose topic it was.
        issuer: Who may sign in the kommune's name.

    Raises:
        SignatureError: Not signed by the issuer with a certificate that was valid, and is not revoked.
        DecodeError: The claims cannot be read.
        MismatchError: The clear fields are not what was signed, or it is another kommune's.
    """
    payload, certificate = verify_jws(record.jws, issuer.certificates)
    claims = KvitteringClaims.from_json(payload)
    try:
        judge_validity(certificate, claims.tidspunkt)
    except CertificateError:
        raise SignatureError("sertifikatet var ikke gyldig da kvitteringen ble utstedt") from None
    if claims.utsteder != issuer.name:
        raise SignatureError("kvitteringens utsteder er ikke konnektoren som eier sertifikatet")
    if claims.record(record.jws) != record:
        raise MismatchError("kvitteringens klare felt er ikke det som er signert")
    if claims.kommunenummer != kommunenummer:
        raise MismatchError("kvitteringen gjelder en annen kommune enn emnet den kom på")
    return claims


def _vouched(connection: Connection, claims: KvitteringClaims) -> MeldingId | None:
    """Return the melding that a kvittering vouches for, if it is one of ours and the kvittering speaks of what was sent."""
    kopi = None if claims.melding_id is None else kopi_rows.load(connection, claims.melding_id)
    if kopi is None or kopi.destruert is not None:
        return None
    digests = kopi_rows.sealings(connection, kopi.melding_id)
    if (kopi.digisos_id, kopi.kommunenummer) == (claims.digisos_id, claims.kommunenummer) and claims.sha256 in digests:
        return kopi.melding_id
    metrics.KVITTERINGER_PASSED_OVER.labels(kode=MismatchError.code).inc()
    get_logger().warning(
        "kvittering_passed_over",
        melding_id=kopi.melding_id,
        kvittering_id=claims.kvittering_id,
        kommunenummer=claims.kommunenummer,
        kode=MismatchError.code,
    )
    return None


def _passed_over(record: Incoming, error: Exception) -> None:
    code = error.code if isinstance(error, MeldingsformidlerError) else "uventet"
    metrics.KVITTERINGER_PASSED_OVER.labels(kode=code).inc()
    get_logger().warning(
        "kvittering_passed_over", topic=record.topic, partition=record.partition, offset=record.offset, exc_info=error
    )


def _unseen(batch: Sequence[Incoming], expected: dict[TopicPartition, Place]) -> list[Incoming]:
    """Return the records that are new; take out of ``expected`` what was seen to be as it was.

    Raises:
        TopicChangedError: Where a partition was read to, another record lies now.
    """
    new: list[Incoming] = []
    for record in batch:
        place = expected.pop(record.topic_partition, None)
        if place is None:
            new.append(record)
        elif record.offset != place.next - 1 or Sha256.of(record.value) != place.last:
            raise TopicChangedError(record.topic)
    return new


def _places(connection: Connection, topics: frozenset[str]) -> dict[TopicPartition, Place]:
    rows = connection.execute("SELECT topic, partisjon, neste, siste FROM lesestand").fetchall()
    return {
        TopicPartition(row["topic"], row["partisjon"]): Place(row["neste"], Sha256(row["siste"]))
        for row in rows
        if row["topic"] in topics
    }


def _reach(connection: Connection, reached: Mapping[TopicPartition, Incoming]) -> None:
    connection.executemany(
        "INSERT INTO lesestand VALUES (?, ?, ?, ?) ON CONFLICT (topic, partisjon)"
        " DO UPDATE SET neste = excluded.neste, siste = excluded.siste",
        [(one.topic, one.partition, last.offset + 1, Sha256.of(last.value)) for one, last in reached.items()],
    )


def _halves(topics: frozenset[str]) -> tuple[frozenset[str], frozenset[str]]:
    ordered = sorted(topics)
    middle = len(ordered) // 2
    return frozenset(ordered[:middle]), frozenset(ordered[middle:])
