from __future__ import annotations

from typing import Any

from broker.routing import KATALOG, TRANSPORT, hendelse_topic, kvittering_topic
from schemas.codec import encode
from schemas.errors import DecodeError, MismatchError, SignatureError, UnknownSchemaError
from schemas.names import DigisosId


def test_a_transport_record_is_a_fact_as_it_stands(kit: Any) -> None:
    record = kit.soknad().transport("AKSEPTERT")
    read = kit.read(kit.log().transport(record))
    assert read.fact == record
    assert (read.digisos_id, read.melding_id, read.kommunenummer) == (record.digisos_id, record.melding_id, None)


def test_a_kvittering_is_a_fact_when_the_katalogs_certificate_signed_it(kit: Any, oslo: Any, bergen: Any) -> None:
    ledd = oslo.issue(kit.soknad())
    record = kit.log().kvittering(ledd)
    read = kit.read(record, oslo)
    assert read.fact == ledd
    assert (read.melding_id, read.kommunenummer) == (ledd.claims.melding_id, kit.oslo)
    assert isinstance(kit.read(record, bergen).error, SignatureError)


def test_a_record_under_another_key_is_refused_and_belongs_to_nobody_else(kit: Any, oslo: Any) -> None:
    ledd = oslo.issue(kit.soknad())
    value = encode(ledd.claims.record(ledd.jws))
    other = DigisosId.new()
    read = kit.read(kit.log().put(kvittering_topic(kit.oslo), other, value), oslo)
    assert isinstance(read.error, MismatchError)
    assert read.digisos_id == other
    assert read.melding_id is None


def test_a_key_that_is_no_id_names_no_soknad(kit: Any, oslo: Any) -> None:
    for key in (b"", b"\xff\xfe", b"0301"):
        read = kit.read(kit.log().put(kvittering_topic(kit.oslo), key, b"rot"), oslo)
        assert read.digisos_id is None
        assert isinstance(read.error, UnknownSchemaError)


def test_a_record_of_the_wrong_kind_is_refused_on_every_topic(kit: Any, oslo: Any) -> None:
    soknad, log = kit.soknad(), kit.log()
    transport = encode(soknad.transport("SENDT"))
    for topic in (kvittering_topic(kit.oslo), hendelse_topic(kit.oslo), KATALOG):
        assert isinstance(kit.read(log.put(topic, soknad.digisos_id, transport), oslo).error, UnknownSchemaError)
    cut = transport[:-3]
    assert isinstance(kit.read(log.put(TRANSPORT, soknad.digisos_id, cut)).error, DecodeError)
