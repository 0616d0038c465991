"""A record on its way through the connector: read as far as it can be read, with what is known about it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from broker.log import get_logger
from broker.record import FORBI_HEADER, GJENKJORINGER_HEADER, TRACEPARENT, header, next_traceparent, soknad_of
from broker.runtime import place_of
from consumers.opening import check_record
from schemas.codec import decode
from schemas.errors import ContractError, MeldingsformidlerError, PartitionLostError, UnexpectedRecordError
from schemas.names import Sha256
from schemas.records import TILBAKEKALL, SoknadRecord

if TYPE_CHECKING:
    from broker.record import Incoming
    from consumers.issued import Issued
    from schemas.names import DigisosId, Kommunenummer, MeldingId

MAX_KEY_CHARS: Final = 200
MAX_REDRIVES: Final = 1000
"""A header that says more was not written by an operator's tool."""

_REDRIVES = re.compile(rb"[0-9]{1,4}")


@dataclass
class Job:
    """A record on its way, with what is known about it.

    Attributes:
        incoming: As it was read.
        record: Decoded, if it could be.
        error: Why it cannot be delivered at all, if so.
        redrives: How many times an operator has sent it again.
        past: The operator has closed for good what died before it in its søknad.
        traceparent: Of our part of the work.
        again: Kvitteringer to repeat, oldest first.
        resultat: What came of the latest command, for the log.
        is_ours: Tells whether its partition is (still) this process': what has lost it must leave no trace.
    """

    incoming: Incoming
    record: SoknadRecord | None
    error: MeldingsformidlerError | None
    redrives: int
    traceparent: str
    past: bool = False
    again: tuple[Issued, ...] = ()
    resultat: str = field(default="")
    is_ours: Callable[[], bool] = field(default=lambda: True, repr=False)

    @classmethod
    def of(cls, incoming: Incoming, kommunenummer: Kommunenummer) -> Job:
        """Read a record as far as it can be read; never raises for what is in it."""
        record, error = None, None
        try:
            record = decode(SoknadRecord, incoming.value)
            check_record(record, incoming.key, kommunenummer)
        except ContractError as found:
            error = found
        except Exception as found:  # noqa: BLE001 - a record must never stop the others (rule 7)
            error = unexpected(found, incoming)
        redrives = _redrives(header(incoming.headers, GJENKJORINGER_HEADER))
        return cls(
            incoming,
            record,
            error,
            redrives,
            next_traceparent(header(incoming.headers, TRACEPARENT)),
            past=header(incoming.headers, FORBI_HEADER) is not None,
        )

    def check_ours(self) -> None:
        """Go no further when the partition has gone to another process, which reads the record again.

        Raises:
            PartitionLostError: It has.
        """
        if not self.is_ours():
            raise PartitionLostError("partisjonen gikk til en annen mens meldingen var under arbeid")

    @property
    def key(self) -> str:
        """The record's key as text."""
        return self.incoming.key.decode("utf-8", "backslashreplace")[:MAX_KEY_CHARS]

    @property
    def digisos_id(self) -> DigisosId | None:
        """The søknad to answer for: the key's, since that is what keeps the order; else the record's; else nobody knows."""
        return soknad_of(self.incoming.key) or (self.record.digisos_id if self.record else None)

    @property
    def held_bytes(self) -> int:
        """How much memory it holds: the value as it was read, and the package that was decoded from it."""
        package = self.record.pakke if self.record else None
        return len(self.incoming.value) + len(package or b"")

    @property
    def withdraws(self) -> bool:
        """Whether it carries nothing, and withdraws its melding."""
        return self.record is not None and self.record.type == TILBAKEKALL

    @property
    def melding_id(self) -> MeldingId | None:
        """The melding to answer for, if it is known."""
        return self.record.melding_id if self.record else None

    @property
    def sha256(self) -> Sha256:
        """What was received: the package's digest as the record states it, or the value's when it cannot be read."""
        return self.record.sha256 if self.record else Sha256.of(self.incoming.value)


def unexpected(error: Exception, incoming: Incoming) -> UnexpectedRecordError:
    """Tell loudly what a record made fail, by class and place alone, and return what it becomes (rule 7)."""
    get_logger().critical(
        "record_failed_unexpectedly",
        topic=incoming.topic,
        partition=incoming.partition,
        offset=incoming.offset,
        feiltype=type(error).__name__,
        sted=place_of(error),
    )
    return UnexpectedRecordError(f"uventet feil under behandling av meldingen ({type(error).__name__})")


def _redrives(text: bytes | None) -> int:
    if text is None or not _REDRIVES.fullmatch(text):
        return 0
    count = int(text)
    return count if count <= MAX_REDRIVES else 0
