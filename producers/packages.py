"""Whether a package is still the bytes that were stored: seen to before a receiver is told of it, and before it is served.

Rules:

1. A package is what it was when its size and its SHA-256 are. A crash of a file system can leave a file with its name and half of
   its bytes; a connector that read those would take them for a forgery.
2. A large package is read once for each state of its file. What was whole and has not changed since is not read again.
3. Nothing is guessed and nothing mended: who asks is told which of the two it is, and holds the package.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from schemas.codec import decode
from schemas.errors import ContractError, PackageDamagedError
from schemas.names import Sha256
from schemas.records import SOKNAD, SoknadRecord

if TYPE_CHECKING:
    from collections.abc import Collection

    from producers.dokumentlager import Dokumentlager
    from producers.outbox import Message
    from schemas.names import DokumentlagerId

REMEMBERED: Final = 10_000
"""So many whole packages are remembered, with the state that their files had."""
LIGHT_BYTES: Final = 64 * 1024
"""So much is digested on the event loop; more goes to a thread."""


class Packages:
    """Checks packages.

    Args:
        dokumentlager: Has the large ones.
    """

    def __init__(self, dokumentlager: Dokumentlager) -> None:
        self._dokumentlager = dokumentlager
        self._whole: OrderedDict[DokumentlagerId, tuple[str, Sha256]] = OrderedDict()

    async def check(self, message: Message) -> None:
        """See that a søknad's package is whole; see ``producers.relay_ports.PackageCheck``."""
        if message.type != SOKNAD:
            return
        try:
            record = decode(SoknadRecord, message.outgoing.value or b"")
        except ContractError as error:
            raise PackageDamagedError("søknaden i utboksen kan ikke leses") from error
        if record.dokumentlager_id is not None:
            await self.check_stored(record.dokumentlager_id, record.sha256, record.storrelse)
        elif record.pakke is not None:
            await self._check_inline(record.pakke, record.sha256, record.storrelse)

    async def check_stored(self, dokumentlager_id: DokumentlagerId, sha256: Sha256, size: int | None = None) -> None:
        """See that a package in the dokumentlager is whole.

        Args:
            dokumentlager_id: Which.
            sha256: Of all its bytes.
            size: How many they are, if that is known.

        Raises:
            PackageMissingError: There is no such package.
            PackageDamagedError: Its bytes are not the ones that were stored.
            StoreError: It cannot be read.
        """
        state = self._dokumentlager.state(dokumentlager_id)
        if self._whole.get(dokumentlager_id) == (state, sha256):
            self._whole.move_to_end(dokumentlager_id)
            return
        if size is not None and self._dokumentlager.size(dokumentlager_id) != size:
            raise PackageDamagedError("pakken i dokumentlageret har en annen størrelse enn den som ble lagret")
        if await asyncio.to_thread(self.digest, dokumentlager_id) != sha256:
            raise PackageDamagedError("pakken i dokumentlageret har et annet innhold enn det som ble lagret")
        self._whole[dokumentlager_id] = (state, sha256)
        if len(self._whole) > REMEMBERED:
            self._whole.popitem(last=False)

    async def _check_inline(self, package: bytes, sha256: Sha256, size: int) -> None:
        digest = (
            hashlib.sha256(package) if len(package) <= LIGHT_BYTES else await asyncio.to_thread(hashlib.sha256, package)
        )
        if len(package) != size or digest.hexdigest() != sha256:
            raise PackageDamagedError("pakken i utboksen har et annet innhold enn det som ble lagret")

    async def unknown(self, known: Collection[DokumentlagerId]) -> dict[Sha256, DokumentlagerId]:
        """Return, by digest, the packages that are there and not among ``known``.

        Raises:
            StoreError: One cannot be read.
        """
        found: dict[Sha256, DokumentlagerId] = {}
        for dokumentlager_id in await asyncio.to_thread(self._dokumentlager.ids):
            if dokumentlager_id not in known:
                found[await asyncio.to_thread(self.digest, dokumentlager_id)] = dokumentlager_id
        return found

    def digest(self, dokumentlager_id: DokumentlagerId) -> Sha256:
        """Return a package's digest; blocks while it is read.

        Raises:
            PackageMissingError: There is no such package.
            StoreError: It cannot be read.
        """
        digest = hashlib.sha256()
        for piece in self._dokumentlager.read(dokumentlager_id):
            digest.update(piece)
        return Sha256(digest.hexdigest())
