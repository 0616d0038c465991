from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from broker.dlq.letters import read_letter, sent_again
from broker.record import DEAD_LETTER_HEADER, FORBI_HEADER, GJENKJORINGER_HEADER
from broker.routing import soknad_topic
from schemas.codec import decode, encode
from schemas.errors import ContractError
from schemas.names import Kommunenummer
from schemas.records import DeadLetterRecord

if TYPE_CHECKING:
    from datetime import datetime

    from conftest import Mailbox

OSLO = Kommunenummer("0301")


def test_a_letter_tells_what_decides_and_keeps_no_package(mailbox: Mailbox, now: datetime) -> None:
    until = now + timedelta(hours=24)
    mailbox.die(hastegrad="NODHJELP", gyldig_til=until, avsenderversjon="1.2")
    letter = read_letter(mailbox.records[0], OSLO)
    assert (letter.kode, letter.trinn, letter.type, letter.skjema) == ("krypto.apning", "APNING", "SOKNAD", "soknad:2")
    assert letter.is_urgent
    assert (letter.gyldig_til, letter.avsenderversjon, letter.innsendt) == (until, "1.2", now)
    assert letter.key == mailbox.soknad().digisos_id.encode()
    assert letter.position.offset == 0
    assert not letter.is_stripped
    assert not letter.fremmed
    assert b"abc" not in repr(letter).encode()


def test_a_letter_whose_original_cannot_be_read_is_a_letter(mailbox: Mailbox) -> None:
    mailbox.die(verdi=b"tull", kode="kontrakt.ukjent-skjema")
    letter = read_letter(mailbox.records[0], OSLO)
    assert letter.melding_id is letter.type is letter.skjema is None
    assert letter.storrelse == 4


@pytest.mark.parametrize("verdi", [None, b""])
def test_a_letter_without_its_original_says_so(mailbox: Mailbox, verdi: bytes | None) -> None:
    mailbox.die(verdi=verdi)
    assert read_letter(mailbox.records[0], OSLO).is_stripped


def test_what_is_no_letter_is_refused(mailbox: Mailbox) -> None:
    mailbox.die()
    with pytest.raises(ContractError):
        read_letter(type(mailbox.records[0])("t", 0, 0, 0, b"", encode(mailbox.soknad())), OSLO)


def test_what_is_sent_again_is_the_original_byte_for_byte(mailbox: Mailbox) -> None:
    brev = mailbox.die()
    record = decode(DeadLetterRecord, mailbox.records[0].value)
    outgoing = sent_again(record, OSLO, forbi=False)
    assert (outgoing.topic, outgoing.key) == (soknad_topic(OSLO), record.opprinnelig.nokkel)
    assert outgoing.value == encode(mailbox.soknad())
    assert outgoing.headers == (
        ("traceparent", b"00-aa"),
        (GJENKJORINGER_HEADER, b"1"),
        (DEAD_LETTER_HEADER, brev.encode()),
    )


def test_a_second_round_carries_its_own_story_and_not_the_first_ones(mailbox: Mailbox) -> None:
    first = mailbox.die()
    second = mailbox.die(runde=1, fra=first)
    outgoing = sent_again(decode(DeadLetterRecord, mailbox.records[1].value), OSLO, forbi=True)
    assert outgoing.headers == (
        ("traceparent", b"00-aa"),
        (GJENKJORINGER_HEADER, b"2"),
        (DEAD_LETTER_HEADER, second.encode()),
        (FORBI_HEADER, b"1"),
    )
    assert read_letter(mailbox.records[1], OSLO).sent_again_from == first


def test_a_connector_cannot_reach_another_kommune_through_its_dead_letters(mailbox: Mailbox) -> None:
    mailbox.die(emne="fiks.4601.soknad.v1")
    assert read_letter(mailbox.records[0], OSLO).fremmed
    outgoing = sent_again(decode(DeadLetterRecord, mailbox.records[0].value), OSLO, forbi=False)
    assert outgoing.topic == soknad_topic(OSLO)
