from __future__ import annotations

from typing import Any

from producers.messages import accepted_messages, sent_message
from schemas.codec import decode
from schemas.records import SoknadRecord, TransportRecord

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


def test_an_accepted_soknad_is_aksept_then_soknad_with_the_records_inside(intake: Any, sending: Any) -> None:
    accepted = intake.take(sending)
    aksept, soknad = accepted_messages(accepted, PARENT)
    assert decode(TransportRecord, aksept.outgoing.value) == accepted.transport
    assert decode(SoknadRecord, soknad.outgoing.value) == accepted.soknad
    assert dict(aksept.outgoing.headers)["ce_id"] == accepted.transport.hendelse_id.encode()
    assert dict(soknad.outgoing.headers)["ce_id"] == accepted.soknad.melding_id.encode()


def test_sent_belongs_to_the_soknad_and_its_trace(intake: Any, sending: Any) -> None:
    accepted = intake.take(sending)
    _, soknad = accepted_messages(accepted, PARENT)
    sent = sent_message(soknad, accepted.soknad.innsendt)
    record = decode(TransportRecord, sent.outgoing.value)
    assert (record.type, record.melding_id, record.eier) == ("SENDT", accepted.soknad.melding_id, None)
    assert record.hendelse_id != accepted.transport.hendelse_id
    assert TRACE in dict(sent.outgoing.headers)["traceparent"].decode()
