"""Whether our database is as new as ``fiks.transport.v1``, and reading back what it lacks.

A database that was restored from a backup has forgotten references that were taken since: the same navEksternRefId would become a
second søknad. What was accepted says so itself, in AKSEPTERT on ``fiks.transport.v1``.

Rules:

1. For each partition the database knows up to which offset every AKSEPTERT is one of its own. An old backup has old offsets, so
   that reading on from there finds what it lacks; an up-to-date one has next to nothing to read.
2. Until all that lies on the topic has been looked at, nothing is taken in and nothing relayed. If one AKSEPTERT is unknown, that
   stays so until a person has had the missing references read back.
3. While the process runs, it reads on, so that the offsets are never old for long.
4. What comes back: reference, ids, owner, kommune, digest, and the package in the dokumentlager that has that digest. What does
   not: søknader that were accepted and had not reached Kafka, and the sender's copies.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Final

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from broker.catch_up import read_until_caught_up
from broker.log import get_logger
from broker.record import TopicPartition
from broker.routing import TRANSPORT
from producers import metrics
from producers.outbox_rows import to_ms
from schemas.codec import decode
from schemas.errors import BrokerUnavailableError, ConfigurationError, ContractError, StoreError
from schemas.records import TRANSPORT_AKSEPTERT, TransportRecord

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence

    from broker.ports import OpenTail, Tail
    from broker.record import Incoming
    from broker.sql import Connection, Database
    from producers.packages import Packages
    from schemas.names import DokumentlagerId, Sha256

MIGRATION: Final = """
    CREATE TABLE transport_lest (
        partisjon INTEGER PRIMARY KEY,
        neste     INTEGER NOT NULL
    ) STRICT;
"""

KEEP_EVERY_S: Final = 5.0
FIRST_WAIT_S: Final = 0.5
LONGEST_WAIT_S: Final = 10.0
COMMAND: Final = "formidler utboks gjenopprett"
ACCEPT_COMMAND: Final = "formidler utboks godta-emne"
AGAIN_S: Final = 30.0
_TOGETHER: Final = 500


class State(Enum):
    """How the database stands to the topic; the value is what ``/isready`` says, and what a sender is told."""

    CHECKING = "registeret over mottatte søknader er ikke sammenlignet med Kafka ennå"
    LEVEL = ""
    BEHIND = f"databasen er eldre enn det som er mottatt; driften må kjøre `{COMMAND}`"
    OTHER_TOPIC = f"{TRANSPORT} er et annet enn databasen kjenner; se docs/drift.md, så `{ACCEPT_COMMAND} {TRANSPORT}`"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far reading back has come.

    Attributes:
        read: AKSEPTERT that were looked at.
        restored: References that were missing and are back.
        conflicts: References that the database has for another søknad: what it has stays.
        packages: Packages in the dokumentlager that are known again.
        done: Whether that was all.
    """

    read: int = 0
    restored: int = 0
    conflicts: int = 0
    packages: int = 0
    done: bool = False


class Register:
    """Compares the database with the topic, and reads back.

    Args:
        database: Opened with ``MIGRATION`` among its migrations.
        open_tail: Opens the topic.
        opened: Called when nothing stands in the way any more.
    """

    def __init__(self, database: Database, open_tail: OpenTail, opened: Callable[[], None]) -> None:
        self._database = database
        self._open_tail = open_tail
        self._opened = opened
        self._state = State.CHECKING
        self._again = asyncio.Event()
        self._restoring = asyncio.Lock()

    def problem(self) -> str | None:
        """Return why nothing may be taken in or relayed; None when it may."""
        return self._state.value or None

    def level(self) -> bool:
        """Return whether the database knows all that is on the topic."""
        return self._state is State.LEVEL

    async def run(self) -> None:
        """Compare, then read on, through outages, until cancelled."""
        outage = AsyncRetrying(
            retry=retry_if_exception_type((BrokerUnavailableError, StoreError)),
            wait=wait_random_exponential(multiplier=FIRST_WAIT_S, max=LONGEST_WAIT_S),
            before_sleep=_tell_outage,
        )
        while True:
            self._again.clear()
            try:
                await outage(self._follow)
            except ConfigurationError as error:  # the topic ends before our offsets do
                self._become(State.OTHER_TOPIC)
                get_logger().critical("transport_topic_unknown", topic=TRANSPORT, exc_info=error)
            with suppress(TimeoutError):  # another instance, or a person, may have put right what was wrong
                async with asyncio.timeout(AGAIN_S):
                    await self._again.wait()

    async def forget(self, also: Callable[[Connection], None] = lambda _: None) -> None:
        """Forget how far we have read: the topic is another, and a person has said that it is the right one.

        Args:
            also: Written in the same transaction.

        Raises:
            StoreError: It cannot be forgotten.
        """

        def write(connection: Connection) -> None:
            connection.execute("DELETE FROM transport_lest")
            also(connection)

        await self._database.write(write)
        self._again.set()

    async def restore(self, packages: Packages, known: Collection[DokumentlagerId]) -> AsyncIterator[Progress]:
        """Read back what the database lacks, and tell how far it has come. What is there already stays as it is.

        Args:
            packages: Has the packages, and computes their digests.
            known: Those that something refers to already.

        Raises:
            TransportError: Kafka does not answer. Call again: what is back stays.
            StoreError: The database cannot be written. Call again.
        """
        async with self._restoring:
            progress = Progress()
            offsets = await self._database.read(_offsets)
            reports: asyncio.Queue[Progress | None] = asyncio.Queue()
            reading = asyncio.create_task(self._read_back(offsets, reports))
            try:
                while (report := await reports.get()) is not None:
                    yield (progress := report)
            finally:
                if not reading.done():
                    reading.cancel()
            await reading
            found = await self._find_packages(packages, known)
            await self._database.write(lambda connection: _keep(connection, offsets))
            self._again.set()
            yield replace(progress, packages=found, done=True)
            get_logger().warning("register_restored", antall=progress.restored, avvik=progress.conflicts)

    async def _read_back(self, offsets: dict[int, int], reports: asyncio.Queue[Progress | None]) -> None:
        progress = Progress()

        async def take(batch: Sequence[Incoming]) -> None:
            nonlocal progress
            accepted = _accepted(batch)
            restored, conflicts = await self._database.write(lambda connection: _restore(connection, accepted))
            offsets.update({record.partition: record.offset + 1 for record in batch})
            progress = replace(
                progress,
                read=progress.read + len(accepted),
                restored=progress.restored + restored,
                conflicts=progress.conflicts + conflicts,
            )
            reports.put_nowait(progress)

        try:
            async with self._open_tail([TRANSPORT], _positions(offsets)) as tail:
                await read_until_caught_up(tail, take)
        finally:
            reports.put_nowait(None)

    async def _find_packages(self, packages: Packages, known: Collection[DokumentlagerId]) -> int:
        """Give restored rows the packages that have their digests; return how many."""
        unknown = await packages.unknown(known)
        found = 0
        digests = sorted(unknown)
        for start in range(0, len(digests), _TOGETHER):
            some = {sha256: unknown[sha256] for sha256 in digests[start : start + _TOGETHER]}
            found += await self._database.write(partial(_give_packages, packages=some))
        metrics.PACKAGES_UNKNOWN.set(len(unknown) - found)
        return found

    async def _follow(self) -> None:
        """Read on from where the database knows everything; return when something is missing."""
        offsets = await self._database.read(_offsets)
        async with self._open_tail([TRANSPORT], _positions(offsets)) as tail:
            caught_up = asyncio.create_task(self._when_caught_up(tail))
            keeping = asyncio.create_task(self._keep_offsets(offsets))
            try:
                async for batch in tail:
                    missing = await self._database.read(partial(_missing, batch=batch))
                    if missing:
                        self._become(State.BEHIND)
                        get_logger().critical("register_behind", antall=missing, topic=TRANSPORT)
                        return
                    offsets.update({record.partition: record.offset + 1 for record in batch})
            finally:
                for task in (caught_up, keeping):
                    task.cancel()
                await asyncio.gather(caught_up, keeping, return_exceptions=True)
        raise BrokerUnavailableError("leseren av transport-emnet sluttet; den begynner på nytt")

    async def _when_caught_up(self, tail: Tail) -> None:
        await tail.caught_up.wait()
        if self._state is not State.LEVEL:
            get_logger().info("register_level")
        self._become(State.LEVEL)
        self._opened()

    async def _keep_offsets(self, offsets: dict[int, int]) -> None:
        """Write down every now and then how far we have come: what is written is never ahead of what was looked at."""
        kept: dict[int, int] = {}
        while True:
            await asyncio.sleep(KEEP_EVERY_S)
            if offsets != kept:
                kept = dict(offsets)
                try:
                    await self._database.write(partial(_keep, offsets=kept))
                except StoreError as error:
                    kept = {}
                    get_logger().warning("register_offsets_not_kept", exc_info=error)

    def _become(self, state: State) -> None:
        self._state = state


def _accepted(batch: Sequence[Incoming]) -> list[TransportRecord]:
    """Return the AKSEPTERT of a batch; what cannot be read is nobody's reference."""
    found: list[TransportRecord] = []
    for one in batch:
        try:
            record = decode(TransportRecord, one.value)
        except ContractError:
            continue
        if record.type == TRANSPORT_AKSEPTERT and record.eier is not None and record.sha256 is not None:
            found.append(record)
    return found


def _missing(connection: Connection, batch: Sequence[Incoming]) -> int:
    """Return how many søknader of a batch the database has never heard of."""
    wanted = {record.melding_id for record in _accepted(batch)}
    return len(wanted - _known(connection, sorted(wanted)))


def _known(connection: Connection, melding_ids: Sequence[str]) -> set[str]:
    if not melding_ids:
        return set()
    sql = f"SELECT melding_id FROM innsending WHERE melding_id IN ({', '.join('?' * len(melding_ids))})"  # noqa: S608 - places
    return {str(row[0]) for row in connection.execute(sql, melding_ids)}


def _restore(connection: Connection, records: Sequence[TransportRecord]) -> tuple[int, int]:
    """Put references back; return how many were missing, and how many are another søknad's here."""
    known = _known(connection, [record.melding_id for record in records])
    restored = conflicts = 0
    for record in records:
        if record.melding_id in known:
            continue
        row = connection.execute(
            "INSERT INTO innsending (nav_ekstern_ref_id, digisos_id, melding_id, kommunenummer, eier, sha256,"
            " dokumentlager_id, innsendt_ms) VALUES (?, ?, ?, ?, ?, ?, NULL, ?) ON CONFLICT DO NOTHING",
            (
                record.nav_ekstern_ref_id,
                record.digisos_id,
                record.melding_id,
                record.kommunenummer,
                record.eier,
                record.sha256,
                to_ms(record.tidspunkt),
            ),
        )
        known.add(record.melding_id)
        restored += row.rowcount
        conflicts += 1 - row.rowcount
    return restored, conflicts


def _give_packages(connection: Connection, packages: Mapping[Sha256, DokumentlagerId]) -> int:
    """Give rows without a package the one with their digest; return how many got one."""
    sql = (
        "SELECT nav_ekstern_ref_id, sha256 FROM innsending"  # noqa: S608 - places for values
        f" WHERE dokumentlager_id IS NULL AND sha256 IN ({', '.join('?' * len(packages))})"
    )
    rows = connection.execute(sql, sorted(packages)).fetchall()
    connection.executemany(
        "UPDATE innsending SET dokumentlager_id = ? WHERE nav_ekstern_ref_id = ?",
        [(packages[row[1]], row[0]) for row in rows],
    )
    return len(rows)


def _offsets(connection: Connection) -> dict[int, int]:
    rows = connection.execute("SELECT partisjon, neste FROM transport_lest").fetchall()
    return {int(row[0]): int(row[1]) for row in rows}


def _keep(connection: Connection, offsets: Mapping[int, int]) -> None:
    connection.executemany(
        "INSERT INTO transport_lest (partisjon, neste) VALUES (?, ?)"
        " ON CONFLICT (partisjon) DO UPDATE SET neste = excluded.neste",
        sorted(offsets.items()),
    )


def _positions(offsets: Mapping[int, int]) -> dict[TopicPartition, int]:
    return {TopicPartition(TRANSPORT, partition): offset for partition, offset in offsets.items()}


def _tell_outage(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    get_logger().warning(
        "register_unavailable", forsok=state.attempt_number, vent_s=state.upcoming_sleep, exc_info=error
    )
