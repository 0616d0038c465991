from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from broker.katalog import Katalog
from broker.record import TopicPartition
from broker.routing import TRANSPORT, kvittering_topic
from crypto.certificates import certificate_pem, nokkel_id
from crypto.keys import KeyRing
from kvittering import follower as module
from kvittering.follower import Follower, topics_of, view_of
from kvittering.hub import Hub
from kvittering.projection import project
from kvittering.store import StatusStore
from schemas.errors import BrokerUnavailableError, StoreError
from schemas.names import Organisasjonsnummer
from schemas.records import BRUK_KVITTERING, KatalogRecord, Sertifikat

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping
    from pathlib import Path


def entry(kit: Any, issuer: Any) -> KatalogRecord:
    certificate = Sertifikat(
        nokkel_id=nokkel_id(issuer.certificate),
        bruk=BRUK_KVITTERING,
        pem=certificate_pem(issuer.certificate).decode(),
        gyldig_fra=kit.now,
        gyldig_til=kit.now,
    )
    return KatalogRecord(
        kommunenummer=issuer.kommunenummer,
        navn="En kommune",
        organisasjonsnummer=Organisasjonsnummer("958935420"),
        leverandor="acme",
        konnektor=issuer.name,
        sertifikater=(certificate,),
        endret=kit.now,
    )


class Topics:
    """Topics in memory, opened as a tail is."""

    def __init__(self) -> None:
        self.opened: list[tuple[frozenset[str], dict[TopicPartition, int]]] = []
        self.batches: asyncio.Queue[list[Any] | Exception] = asyncio.Queue()
        self.fail_to_open = 0
        self.caught_up = asyncio.Event()

    @asynccontextmanager
    async def open(self, topics: Iterable[str], offsets: Mapping[TopicPartition, int]) -> AsyncIterator[Topics]:
        self.opened.append((frozenset(topics), dict(offsets)))
        if self.fail_to_open:
            self.fail_to_open -= 1
            raise BrokerUnavailableError("borte")
        yield self

    async def __aiter__(self) -> AsyncIterator[list[Any]]:
        while True:
            batch = await self.batches.get()
            if isinstance(batch, Exception):
                raise batch
            yield batch
            if self.batches.empty():
                self.caught_up.set()


class Shell:
    def __init__(self, kit: Any, store: StatusStore, *issuers: Any) -> None:
        self.katalog = Katalog(entry(kit, issuer) for issuer in issuers)
        self.changed, self.ready = asyncio.Event(), asyncio.Event()
        self.topics, self.hub, self.store = Topics(), Hub(), store
        self.follower = Follower(
            katalog=self.katalog,
            changed=self.changed,
            open_tail=self.topics.open,  # type: ignore[arg-type]  # a tail in memory
            store=store,
            keys=KeyRing([]),
            hub=self.hub,
            clock=lambda: kit.now,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.follower.run(self.ready))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def eventually(condition: Any) -> None:
    async with asyncio.timeout(10):
        while True:
            if condition():
                return
            await asyncio.sleep(0.005)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[StatusStore]:
    async with StatusStore(tmp_path / "k.sqlite") as opened:
        yield opened


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.001)


def sample(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


async def test_nothing_is_read_before_the_katalog_is_there(kit: Any, oslo: Any, store: StatusStore) -> None:
    shell = Shell(kit, store, oslo)
    async with shell.running():
        assert shell.follower.problem() == "venter på katalogen"
        shell.ready.set()
        await eventually(lambda: shell.topics.opened)
        assert shell.topics.opened == [(topics_of(shell.katalog), {})]
        assert shell.follower.problem() == "emnene er ikke lest ferdig"


async def test_it_is_ready_when_all_that_was_there_has_been_taken_in(kit: Any, oslo: Any, store: StatusStore) -> None:
    shell, soknad, log = Shell(kit, store, oslo), kit.soknad(), kit.log()
    shell.ready.set()
    shell.topics.batches.put_nowait([log.transport(soknad.transport("AKSEPTERT")), log.kvittering(oslo.issue(soknad))])
    async with shell.running():
        await eventually(lambda: shell.follower.problem() is None)
    state = await store.state(soknad.digisos_id)
    assert state is not None
    assert project(state).status == "MOTTATT"


async def test_reading_goes_on_from_the_stores_offsets_when_kafka_comes_back(
    kit: Any, oslo: Any, store: StatusStore
) -> None:
    shell, soknad, log = Shell(kit, store, oslo), kit.soknad(), kit.log()
    shell.ready.set()
    shell.topics.fail_to_open = 1
    shell.topics.batches.put_nowait([log.transport(soknad.transport("AKSEPTERT"))])
    shell.topics.batches.put_nowait(BrokerUnavailableError("borte"))
    async with shell.running():
        await eventually(lambda: len(shell.topics.opened) == 3)
    assert [offsets for _, offsets in shell.topics.opened] == [{}, {}, {TopicPartition(TRANSPORT, 0): 1}]


async def test_a_new_kommune_is_followed_and_the_others_are_left_alone(
    kit: Any, oslo: Any, bergen: Any, store: StatusStore
) -> None:
    shell = Shell(kit, store, oslo)
    shell.ready.set()
    async with shell.running():
        await eventually(lambda: shell.topics.opened)
        shell.katalog.put(entry(kit, bergen))
        shell.changed.set()
        await eventually(lambda: len(shell.topics.opened) == 2)
        shell.katalog.remove(kit.oslo)
        shell.changed.set()
    new = shell.topics.opened[1][0]
    assert new == {kvittering_topic(kit.bergen), "fiks.4601.hendelse.v1"}


async def test_a_batch_that_the_store_could_not_take_is_tried_again(
    kit: Any, oslo: Any, store: StatusStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell, soknad, log = Shell(kit, store, oslo), kit.soknad(), kit.log()
    real, problems = store.apply, []

    async def full_once(*arguments: Any) -> Any:
        problems.append(shell.follower.problem())
        if len(problems) == 1:
            raise StoreError("disken er full")
        return await real(*arguments)

    monkeypatch.setattr(store, "apply", full_once)
    with capture_logs() as logs:
        applied = await shell.follower.handle([log.transport(soknad.transport("AKSEPTERT"))])
    assert [one.resultat for one in applied] == ["recorded"]
    assert problems[1] == "lageret: disken er full"
    assert "batch_not_stored" in [line["event"] for line in logs]


async def test_a_listener_is_told_of_each_step_in_order(kit: Any, oslo: Any, store: StatusStore) -> None:
    shell, soknad, log = Shell(kit, store, oslo), kit.soknad(), kit.log()
    facts = [soknad.transport("AKSEPTERT"), soknad.transport("SENDT", 1)]
    with shell.hub.listen(soknad.digisos_id) as listener:
        await shell.follower.handle([*map(log.transport, facts), log.kvittering(oslo.issue(soknad))])
        views = [await listener.next(1) for _ in range(3)]
    assert [json.loads(view.body)["status"] for view in views if view] == ["AKSEPTERT", "SENDT", "MOTTATT"]


async def test_each_record_is_one_line_and_is_counted(kit: Any, oslo: Any, bergen: Any, store: StatusStore) -> None:
    shell, soknad, log = Shell(kit, store, oslo), kit.soknad(), kit.log()
    names = [
        ("fiks_receipts_total", {"status": "MOTTATT"}),
        ("fiks_dead_letters_total", {"code": "kvittering.signatur"}),
        ("fiks_receipt_latency_seconds_count", {}),
        ("fiks_status_changes_total", {"status": "MOTTATT"}),
    ]
    before = [sample(name, **labels) for name, labels in names]
    forged = bergen.issue(soknad, kommunenummer=kit.oslo, utsteder=oslo.name)
    records = [log.transport(soknad.transport("AKSEPTERT")), log.kvittering(forged)]
    records.append(log.kvittering(oslo.issue(soknad)))
    with capture_logs() as logs:
        await shell.follower.handle(records)
    assert [sample(name, **labels) for name, labels in names] == [value + 1 for value in before]
    assert [(line["event"], line["log_level"], line["resultat"]) for line in logs] == [
        ("record_applied", "info", "recorded"),
        ("record_applied", "warning", "refused"),
        ("record_applied", "info", "recorded"),
    ]
    assert soknad.fodselsnummer not in str(logs)


async def test_the_oldest_unacknowledged_soknad_has_an_age(kit: Any, oslo: Any, store: StatusStore) -> None:
    shell, soknad, log = Shell(kit, store, oslo), kit.soknad(), kit.log()
    await shell.follower.handle([log.transport(soknad.transport("AKSEPTERT", -90))])
    await shell.follower.refresh_figures()
    assert sample("fiks_oldest_unacknowledged_seconds") == pytest.approx(90)
    await shell.follower.handle([log.kvittering(oslo.issue(soknad))])
    await shell.follower.refresh_figures()
    assert sample("fiks_oldest_unacknowledged_seconds") == 0


async def test_a_views_version_is_the_views_own(kit: Any, oslo: Any, store: StatusStore) -> None:
    shell, soknad, log = Shell(kit, store, oslo), kit.soknad(), kit.log()
    first, second, again = await shell.follower.handle(
        [log.transport(soknad.transport(kind, at)) for at, kind in enumerate(("AKSEPTERT", "SENDT", "BEKREFTET"))]
    )
    versions = {view_of(one.after).version for one in (first, second, again) if one.after}
    assert len(versions) == 3
    state = await store.state(soknad.digisos_id)
    assert state is not None
    assert view_of(project(state)).version in versions
