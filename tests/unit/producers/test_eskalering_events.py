from __future__ import annotations

from datetime import UTC, datetime

from producers.eskalering_events import confirmed, event, not_sent, sent
from producers.eskalering_rows import Eskalering, Tilstand
from schemas.codec import decode
from schemas.names import DigisosId, Kommunenummer, MeldingId, NavEksternRefId
from schemas.records import TransportRecord

NOW = datetime(2026, 11, 24, 12, 20, 0, 123456, tzinfo=UTC)
ROW = Eskalering(
    MeldingId.new(),
    "KAFKA",
    DigisosId.new(),
    Kommunenummer("0301"),
    NavEksternRefId("ref-1"),
    Tilstand.VENTER,
    None,
    0,
    0,
)


def test_an_event_has_the_same_id_whoever_says_it_and_whenever() -> None:
    assert (
        event(ROW, "SENDT", "PRINT", NOW).hendelse_id == event(ROW, "SENDT", "PRINT", NOW.replace(day=25)).hendelse_id
    )
    ids = {event(ROW, kind, kanal, NOW, kode).hendelse_id for kind in "AB" for kanal in "AB" for kode in (None, "x")}
    assert len(ids) == 8


def test_events_say_what_happened_on_which_channel_to_whom() -> None:
    for message, kind, kanal, kode in (
        (sent(ROW, "PRINT", NOW), "SENDT", "PRINT", None),
        (not_sent(ROW, "SVARINN", "kanal-mangler", NOW), "IKKE_SENDT", "SVARINN", "kanal-mangler"),
        (confirmed(ROW, NOW), "BEKREFTET", "KAFKA", None),
    ):
        record = decode(TransportRecord, message.outgoing.value or b"")
        assert (record.type, record.kanal, record.kode) == (kind, kanal, kode)
        assert (record.digisos_id, record.melding_id) == (ROW.digisos_id, ROW.melding_id)
        assert message.outgoing.key == ROW.digisos_id.encode()
        assert record.tidspunkt == NOW.replace(microsecond=123000)
