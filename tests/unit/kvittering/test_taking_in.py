"""The rules of ``chain``'s table, each through the store: what a record that breaks one becomes, and what it leaves alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from broker.record import TopicPartition
from broker.routing import KVITTERING_DLQ, TRANSPORT, kvittering_topic
from kvittering import taking_in as module
from kvittering.chain import verify_ledd
from kvittering.projection import MAX_WAITING, project
from kvittering.store import StatusStore
from schemas.codec import decode, encode
from schemas.kvittering import UNDERVEIS
from schemas.names import DigisosId, MeldingId, Sha256
from schemas.records import DeadLetterRecord

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from broker.record import Incoming


class Bord:
    """One søknad that was accepted and sent, and a store that knows it."""

    def __init__(self, kit: Any, store: StatusStore, *issuers: Any) -> None:
        self.kit = kit
        self.store = store
        self.issuers = issuers
        self.log = kit.log()
        self.soknad = kit.soknad()

    async def accepted(self) -> Bord:
        await self.take(*(self.log.transport(self.soknad.transport(kind)) for kind in ("AKSEPTERT", "SENDT")))
        return self

    async def take(self, *records: Incoming) -> list[tuple[str, str | None]]:
        read = [self.kit.read(record, *self.issuers) for record in records]
        return [(one.resultat, one.kode) for one in await self.store.apply(read, self.kit.now)]

    async def status(self, soknad: Any = None) -> str | None:
        state = await self.store.state((soknad or self.soknad).digisos_id)
        return None if state is None else project(state).status

    async def letters(self) -> list[str]:
        pending = [one.outgoing for one in await self.store.pending(1000)]
        return [decode(DeadLetterRecord, one.value).kode for one in pending if one.topic == KVITTERING_DLQ]

    def signed(self, issuer: Any, **claims: Any) -> Any:
        """Return a link that the issuer signed and does not remember."""
        return verify_ledd(issuer.sign(issuer.claims(self.soknad, **claims)), [issuer.certificate])


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[StatusStore]:
    async with StatusStore(tmp_path / "k.sqlite") as opened:
        yield opened


@pytest.fixture
async def bord(kit: Any, oslo: Any, bergen: Any, store: StatusStore) -> Bord:
    return await Bord(kit, store, oslo, bergen).accepted()


async def test_a_kvittering_and_the_offset_behind_it_are_kept_together_or_not_at_all(
    kit: Any, oslo: Any, store: StatusStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    bord = Bord(kit, store, oslo)
    records = [bord.log.transport(bord.soknad.transport("AKSEPTERT")), bord.log.kvittering(oslo.issue(bord.soknad))]

    def crash(_: str) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr(module, "crash_point", crash)
        with pytest.raises(ZeroDivisionError):
            await bord.take(*records)
    assert await store.offsets() == {}
    assert await bord.status() is None
    assert await bord.take(*records) == [("MOTTATT", None), ("MOTTATT", None)]
    assert (await store.offsets())[TopicPartition(kvittering_topic(kit.oslo), 0)] == 1


async def test_a_duplicate_is_no_event_and_no_dead_letter(bord: Bord, oslo: Any) -> None:
    ledd = oslo.issue(bord.soknad)
    record = bord.log.kvittering(ledd)
    assert await bord.take(record, bord.log.kvittering(ledd)) == [("MOTTATT", None), ("GJENTATT", None)]
    assert await bord.take(record) == [("LEST_FOR", None)]  # the same place again
    assert await bord.letters() == []


async def test_a_fork_is_refused_and_the_first_stands(bord: Bord, oslo: Any) -> None:
    fork = bord.signed(oslo, status="AVVIST", kode="x")
    first = oslo.issue(bord.soknad)
    assert await bord.take(bord.log.kvittering(first), bord.log.kvittering(fork)) == [
        ("MOTTATT", None),
        ("UNDERKJENT", "kvittering.kjede"),
    ]
    assert await bord.status() == "MOTTATT"
    assert await bord.letters() == ["kvittering.kjede"]


async def test_a_break_is_refused_and_the_chain_goes_on_from_where_it_stood(bord: Bord, oslo: Any) -> None:
    first = oslo.issue(bord.soknad, "LEVERT")
    torn = bord.signed(oslo, forrige=Sha256.of(b"en annen"))
    second = oslo.issue(bord.soknad)
    outcomes = await bord.take(*(bord.log.kvittering(one) for one in (first, torn, second)))
    assert outcomes == [("MOTTATT", None), ("UNDERKJENT", "kvittering.kjede"), ("MOTTATT", None)]
    assert await bord.status() == "MOTTATT"


async def test_what_comes_out_of_order_waits_and_counts_when_the_missing_link_comes(bord: Bord, oslo: Any) -> None:
    first, second = oslo.issue(bord.soknad, "LEVERT"), oslo.issue(bord.soknad)
    assert await bord.take(bord.log.kvittering(second)) == [("VENTER", "venter.kjede")]
    assert await bord.status() == "SENDT"
    assert await bord.take(bord.log.kvittering(first)) == [("MOTTATT", None)]
    assert await bord.status() == "MOTTATT"
    assert await bord.letters() == []


async def test_a_wrong_signer_is_refused(bord: Bord, oslo: Any, bergen: Any) -> None:
    forged = bord.signed(bergen, kommunenummer=oslo.kommunenummer, utsteder=oslo.name)
    assert await bord.take(bord.log.kvittering(forged)) == [("UNDERKJENT", "kvittering.signatur")]
    assert await bord.status() == "SENDT"


async def test_a_real_signer_in_anothers_name_is_refused(bord: Bord, oslo: Any) -> None:
    masked = bord.signed(oslo, utsteder="konnektor-ny")
    assert await bord.take(bord.log.kvittering(masked)) == [("UNDERKJENT", "kvittering.signatur")]


async def test_a_back_dated_kvittering_of_an_ended_key_is_refused(bord: Bord, oslo: Any) -> None:
    stolen = oslo.certificate.not_valid_after_utc + UNDERVEIS
    record = replace(bord.log.kvittering(bord.signed(oslo)), timestamp_ms=int(stolen.timestamp() * 1000))
    assert await bord.take(record) == [("UNDERKJENT", "kvittering.signatur")]
    assert await bord.status() == "SENDT"
    assert await bord.letters() == ["kvittering.signatur"]


async def test_a_repeat_is_a_repeat_also_long_after_its_key_ended(bord: Bord, oslo: Any) -> None:
    ledd = oslo.issue(bord.soknad)
    late_ms = int((oslo.certificate.not_valid_after_utc + timedelta(days=400)).timestamp() * 1000)
    repeat = (bord.log.kvittering(ledd), replace(bord.log.kvittering(ledd), timestamp_ms=late_ms))
    assert await bord.take(*repeat) == [("MOTTATT", None), ("GJENTATT", None)]
    assert await bord.letters() == []


async def test_a_kvittering_of_a_revoked_key_counts_for_nothing(kit: Any, store: StatusStore) -> None:
    issuer = kit.issuer()
    issuer.revoked = kit.now - timedelta(minutes=1)
    bord = await Bord(kit, store, issuer).accepted()
    assert await bord.take(bord.log.kvittering(issuer.issue(bord.soknad))) == [("UNDERKJENT", "kvittering.signatur")]
    assert await bord.status() == "SENDT"


async def test_clear_fields_that_are_not_what_was_signed_are_refused(bord: Bord, oslo: Any) -> None:
    record = bord.log.kvittering(oslo.issue(bord.soknad, "LEVERT"), status="MOTTATT")
    assert await bord.take(record) == [("UNDERKJENT", "kontrakt.avvik")]


async def test_a_wrong_kommune_is_refused_on_anothers_topic_and_about_anothers_soknad(
    bord: Bord, kit: Any, bergen: Any
) -> None:
    ledd = bergen.issue(bord.soknad)
    value = encode(ledd.claims.record(ledd.jws))
    misplaced = bord.log.put(kvittering_topic(kit.oslo), bord.soknad.digisos_id, value)
    assert await bord.take(misplaced) == [("UNDERKJENT", "kvittering.signatur")]
    assert await bord.take(bord.log.kvittering(ledd)) == [("UNDERKJENT", "kontrakt.avvik")]
    assert await bord.status() == "SENDT"


async def test_a_wrong_digest_is_refused_and_keeps_its_place_in_the_chain(bord: Bord, oslo: Any) -> None:
    wrong, right = oslo.issue(bord.soknad, sha256=Sha256.of(b"noe annet")), oslo.issue(bord.soknad)
    outcomes = await bord.take(bord.log.kvittering(wrong), bord.log.kvittering(right))
    assert outcomes == [("UNDERKJENT", "kontrakt.avvik"), ("MOTTATT", None)]
    assert await bord.status() == "MOTTATT"


async def test_an_unknown_soknad_and_an_unknown_message_wait_and_nobody_is_shown_them(
    bord: Bord, kit: Any, oslo: Any
) -> None:
    unknown = kit.soknad()
    assert await bord.take(bord.log.kvittering(oslo.issue(unknown))) == [("VENTER", "venter.soknad")]
    assert await bord.status(unknown) is None
    other = oslo.issue(bord.soknad, melding_id=MeldingId.new())
    assert await bord.take(bord.log.kvittering(other)) == [("VENTER", "venter.soknad")]
    assert await bord.status() == "SENDT"
    assert await bord.letters() == []


async def test_a_record_under_another_soknads_key_is_refused(bord: Bord, kit: Any, oslo: Any) -> None:
    ledd = oslo.issue(bord.soknad)
    record = bord.log.put(kvittering_topic(kit.oslo), DigisosId.new(), encode(ledd.claims.record(ledd.jws)))
    assert await bord.take(record) == [("UNDERKJENT", "kontrakt.avvik")]


async def test_an_unreadable_record_is_refused_and_read_past(bord: Bord, kit: Any) -> None:
    for topic in (TRANSPORT, kvittering_topic(kit.oslo)):
        record = bord.log.put(topic, bord.soknad.digisos_id, b"rot")
        assert await bord.take(record) == [("UNDERKJENT", "kontrakt.ukjent-skjema")]
        assert (await bord.store.offsets())[record.topic_partition] == record.offset + 1


async def test_only_so_many_of_one_issuer_may_wait(bord: Bord, oslo: Any) -> None:
    unknown = bord.kit.soknad()
    links = [oslo.issue(unknown, "LEVERT") for _ in range(MAX_WAITING + 1)]
    outcomes = await bord.take(*(bord.log.kvittering(one) for one in links))
    assert outcomes[-2:] == [("VENTER", "venter.soknad"), ("UNDERKJENT", "kvittering.kjede")]
