"""One dead letter as it is kept in memory: all that decides, and none of what is large.

The package itself stays on the topic; ``position`` says where, for whoever sends the letter again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from broker.record import DEAD_LETTER_HEADER, FORBI_HEADER, GJENKJORINGER_HEADER, Outgoing, TopicPartition
from broker.routing import soknad_topic
from schemas.codec import decode, schema_of
from schemas.errors import ContractError, InvalidNameError
from schemas.names import DigisosId, Kommunenummer, MeldingId, Uuid
from schemas.records import DeadLetterRecord, SoknadRecord

if TYPE_CHECKING:
    from datetime import datetime

    from broker.record import Incoming
    from schemas.records import Forsok, Opprinnelig

_OURS: Final = frozenset({DEAD_LETTER_HEADER, FORBI_HEADER, GJENKJORINGER_HEADER})
NODHJELP: Final = "NODHJELP"


@dataclass(frozen=True, slots=True)
class Position:
    """Where a dead letter lies."""

    topic: str
    partition: int
    offset: int

    @property
    def topic_partition(self) -> TopicPartition:
        """The partition."""
        return TopicPartition(self.topic, self.partition)


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter without its package.

    Attributes:
        id: Its id.
        position: Where it lies.
        at_ms: When Kafka took it, milliseconds since 1970.
        key: The original's key, which keeps the order.
        digisos_id: The søknad, if it is known.
        melding_id: The melding, if it could be read.
        kommunenummer: Whose it is.
        kode: Why it died.
        trinn: At which step.
        tidspunkt: When, by the connector's clock.
        forsok: Every attempt of this round.
        gjenkjoringer: How many times it had been sent again before it died.
        sent_again_from: The dead letter that the record was sent again from, if it was.
        type: SOKNAD, ETTERSENDELSE or another; None when it could not be read.
        hastegrad: VANLIG or NODHJELP.
        skjema: Subject and version of the original, for example ``soknad:2``; None when nobody knows.
        avsenderversjon: Version of the sender's software, if the record says so.
        innsendt: When the citizen sent it, if the record says so.
        gyldig_til: After this no connector begins a hand-over.
        storrelse: Bytes of the original's value; 0 when it was stripped.
        fremmed: The letter says that it comes from another topic than the kommune's own.
    """

    id: Uuid
    position: Position
    at_ms: int
    key: bytes
    digisos_id: DigisosId | None
    melding_id: MeldingId | None
    kommunenummer: Kommunenummer
    kode: str
    trinn: str
    tidspunkt: datetime
    forsok: tuple[Forsok, ...]
    gjenkjoringer: int
    sent_again_from: Uuid | None
    type: str | None
    hastegrad: str
    skjema: str | None
    avsenderversjon: str | None
    innsendt: datetime | None
    gyldig_til: datetime | None
    storrelse: int
    fremmed: bool = False

    @property
    def is_stripped(self) -> bool:
        """Whether the original did not fit, so that there is nothing to send again."""
        return self.storrelse == 0

    @property
    def is_urgent(self) -> bool:
        """Whether it is nødhjelp."""
        return self.hastegrad == NODHJELP


def read_letter(incoming: Incoming, kommunenummer: Kommunenummer) -> Letter:
    """Return the letter in a record of a kommune's dead-letter topic.

    Args:
        incoming: The record.
        kommunenummer: Whose topic it lies on, which is what counts.

    Raises:
        ContractError: It is no dead letter of ours.
    """
    record = decode(DeadLetterRecord, incoming.value)
    original = record.opprinnelig
    soknad = _soknad(original)
    return Letter(
        id=record.dead_letter_id,
        position=Position(incoming.topic, incoming.partition, incoming.offset),
        at_ms=incoming.timestamp_ms,
        key=original.nokkel or b"",
        digisos_id=record.digisos_id,
        melding_id=record.melding_id,
        kommunenummer=kommunenummer,
        kode=record.kode,
        trinn=record.trinn,
        tidspunkt=record.tidspunkt,
        forsok=record.forsok,
        gjenkjoringer=record.gjenkjoringer,
        sent_again_from=_sent_again_from(original),
        type=soknad.type if soknad else None,
        hastegrad=soknad.hastegrad if soknad else "VANLIG",
        skjema=schema_of(original.verdi),
        avsenderversjon=soknad.avsenderversjon if soknad else None,
        innsendt=soknad.innsendt if soknad else None,
        gyldig_til=soknad.gyldig_til if soknad else None,
        storrelse=len(original.verdi or b""),
        fremmed=original.topic != soknad_topic(kommunenummer),
    )


def sent_again(record: DeadLetterRecord, kommunenummer: Kommunenummer, *, forbi: bool) -> Outgoing:
    """Return the letter's original as it is put on its topic again: byte for byte, with its own headers, and ours after them.

    Args:
        record: The letter, with its original.
        kommunenummer: Whose dead-letter topic it lies on: a connector may write there, and decides no other topic by it.
        forbi: It goes past what was closed for good.
    """
    original = record.opprinnelig
    kept = tuple((one.navn, one.verdi or b"") for one in original.headere if one.navn not in _OURS)
    ours = (
        (GJENKJORINGER_HEADER, str(record.gjenkjoringer + 1).encode()),
        (DEAD_LETTER_HEADER, record.dead_letter_id.encode()),
        *(((FORBI_HEADER, b"1"),) if forbi else ()),
    )
    return Outgoing(soknad_topic(kommunenummer), original.nokkel or b"", original.verdi, (*kept, *ours))


def _soknad(original: Opprinnelig) -> SoknadRecord | None:
    try:
        return decode(SoknadRecord, original.verdi)
    except ContractError:
        return None


def _sent_again_from(original: Opprinnelig) -> Uuid | None:
    found = None
    for header in original.headere:
        if header.navn == DEAD_LETTER_HEADER:
            found = header.verdi
    try:
        return Uuid((found or b"").decode("ascii", "replace"))
    except InvalidNameError:
        return None
