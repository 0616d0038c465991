from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from broker.katalog import Katalog
from crypto.keys import KeyRing
from kvittering import applier as module
from kvittering import reading
from kvittering.applier import Applier, refresh_figures, view_of
from kvittering.hub import Hub
from kvittering.projection import project
from kvittering.store import StatusStore
from schemas.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


class Shell:
    def __init__(self, kit: Any, store: StatusStore, *issuers: Any) -> None:
        self.hub = Hub()
        self.applier = Applier(
            katalog=Katalog(issuer.entry() for issuer in issuers),
            store=store,
            keys=KeyRing([]),
            hub=self.hub,
            clock=lambda: kit.now,
        )


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[StatusStore]:
    async with StatusStore(tmp_path / "k.sqlite") as opened:
        yield opened


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.001)


def sample(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


async def test_a_batch_that_the_store_could_not_take_is_tried_again(
    kit: Any, oslo: Any, store: StatusStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell, soknad, log = Shell(kit, store, oslo), kit.soknad(), kit.log()
    real, problems = store.apply, []

    async def full_once(*arguments: Any) -> Any:
        problems.append(shell.applier.problem())
        if len(problems) == 1:
            raise StoreError("disken er full")
        return await real(*arguments)

    monkeypatch.setattr(store, "apply", full_once)
    with capture_logs() as logs:
        applied = await shell.applier.handle([log.transport(soknad.transport("AKSEPTERT"))])
    assert [one.resultat for one in applied] == ["MOTTATT"]
    assert problems[1] == "lageret: disken er full"
    assert "batch_not_stored" in [line["event"] for line in logs]


async def test_a_listener_is_told_of_each_step_in_order(kit: Any, oslo: Any, store: StatusStore) -> None:
    shell, soknad, log = Shell(kit, store, oslo), kit.soknad(), kit.log()
    facts = [soknad.transport("AKSEPTERT"), soknad.transport("SENDT", 1)]
    with shell.hub.listen(soknad.digisos_id, soknad.eier()) as listener:
        await shell.applier.handle([*map(log.transport, facts), log.kvittering(oslo.issue(soknad))])
        views = [await listener.next(1) for _ in range(3)]
    assert [json.loads(view.body)["status"] for view in views if view] == ["AKSEPTERT", "SENDT", "MOTTATT"]


async def test_each_record_is_one_line_and_is_counted(kit: Any, oslo: Any, bergen: Any, store: StatusStore) -> None:
    shell, soknad, log = Shell(kit, store, oslo), kit.soknad(), kit.log()
    names = [
        ("fiks_receipts_total", {"status": "MOTTATT"}),
        ("fiks_dead_letters_total", {"kode": "kvittering.signatur"}),
        ("fiks_receipt_latency_seconds_count", {}),
        ("fiks_status_changes_total", {"status": "MOTTATT"}),
    ]
    before = [sample(name, **labels) for name, labels in names]
    forged = bergen.issue(soknad, kommunenummer=kit.oslo, utsteder=oslo.name)
    records = [log.transport(soknad.transport("AKSEPTERT")), log.kvittering(forged)]
    records.append(log.kvittering(oslo.issue(soknad)))
    with capture_logs() as logs:
        await shell.applier.handle(records)
    assert [sample(name, **labels) for name, labels in names] == [value + 1 for value in before]
    assert [(line["event"], line["log_level"], line["resultat"]) for line in logs] == [
        ("record_applied", "info", "MOTTATT"),
        ("record_applied", "warning", "UNDERKJENT"),
        ("record_applied", "info", "MOTTATT"),
    ]
    assert soknad.fodselsnummer not in str(logs)


async def test_the_oldest_unacknowledged_soknad_has_an_age(kit: Any, oslo: Any, store: StatusStore) -> None:
    shell, soknad, log = Shell(kit, store, oslo), kit.soknad(), kit.log()
    await shell.applier.handle([log.transport(soknad.transport("AKSEPTERT", -90))])
    await refresh_figures(store, lambda: kit.now)
    assert sample("fiks_oldest_unacknowledged_seconds") == pytest.approx(90)
    await shell.applier.handle([log.kvittering(oslo.issue(soknad))])
    await refresh_figures(store, lambda: kit.now)
    assert sample("fiks_oldest_unacknowledged_seconds") == 0


async def test_a_views_version_is_the_views_own(kit: Any, oslo: Any, store: StatusStore) -> None:
    shell, soknad, log = Shell(kit, store, oslo), kit.soknad(), kit.log()
    first, second, again = await shell.applier.handle(
        [log.transport(soknad.transport(kind, at)) for at, kind in enumerate(("AKSEPTERT", "SENDT", "BEKREFTET"))]
    )
    versions = {view_of(one.after).version for one in (first, second, again) if one.after}
    assert len(versions) == 3
    state = await store.state(soknad.digisos_id)
    assert state is not None
    assert view_of(project(state)).version in versions


async def test_a_kvittering_that_waited_is_counted_when_it_counts(kit: Any, oslo: Any, store: StatusStore) -> None:
    shell, soknad, log = Shell(kit, store, oslo), kit.soknad(), kit.log()
    before = sample("fiks_receipts_total", status="LEVERT")
    await shell.applier.handle([log.kvittering(oslo.issue(soknad, "LEVERT"))])
    assert sample("fiks_receipts_total", status="LEVERT") == before
    await shell.applier.handle([log.transport(soknad.transport("AKSEPTERT"))])
    assert sample("fiks_receipts_total", status="LEVERT") == before + 1


async def test_a_record_that_nobody_foresaw_is_refused_logged_by_its_place_and_passed_by(
    kit: Any, oslo: Any, store: StatusStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("hemmelig")

    monkeypatch.setattr(reading, "read_ledd", fail)
    shell, soknad, log = Shell(kit, store, oslo), kit.soknad(), kit.log()
    batch = [log.kvittering(oslo.issue(soknad)), log.transport(soknad.transport("AKSEPTERT"))]
    with capture_logs() as logs:
        applied = await shell.applier.handle(batch)
    assert [(one.resultat, one.kode) for one in applied] == [("UNDERKJENT", "kontrakt.uventet"), ("MOTTATT", None)]
    (line,) = [line for line in logs if line["event"] == "record_unexpected"]
    assert (line["log_level"], line["feiltype"]) == ("critical", "ZeroDivisionError")
    assert "test_applier.py:" in line["sted"]
    assert "hemmelig" not in repr(logs)


async def test_a_status_that_nobody_knows_is_counted_under_one_name(kit: Any, oslo: Any, store: StatusStore) -> None:
    shell, soknad, log = Shell(kit, store, oslo), kit.soknad(), kit.log()
    before = sample("fiks_receipts_total", status="ANNEN")
    links = [oslo.issue(soknad, f"NYTT_{letter}") for letter in "ABC"]
    await shell.applier.handle([log.transport(soknad.transport("AKSEPTERT")), *map(log.kvittering, links)])
    assert sample("fiks_receipts_total", status="ANNEN") == before + 3
    assert REGISTRY.get_sample_value("fiks_receipts_total", {"status": "NYTT_A"}) is None
