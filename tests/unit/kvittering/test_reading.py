from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from broker.routing import KATALOG, TRANSPORT, hendelse_topic, kvittering_topic
from kvittering import reading as module
from schemas.codec import encode
from schemas.errors import DecodeError, MismatchError, SignatureError, UnexpectedRecordError, UnknownSchemaError
from schemas.names import DigisosId

if TYPE_CHECKING:
    import pytest


def test_a_transport_record_is_a_fact_as_it_stands(kit: Any) -> None:
    record = kit.soknad().transport("AKSEPTERT")
    read = kit.read(kit.log().transport(record))
    assert read.fact == record
    assert (read.digisos_id, read.melding_id) == (record.digisos_id, record.melding_id)


def test_a_kvittering_is_a_fact_when_the_katalogs_certificate_signed_it(kit: Any, oslo: Any, bergen: Any) -> None:
    ledd = oslo.issue(kit.soknad())
    record = kit.log().kvittering(ledd)
    read = kit.read(record, oslo)
    assert read.fact == ledd
    assert read.melding_id == ledd.claims.melding_id
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


def test_a_header_nested_without_end_is_a_wrong_signature_and_no_crash(kit: Any, oslo: Any) -> None:
    claims = oslo.claims(kit.soknad())
    deep = base64.urlsafe_b64encode(b"[" * 45_000).rstrip(b"=").decode()
    value = encode(claims.record(f"{deep}.e30.AA"))
    read = kit.read(kit.log().put(kvittering_topic(kit.oslo), claims.digisos_id, value), oslo)
    assert isinstance(read.error, SignatureError)


def test_what_nobody_foresaw_is_a_refusal_that_tells_only_its_class(
    kit: Any, oslo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RecursionError("hemmelig")

    monkeypatch.setattr(module, "read_ledd", fail)
    read = kit.read(kit.log().kvittering(oslo.issue(kit.soknad())), oslo)
    assert isinstance(read.error, UnexpectedRecordError)
    assert isinstance(read.error.__cause__, RecursionError)
    assert "RecursionError" in str(read.error)
    assert "hemmelig" not in str(read.error)
