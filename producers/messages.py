"""Records as messages for the outbox: topic, key, headers, bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from broker.clock import timestamp
from broker.record import (
    GJENKJORINGER_HEADER,
    GYLDIG_TIL_HEADER,
    NOKKEL_HEADER,
    TRACEPARENT,
    Outgoing,
    cloud_event_headers,
    header,
)
from broker.routing import TRANSPORT, soknad_topic
from producers.outbox import Message
from schemas.codec import encode
from schemas.names import Uuid
from schemas.records import SOKNAD, TILBAKEKALL, TRANSPORT_SENDT, TransportRecord

if TYPE_CHECKING:
    from datetime import datetime

    from producers.intake import Accepted
    from schemas.records import SoknadRecord

SOURCE: Final = "/producers"
SOKNAD_EVENT: Final = "no.fiks.soknad.v1"
TRANSPORT_EVENT: Final = "no.fiks.transport.v1"


def accepted_messages(accepted: Accepted, traceparent: str | None) -> tuple[Message, Message]:
    """Return what an accepted submission puts in the outbox: AKSEPTERT, then the søknad.

    Args:
        accepted: The submission.
        traceparent: Of the request that brought it, if it had one.
    """
    return (
        transport_message(accepted.transport, traceparent),
        soknad_message(accepted.soknad, traceparent),
    )


def sent_message(soknad: Message, now: datetime) -> Message:
    """Return the event SENDT of a søknad that was put on its topic at ``now``."""
    record = TransportRecord(
        hendelse_id=Uuid.new(),
        melding_id=soknad.melding_id,
        digisos_id=soknad.digisos_id,
        kommunenummer=soknad.kommunenummer,
        type=TRANSPORT_SENDT,
        tidspunkt=now,
        nav_ekstern_ref_id=soknad.nav_ekstern_ref_id,
    )
    parent = header(soknad.outgoing.headers, TRACEPARENT)
    return transport_message(record, parent.decode() if parent else None)


def soknad_message(
    record: SoknadRecord, traceparent: str | None, *, redrives: int = 0, queued: datetime | None = None
) -> Message:
    """Return a sealed søknad for its kommune's topic.

    Args:
        record: With its package, or where that is.
        traceparent: Of what brought it.
        redrives: How many times it was sent again, which tells a connector to try though it has answered.
        queued: When it came to the outbox, if not when it was accepted.
    """
    headers = cloud_event_headers(
        event_id=record.melding_id,
        event_type=SOKNAD_EVENT,
        source=SOURCE,
        subject=record.kommunenummer,
        time=record.innsendt,
        parent=traceparent,
    )
    headers = (*headers, (NOKKEL_HEADER, record.nokkel_id.encode()))
    if record.gyldig_til is not None and record.type != TILBAKEKALL:  # a withdrawal is never too late to try
        headers = (*headers, (GYLDIG_TIL_HEADER, timestamp(record.gyldig_til).encode()))
    if redrives:
        headers = (*headers, (GJENKJORINGER_HEADER, str(redrives).encode()))
    return Message(
        digisos_id=record.digisos_id,
        melding_id=record.melding_id,
        kommunenummer=record.kommunenummer,
        nav_ekstern_ref_id=record.nav_ekstern_ref_id,
        type=SOKNAD,
        outgoing=Outgoing(soknad_topic(record.kommunenummer), record.digisos_id.encode(), encode(record), headers),
        queued=queued or record.innsendt,
    )


def transport_message(record: TransportRecord, traceparent: str | None) -> Message:
    """Return an event for the transport topic."""
    headers = cloud_event_headers(
        event_id=record.hendelse_id,
        event_type=TRANSPORT_EVENT,
        source=SOURCE,
        subject=record.kommunenummer,
        time=record.tidspunkt,
        parent=traceparent,
    )
    return Message(
        digisos_id=record.digisos_id,
        melding_id=record.melding_id,
        kommunenummer=record.kommunenummer,
        nav_ekstern_ref_id=record.nav_ekstern_ref_id,
        type=record.type,
        outgoing=Outgoing(TRANSPORT, record.digisos_id.encode(), encode(record), headers),
        queued=record.tidspunkt,
    )
