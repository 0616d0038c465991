"""The sender's own sealed copy of each melding, kept until somebody has vouched for receiving it.

Rules:

1. A copy is the sealed package and its content key, wrapped under a key of the sender's own (``crypto.key_wrap``). It comes to be
   in the transaction that accepts the melding: there is no ``202`` without a copy.
2. It is destroyed by deleting the wrapped key, and the ciphertext with it, and the same transaction puts the proof in the outbox.
   What is left says that the melding was sent, and why the copy is gone.
3. Who opens a copy reads a citizen's søknad: that too is an act in the revisjon, written before a byte is released.
4. What is opened is verified as a receiver does it. Its signer is judged at the time when it signed.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from broker.log import get_logger
from crypto.envelope import check_forsendelse, open_package
from crypto.spool import Spool
from producers import kopi_rows, metrics
from producers.kopi_rows import Kopi as Kopi  # noqa: PLC0414 - offered here
from producers.kopi_rows import Utvalg as Utvalg  # noqa: PLC0414 - likewise
from producers.queueing import withdraw
from producers.revisjonsbok import write_act
from schemas.errors import CopyGoneError, UnsealError
from schemas.names import Sha256
from schemas.records import KANAL_KAFKA

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from datetime import datetime

    from broker.sql import Connection, Database
    from crypto.asice import PackageFile
    from crypto.content_key import ContentKey
    from crypto.envelope import OpenedPackage
    from crypto.key_wrap import KeyWrapper
    from crypto.trust import Trust
    from producers.dokumentlager import Dokumentlager
    from producers.intake import Accepted
    from producers.kopi_rows import Innhold
    from schemas.names import DokumentlagerId, MeldingId, Uuid
    from schemas.records import SoknadRecord

DESTROYED: Final = "avsenderkopi.destruert"
OPENED: Final = "avsenderkopi.apnet"
UTLOPT: Final = "utlopt"
"""Why a copy was destroyed that nobody ever vouched for."""

PAGE: Final = 500
_GONE: Final = "avsenderkopien er destruert, eller meldingen er ikke herfra"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A copy with what it consists of."""

    kopi: Kopi
    innhold: Innhold


class OpenedKopi:
    """An opened copy. Close it, or use it as a context manager.

    Args:
        package: Verified.
        spool: What it reads from.
    """

    def __init__(self, package: OpenedPackage, spool: Spool) -> None:
        self._package = package
        self._spool = spool

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def files(self) -> tuple[PackageFile, ...]:
        """Every file, in the package's order; see ``OpenedPackage.files``."""
        return self._package.files

    def read(self, name: str) -> Iterator[bytes]:
        """Release a file in pieces; see ``OpenedPackage.read``."""
        return self._package.read(name)

    def read_bytes(self, name: str, limit: int) -> bytes:
        """Release a whole file of at most ``limit`` bytes; see ``OpenedPackage.read_bytes``."""
        return self._package.read_bytes(name, limit)

    def close(self) -> None:
        """Forget plaintext and ciphertext."""
        self._package.close()
        self._spool.close()


class Avsenderkopier:
    """Every copy.

    Args:
        database: Opened with ``producers.database.MIGRATIONS``.
        dokumentlager: Has the large packages.
        wrapper: The sender's keys for its copies.
        trust: Who has signed what we sent: our signing certificates, the former ones too.
        added: Wakes whoever empties the outbox.

    Attributes:
        wake: Call it when something came to the outbox.
        unscrubbed: Set while destroyed keys may lie in the database's files; from the start on, since a process may have ended
            before it had them overwritten.
    """

    def __init__(
        self,
        database: Database,
        dokumentlager: Dokumentlager,
        *,
        wrapper: KeyWrapper,
        trust: Trust,
        added: Callable[[], None] = lambda: None,
    ) -> None:
        self.database = database
        self.dokumentlager = dokumentlager
        self.wrapper = wrapper
        self._trust = trust
        self.wake = added
        self.unscrubbed = asyncio.Event()
        self.unscrubbed.set()

    def keeper(self, accepted: Accepted) -> Callable[[Connection], None]:
        """Return what stores the copy of a submission, for ``Outbox.accept`` to run in its transaction."""
        key = self.wrapper.wrap(accepted.content_key, accepted.soknad.melding_id)
        return lambda connection: kopi_rows.insert(connection, accepted.soknad, accepted.transport, key)

    async def get(self, melding_id: MeldingId) -> Kopi | None:
        """Return what is known of a melding, also when its copy is destroyed; None when it is not from here.

        Raises:
            StoreError: The database cannot be read.
        """
        return await self.database.read(lambda connection: kopi_rows.load(connection, melding_id))

    async def alive(self, utvalg: Utvalg = Utvalg(), *, etter: int = 0, antall: int = PAGE) -> list[Kopi]:  # noqa: B008 - frozen
        """Return copies that are not destroyed, in the order accepted.

        Args:
            utvalg: Which ones.
            etter: Begin behind this place (``Kopi.nr``).
            antall: At most so many.

        Raises:
            StoreError: The database cannot be read.
        """
        return await self.database.read(
            lambda connection: kopi_rows.alive(connection, utvalg, etter=etter, antall=antall)
        )

    async def count(self, utvalg: Utvalg) -> int:
        """Return how many copies there are that are not destroyed."""
        return await self.database.read(lambda connection: kopi_rows.count_alive(connection, utvalg))

    async def load(self, melding_id: MeldingId) -> Loaded:
        """Return a copy with its ciphertext, unless that is in the dokumentlager.

        Raises:
            CopyGoneError: It is destroyed, or there never was one.
            StoreError: The database cannot be read.
        """

        def read(connection: Connection) -> Loaded | None:
            kopi, innhold = kopi_rows.load(connection, melding_id), kopi_rows.content(connection, melding_id)
            return None if kopi is None or innhold is None else Loaded(kopi, innhold)

        found = await self.database.read(read)
        if found is None:
            raise CopyGoneError(_GONE)
        return found

    async def record(self, melding_id: MeldingId) -> SoknadRecord:
        """Return a melding as it is published: with its package, or where that is.

        Raises:
            CopyGoneError: The copy is destroyed, or there never was one.
            StoreError: The database cannot be read.
        """
        found = await self.load(melding_id)
        return found.kopi.record.model_copy(update={"pakke": found.innhold.pakke})

    async def open(self, melding_id: MeldingId, now: datetime) -> OpenedKopi:
        """Open a copy, and write in the revisjon that it was opened. Close what is returned.

        Args:
            melding_id: Which one.
            now: Aware UTC, for the revisjon.

        Raises:
            CopyGoneError: It is destroyed, or there never was one.
            UnsealError: The package was altered where it lies.
            KeyFileError: The key that wraps it is not among ours.
            PackageMissingError: The dokumentlager does not have it.
            StoreError: It cannot be read, or the act cannot be written.
        """
        found = await self.load(melding_id)
        key = self.wrapper.unwrap(found.innhold.key, melding_id)
        opened = await asyncio.to_thread(self._open, found, key)
        try:
            await self._write_opened(found.kopi, now)
        except BaseException:
            opened.close()
            raise
        return opened

    async def _write_opened(self, kopi: Kopi, now: datetime) -> None:
        detaljer = {"meldingId": kopi.melding_id, "sha256": kopi.sha256, "kanal": kopi.kanal}
        await self.database.write(
            lambda connection: write_act(connection, OPENED, kopi.melding_id, detaljer=detaljer, now=now)
        )
        self.wake()

    def _open(self, found: Loaded, key: ContentKey) -> OpenedKopi:
        record = found.kopi.record
        spool = Spool()
        try:
            for piece in self.ciphertext(found):
                spool.write(piece)
            spool.finish()
            package = open_package(spool, keys=key, trust=self._trust, now=record.innsendt)
            try:
                check_forsendelse(package.forsendelse, record.forsendelse())
            except BaseException:
                package.close()
                raise
        except BaseException:
            spool.close()
            raise
        return OpenedKopi(package, spool)

    def ciphertext(self, found: Loaded) -> Iterator[bytes]:
        """Return a copy's package in pieces, and compare it at the end with what was sent.

        Raises:
            UnsealError: It was altered where it lies, or is not whole.
            PackageMissingError: The dokumentlager does not have it.
            StoreError: It cannot be read.
        """
        record = found.kopi.record
        return checked(self._pieces(found), record.sha256)

    def _pieces(self, found: Loaded) -> Iterable[bytes]:
        dokumentlager_id = found.kopi.record.dokumentlager_id
        if dokumentlager_id is not None:
            return self.dokumentlager.read(dokumentlager_id)
        return (found.innhold.pakke or b"",)

    async def destroy(
        self, melding_id: MeldingId, *, now: datetime, kvittering_id: Uuid | None = None, arsak: str | None = None
    ) -> bool:
        """Destroy a copy, with proof in the revisjon; return whether there was one.

        Args:
            melding_id: Which one.
            now: Aware UTC.
            kvittering_id: Who vouches for the melding now.
            arsak: Why else, as a word.

        Raises:
            StoreError: Nothing was destroyed.
        """
        destroyed = await self.database.write(
            lambda connection: destroy_in(connection, melding_id, now=now, kvittering_id=kvittering_id, arsak=arsak)
        )
        if destroyed:
            self.told([melding_id], kvittering_id=kvittering_id, arsak=arsak)
        return destroyed

    def told(
        self, destroyed: Iterable[MeldingId], *, kvittering_id: Uuid | None = None, arsak: str | None = None
    ) -> None:
        """Log and count copies that were destroyed in a transaction that is durable now."""
        for melding_id in destroyed:
            self.unscrubbed.set()
            metrics.COPIES_DESTROYED.labels(aarsak=arsak or "mottatt").inc()
            get_logger().info(
                "sender_copy_destroyed", melding_id=melding_id, kvittering_id=kvittering_id, resultat=arsak or "mottatt"
            )
        self.wake()

    async def move(self, melding_id: MeldingId, kanal: str) -> None:
        """Note that another channel has the melding now.

        Raises:
            StoreError: It is not noted.
        """
        await self.database.write(lambda connection: set_kanal(connection, melding_id, kanal))

    async def removable_packages(self, before: datetime, antall: int = PAGE) -> list[DokumentlagerId]:
        """Return packages in the dokumentlager whose copies were destroyed before a moment.

        Until the søknad topic has forgotten a melding, its connector may fetch the package once more: so the moment is as long
        ago as that topic keeps. Call ``forget_package`` when one is deleted.

        Raises:
            StoreError: The database cannot be read.
        """
        return await self.database.read(lambda connection: kopi_rows.removable(connection, before, antall))

    async def forget_package(self, dokumentlager_id: DokumentlagerId) -> None:
        """Note that a package is no longer in the dokumentlager.

        Raises:
            StoreError: It is not noted.
        """
        await self.database.write(lambda connection: kopi_rows.forget_package(connection, dokumentlager_id))

    async def expire(self, before: datetime, now: datetime) -> int:
        """Destroy copies of meldinger that were accepted before a moment and never vouched for; return how many.

        Each is told in the log as critical: a citizen's søknad has reached nobody that we know of.

        Raises:
            StoreError: Some may be left.
        """
        count = etter = 0
        # By place: a row that has lost its content has nothing to destroy, and stays.
        while page := await self.alive(Utvalg(til=before), etter=etter):
            etter = page[-1].nr
            for kopi in page:
                if await self.destroy(kopi.melding_id, now=now, arsak=UTLOPT):
                    get_logger().critical(
                        "sender_copy_expired",
                        melding_id=kopi.melding_id,
                        digisos_id=kopi.digisos_id,
                        kommunenummer=kopi.kommunenummer,
                        kanal=kopi.kanal,
                    )
                    count += 1
        return count


def checked(pieces: Iterable[bytes], sha256: Sha256) -> Iterator[bytes]:
    """Pass a package on, and compare its digest at the end.

    Raises:
        UnsealError: It is another.
    """
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
        yield piece
    if digest.hexdigest() != sha256:
        raise UnsealError


def destroy_in(
    connection: Connection,
    melding_id: MeldingId,
    *,
    now: datetime,
    kvittering_id: Uuid | None = None,
    arsak: str | None = None,
) -> bool:
    """Destroy a copy within a transaction of the caller's; see ``Avsenderkopier.destroy``."""
    kopi, innhold = kopi_rows.load(connection, melding_id), kopi_rows.content(connection, melding_id)
    if kopi is None or innhold is None:
        return False
    kopi_rows.destroy(connection, melding_id, now=now, kvittering_id=kvittering_id, arsak=arsak)
    facts = {
        "meldingId": melding_id,
        "kommunenummer": kopi.kommunenummer,
        "sha256": kopi.sha256,
        "nokkelDigest": Sha256.of(innhold.key.data),
        "kekId": innhold.key.kek_id,
        "kvitteringId": kvittering_id,
        "arsak": arsak,
    }
    detaljer = {name: str(value) for name, value in facts.items() if value is not None}
    write_act(connection, DESTROYED, melding_id, detaljer=detaljer, now=now)
    return True


def set_kanal(connection: Connection, melding_id: MeldingId, kanal: str) -> None:
    """Note, in a transaction of the caller's, that another channel has the melding now; what still waits for Kafka goes."""
    connection.execute("UPDATE avsenderkopi SET kanal = ? WHERE melding_id = ?", (kanal, melding_id))
    if kanal != KANAL_KAFKA:
        withdraw(connection, melding_id)
