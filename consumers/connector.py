"""The contract between us and a fagsystem: what a vendor implements, and nothing more.

A connector is one class and one ``ConnectorSpec``. It gets verified files and clear ids, hands them to the fagsystem, and later
tells what the fagsystem said. It never sees Kafka, keys, signatures, retries or kvitteringer: the runner has those.

To write one:

1. A pydantic model of its settings.
2. A class with ``start``, ``deliver``, ``events`` and ``close``, as ``FagsystemConnector`` below describes them.
3. ``SPEC = ConnectorSpec(name, description, settings, create)`` in a module of yours, registered in your own package's metadata
   under the entry-point group ``meldingsformidler.connectors``.
4. Our tests over it: what ``tests/contract/test_connector.py`` demands is this contract, as code. It is not part of the installed
   package. Clone the repository, install your package beside it, add a rig to the fixture ``rig`` (how to look into your
   fagsystem and steer it), and run that file.

One connector object serves one kommune, in one event loop. The smallest one there is: ``consumers.connectors.memory``.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeAlias, TypeVar

from pydantic import BaseModel

if TYPE_CHECKING:
    from datetime import datetime

    from broker.clock import Clock
    from schemas.errors import MeldingsformidlerError
    from schemas.names import (
        DigisosId,
        Enhetsnummer,
        Kommunenummer,
        MeldingId,
        NavEksternRefId,
        Organisasjonsnummer,
        Sha256,
    )

GROUP: Final = "meldingsformidler.connectors"
"""Entry-point group under which a vendor's package registers its ``ConnectorSpec``."""

UKJENT_KODE: Final = "fagsystem.ukjent-kode"
"""What stands in a kvittering when a fagsystem's reason is not a code."""

_KODE = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,79}", re.ASCII)
_LONG_NUMBER = re.compile(r"[0-9]{6}", re.ASCII)


def reason_code(text: str) -> str:
    """Return ``text`` if it is a reason code, else ``UKJENT_KODE``: free text could name a person.

    A code is a letter and at most 79 more of letters, digits, ``.``, ``_`` and ``-``, with no more than five digits in a row.
    """
    return text if _KODE.fullmatch(text) and not _LONG_NUMBER.search(text) else UKJENT_KODE


@dataclass(frozen=True, slots=True)
class Fil:
    """A verified file of a leveranse.

    Attributes:
        name: Safe to use as a file name: no path, no control characters, unique in its leveranse also when case is ignored.
        mimetype: As the sender states it.
        size: Bytes.
        sha256: Of the content, lower-case hex.
    """

    name: str
    mimetype: str
    size: int
    sha256: Sha256


ReadFile: TypeAlias = Callable[[str], AsyncIterator[bytes]]


@dataclass(frozen=True, slots=True)
class Leveranse:
    """One søknad or ettersendelse to hand over. Valid until ``deliver`` returns; its files are read from memory-bound streams.

    Attributes:
        melding_id: The idempotency key: the same one again is the same message, for ever.
        digisos_id: The søknad; an ettersendelse has the same one as the søknad that it belongs to.
        kommunenummer: The receiving kommune, four digits.
        nav_ekstern_ref_id: The sender's own reference.
        enhetsnummer: The receiving NAV office (in Oslo and Bergen: the bydel's), or None.
        hastegrad: ``VANLIG`` or ``NODHJELP``. Nødhjelp should stand out for the caseworker.
        type: ``SOKNAD``, ``ETTERSENDELSE`` or ``KLAGE``; an open list. Hand over what you do not know as it is.
        innsendt: When the sender accepted it, aware UTC.
        avsender: Who signed the files.
        files: In the sender's order; ``soknad.json`` and ``vedlegg.json`` among them where there are any.
    """

    melding_id: MeldingId
    digisos_id: DigisosId
    kommunenummer: Kommunenummer
    nav_ekstern_ref_id: NavEksternRefId
    enhetsnummer: Enhetsnummer | None
    hastegrad: str
    type: str
    innsendt: datetime
    avsender: Organisasjonsnummer
    files: tuple[Fil, ...]
    _read: ReadFile = field(repr=False, compare=False)

    def read(self, name: str) -> AsyncIterator[bytes]:
        """Return a file's content in pieces. Everything was verified before; let its errors through if it raises all the same.

        Raises:
            KeyError: There is no such file.
        """
        if all(file.name != name for file in self.files):
            raise KeyError(name)
        return self._read(name)


@dataclass(frozen=True, slots=True)
class Mottatt:
    """The fagsystem has *stored* the søknad: it survives a power cut there. The citizen sees MOTTATT."""


@dataclass(frozen=True, slots=True)
class Levert:
    """The hand-over is durable, and the answer comes later through ``events``. The citizen sees nothing new yet."""


@dataclass(frozen=True, slots=True)
class Avvist:
    """The fagsystem says no, and will say no to the same søknad again.

    Attributes:
        kode: Why, as a code of the vendor's own (``reason_code``). Never free text: it goes into a signed kvittering.
    """

    kode: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "kode", reason_code(self.kode))


Svar: TypeAlias = Mottatt | Levert | Avvist

Settle: TypeAlias = Callable[["MeldingsformidlerError | None"], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class ConnectorEvent:
    """Something that the fagsystem tells on its own.

    The runner calls exactly one of ``ack`` and ``refuse``, once, or none of them if the process ends first: then the event comes
    again after a restart.
    """

    settle: Settle = field(repr=False, compare=False)

    async def ack(self) -> None:
        """It is durable on its topic; never send it again."""
        await self.settle(None)

    async def refuse(self, error: MeldingsformidlerError) -> None:
        """It can never be accepted; never send it again, and tell the fagsystem's side if you can (``error.code``)."""
        await self.settle(error)


@dataclass(frozen=True, slots=True)
class SvarMottatt(ConnectorEvent):
    """The later answer to a ``Levert``: the fagsystem has stored it."""

    melding_id: MeldingId


@dataclass(frozen=True, slots=True)
class SvarAvvist(ConnectorEvent):
    """The later answer to a ``Levert``: the fagsystem says no. ``kode`` as for ``Avvist``."""

    melding_id: MeldingId
    kode: str


@dataclass(frozen=True, slots=True)
class Vedlagt:
    """A letter that a case update refers to; PDF.

    Attributes:
        name: File name, without a path.
        content: At most 256 KiB for all files of one update together: an update must fit in one record.
    """

    name: str
    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Oppdatering(ConnectorEvent):
    """The case has changed.

    Attributes:
        digisos_id: Whose case.
        digisos_soker: ``digisos-soker.json``, UTF-8: the whole history, which replaces the former one.
        files: What it refers to.
    """

    digisos_id: DigisosId
    digisos_soker: bytes = field(repr=False)
    files: tuple[Vedlagt, ...] = ()


class FagsystemConnector(Protocol):
    """What a vendor implements.

    Life: ``start`` once; then any number of ``deliver`` at the same time (never two of one ``digisos_id``) beside one iteration
    of ``events``; then ``close`` once, after every ``deliver`` has ended. Another process may serve the same kommune. When a
    partition moves there in the middle of a slow ``deliver``, it asks for the same ``melding_id`` too, perhaps before the first
    call has ended: pass ``melding_id`` on to the fagsystem as its idempotency key, and let that decide.

    Errors: ``deliver`` raises ``FagsystemUnavailableError`` or ``FagsystemFailureError`` of ``schemas.errors`` and nothing else
    on purpose. Whatever else comes out counts as ``FagsystemFailureError``, without its text: it might quote a søknad. No text of
    yours may name a person either.
    """

    async def start(self) -> None:
        """Make ready. Called once, before everything else.

        A fagsystem that is down is no reason to fail here: ``deliver`` will tell.

        Raises:
            ConfigurationError: A setting can never work; say which, and what to do. The process ends.
        """
        ...

    async def deliver(self, leveranse: Leveranse) -> Svar:
        """Hand one søknad over and say what came of it.

        *Durable*: when this returns, the hand-over survives a crash of ours and of the receiver's. *Idempotent*: the same
        ``melding_id`` may come again at any time, after a crash, a rebalance or a redrive, and must give one søknad in the
        fagsystem and the same answer. *Whole or not at all*: nobody on the other side sees a part of it.

        Returns:
            ``Mottatt``, ``Levert`` or ``Avvist``.

        Raises:
            FagsystemUnavailableError: The fagsystem cannot be reached, or asks for time. The kommune's deliveries pause, nothing
                is counted against the søknad, and this one is tried again.
            FagsystemFailureError: The fagsystem answers, but fails on this søknad. Tried again some times, then dead-lettered.
        """
        ...

    def events(self) -> AsyncIterator[ConnectorEvent]:
        """Iterate over later answers and case updates, for as long as the connector lives.

        Called once, and again after an exception came out of it. What was not acknowledged comes again: in the same iteration or
        after a restart, as you like. Events of one søknad come in order; the runner may hold several unacknowledged at a time.

        Raises:
            FagsystemUnavailableError: Nothing can be read now; the runner iterates again after a while.
        """
        ...

    async def close(self) -> None:
        """Let go of everything. Nothing is called afterwards."""
        ...


class ConnectorState(Protocol):
    """A few durable texts of a connector's own, for example a cursor. Kept in the runner's local store, for this kommune alone.

    The store may be lost with its disk: then the texts are gone, and the connector starts as if for the first time.
    """

    async def get(self, name: str) -> str | None:
        """Return what was put under ``name``, or None."""
        ...

    async def put(self, name: str, value: str) -> None:
        """Keep ``value``; durable when it returns.

        Raises:
            StoreError: The disk is full, for example.
        """
        ...


@dataclass(frozen=True, slots=True)
class ConnectorContext:
    """What the runner gives a connector besides its settings.

    Attributes:
        kommunenummer: Whom it serves.
        clock: What the time is, aware UTC. Use it instead of ``datetime.now``.
        state: See ``ConnectorState``.
    """

    kommunenummer: Kommunenummer
    clock: Clock
    state: ConnectorState


S = TypeVar("S", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class ConnectorSpec(Generic[S]):
    """A kind of connector: one description feeds the settings' validation, ``formidler connector list`` and the runner.

    Attributes:
        name: What stands as ``type`` in a settings file; the entry point has the same name.
        description: One sentence for people who choose.
        settings: Model of ``innstillinger``; each field has a description.
        create: Makes a connector; must not do IO, that is what ``start`` is for.
    """

    name: str
    description: str
    settings: type[S]
    create: Callable[[S, ConnectorContext], FagsystemConnector]


AnySpec: TypeAlias = ConnectorSpec[Any]
