from __future__ import annotations

import os
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, Any

import pytest

from broker.routing import TRANSPORT, kvittering_topic
from kvittering import folding as module
from kvittering.buckets import Buckets
from kvittering.folding import Readers, fold_buckets
from schemas.errors import StoreError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def buckets(kit: Any, oslo: Any, tmp_path: Path) -> tuple[list[Path], Readers]:
    topics = (TRANSPORT, kvittering_topic(kit.oslo))
    log = kit.log()
    with Buckets(tmp_path, 5, topics) as some:
        for soknad in (kit.soknad() for _ in range(20)):
            some.add(log.transport(soknad.transport("AKSEPTERT")))
            some.add(log.kvittering(oslo.issue(soknad)))
    return some.paths, Readers((oslo.entry(),), (), topics)


async def test_every_bucket_is_folded_once_and_then_gone(kit: Any, buckets: tuple[list[Path], Readers]) -> None:
    paths, readers = buckets
    folded = [one async for one in fold_buckets(paths, readers, workers=0, now=kit.now)]
    assert len(folded) == len(paths)
    assert sum(len(one.soknader) for one in folded) == 20
    assert {row[3] for one in folded for row in one.soknader} == {"MOTTATT"}
    assert os.listdir(paths[0].parent) == []  # noqa: PTH208 - an asynchronous test may not use Path's


async def test_a_worker_that_dies_is_told_as_the_stores_error(
    kit: Any, buckets: tuple[list[Path], Readers], monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, readers = buckets

    def die(*_: object) -> None:
        raise BrokenProcessPool

    monkeypatch.setattr(module, "_fold", die)
    with pytest.raises(StoreError, match="minne"):
        assert [one async for one in fold_buckets(paths, readers, workers=0, now=kit.now)] == []
