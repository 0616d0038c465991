"""From a record on a topic to a fact, or to the reason why it is none.

What is decided here depends on the record and the katalog alone; what depends on other records is ``projection``'s. Kafka's
key must be the søknad's id: another key would put the record in another partition, out of its order.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from broker.record import soknad_of
from broker.routing import parse_topic
from kvittering.chain import Konnektor, late_signature, read_ledd
from kvittering.facts import Fact, Ledd
from kvittering.hendelser import read_hendelse
from schemas.codec import decode
from schemas.errors import MeldingsformidlerError, MismatchError, UnexpectedRecordError, UnknownSchemaError
from schemas.names import DigisosId, Kommunenummer, MeldingId
from schemas.records import TransportRecord

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.record import Incoming
    from broker.routing import TopicName
    from crypto.keys import KeyRing


@dataclass(frozen=True, slots=True)
class ReadRecord:
    """A record and what came of reading it: a fact, or an error.

    With both, the fact is real and came too late to be believed for the first time: it counts only as a repeat.
    """

    record: Incoming
    fact: Fact | None = None
    error: MeldingsformidlerError | None = None

    @property
    def digisos_id(self) -> DigisosId | None:
        """Which søknad it is about: as stated in the fact, or else by the record's key; None when neither says."""
        return soknad_of(self.record.key) if self.fact is None else digisos_id_of(self.fact)

    @property
    def melding_id(self) -> MeldingId | None:
        """Which message it is about, when that is known."""
        if self.fact is None:
            return None
        return self.fact.claims.melding_id if isinstance(self.fact, Ledd) else self.fact.melding_id


def read_record(record: Incoming, *, konnektorer: Mapping[Kommunenummer, Konnektor], keys: KeyRing) -> ReadRecord:
    """Return the fact in ``record``, or why there is none. Verifies signatures and opens packages: slow, and pure.

    What nobody foresaw is such a reason too (``UnexpectedRecordError``): a record never stops the ones after it.

    Args:
        record: Of a kommune's kvittering or hendelse topic, or of the transport topic.
        konnektorer: Who may sign, by kommune.
        keys: The innsyn keys.

    Raises:
        MeldingsformidlerError: Only one that is ``retriable``: nothing is wrong with the record.
    """
    try:
        fact, reservation = _read_under_its_key(record, konnektorer, keys)
    except MeldingsformidlerError as error:
        if error.retriable:
            raise
        return ReadRecord(record, error=error)
    except Exception as error:  # noqa: BLE001 - one record must never stop all the others; its place is logged
        unexpected = UnexpectedRecordError(f"meldingen førte til en uventet feil ({type(error).__name__})")
        unexpected.__cause__ = error
        return ReadRecord(record, error=unexpected)
    return ReadRecord(record, fact=fact, error=reservation)


def _read_under_its_key(
    record: Incoming, konnektorer: Mapping[Kommunenummer, Konnektor], keys: KeyRing
) -> tuple[Fact, MeldingsformidlerError | None]:
    topic = parse_topic(record.topic)
    konnektor = konnektorer.get(topic.kommunenummer, Konnektor()) if topic.kommunenummer else Konnektor()
    lagret = datetime.fromtimestamp(record.timestamp_ms / 1000, UTC)
    fact = _read(record, topic, konnektor, keys, lagret)
    if digisos_id_of(fact) != soknad_of(record.key):
        raise MismatchError("meldingens nøkkel er ikke dens digisosId")
    return fact, late_signature(fact, konnektor, lagret) if isinstance(fact, Ledd) else None


def _read(record: Incoming, topic: TopicName, konnektor: Konnektor, keys: KeyRing, lagret: datetime) -> Fact:
    if topic.kind == "transport":
        return decode(TransportRecord, record.value)
    if topic.kommunenummer is None:
        raise UnknownSchemaError("emnet har ikke noe som kvittering leser")
    if topic.kind == "kvittering":
        return read_ledd(record.value, kommunenummer=topic.kommunenummer, konnektor=konnektor)
    return read_hendelse(record.value, kommunenummer=topic.kommunenummer, konnektor=konnektor, keys=keys, lagret=lagret)


def as_error(read: ReadRecord) -> MeldingsformidlerError:
    """Return why there is no fact in a record that has none."""
    if read.error is None:
        raise RuntimeError("a record without a fact has an error")
    return read.error


def soknad_with_facts(read: ReadRecord) -> DigisosId:
    """Return which søknad the fact in a record is about."""
    if read.fact is None:
        raise RuntimeError("there is no fact in this record")
    return digisos_id_of(read.fact)


def digisos_id_of(fact: Fact) -> DigisosId:
    """Return which søknad the fact is about."""
    return fact.claims.digisos_id if isinstance(fact, Ledd) else fact.digisos_id
