from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from broker.record import header
from broker.routing import KVITTERING_DLQ, MAX_DEAD_LETTER_BYTES, MAX_RECORD_BYTES, kvittering_topic
from kvittering.dead_letters import dead_letter, dead_letter_id
from schemas.codec import decode
from schemas.errors import SignatureError
from schemas.names import DigisosId
from schemas.records import DeadLetterRecord

if TYPE_CHECKING:
    from broker.record import Headers


def test_a_dead_letter_is_the_record_byte_for_byte_with_our_code_and_no_words(kit: Any) -> None:
    record = kit.log().put(kvittering_topic(kit.oslo), b"\xffnokkel", b"\x00verdi")
    letter = dead_letter(record, SignatureError("hemmelig"), digisos_id=None, melding_id=None, now=kit.now)
    assert letter.topic == KVITTERING_DLQ
    assert letter.key == record.key
    found = decode(DeadLetterRecord, letter.value)
    assert (found.opprinnelig.nokkel, found.opprinnelig.verdi) == (record.key, record.value)
    assert (found.kode, found.tidspunkt, found.kommunenummer) == ("kvittering.signatur", kit.now, kit.oslo)
    assert [one.kode for one in found.forsok] == ["kvittering.signatur"]
    assert header(letter.headers, "kafka_dlt-original-topic") == record.topic.encode()
    assert b"hemmelig" not in letter.value
    assert not any(b"hemmelig" in value for _, value in letter.headers)


def test_one_place_has_one_id_and_another_place_another(kit: Any) -> None:
    log, key = kit.log(), DigisosId.new()
    one, other = (log.put(kvittering_topic(kit.oslo), key, b"x") for _ in range(2))
    assert dead_letter_id(one) == dead_letter_id(one)
    assert dead_letter_id(one) != dead_letter_id(other)


@pytest.mark.parametrize("filled", ["key", "value", "one header", "many headers", "a header's name"])
def test_whatever_fills_a_record_its_dead_letter_fits_its_topic(kit: Any, filled: str) -> None:
    size = MAX_RECORD_BYTES - 1000
    headers: dict[str, Headers] = {
        "one header": (("h", b"x" * size),),
        "a header's name": (("h" * size, b"x"),),
        "many headers": tuple((f"{n:05}", b"xx") for n in range(size // 10)),
    }
    key, value = (b"x" * size if filled == one else b"liten" for one in ("key", "value"))
    record = kit.log().put(kvittering_topic(kit.oslo), key, value, headers=headers.get(filled, ()))
    letter = dead_letter(record, SignatureError(), digisos_id=None, melding_id=None, now=kit.now)
    assert letter.value is not None
    total = len(letter.key) + len(letter.value) + sum(len(name) + len(one) + 10 for name, one in letter.headers)
    assert total < 1.25 * MAX_RECORD_BYTES < MAX_DEAD_LETTER_BYTES
    kept = decode(DeadLetterRecord, letter.value).opprinnelig
    assert (kept.nokkel, kept.verdi) == (key, value)
