from __future__ import annotations

import stat
from typing import TYPE_CHECKING, Any

import pytest

from broker.routing import TRANSPORT, kvittering_topic
from kvittering.buckets import MAX_BUCKETS, RECORDS_EACH, Buckets, bucket_count, read_bucket

if TYPE_CHECKING:
    from pathlib import Path


def test_a_record_comes_back_as_it_was_with_the_others_of_its_soknad(kit: Any, oslo: Any, tmp_path: Path) -> None:
    log, soknader = kit.log(), [kit.soknad() for _ in range(20)]
    topics = (TRANSPORT, kvittering_topic(kit.oslo))
    records = [log.transport(one.transport("AKSEPTERT")) for one in soknader]
    records += [log.kvittering(oslo.issue(one)) for one in soknader]
    records.append(log.put(TRANSPORT, b"\xff\x00", b"", headers=(("æ", b"\xff"), ("", b""))))
    with Buckets(tmp_path, 4, topics) as buckets:
        for record in records:
            buckets.add(record)
    back = [list(read_bucket(path, topics)) for path in buckets.paths]
    assert sorted((one for some in back for one in some), key=repr) == sorted(records, key=repr)
    assert all(
        len({at for at, some in enumerate(back) for one in some if one.key == key}) == 1 for key in _keys(records)
    )
    assert sum(bool(some) for some in back) > 1


def _keys(records: list[Any]) -> set[bytes]:
    return {record.key for record in records}


def test_a_soknads_records_keep_the_order_in_which_they_were_read(kit: Any, tmp_path: Path) -> None:
    log, soknad = kit.log(), kit.soknad()
    records = [log.transport(soknad.transport(kind)) for kind in ("AKSEPTERT", "SENDT", "BEKREFTET")]
    with Buckets(tmp_path, 3, [TRANSPORT]) as buckets:
        for record in records:
            buckets.add(record)
    assert [one for path in buckets.paths for one in read_bucket(path, [TRANSPORT])] == records


def test_the_files_are_their_owners_alone_and_never_somebody_elses(tmp_path: Path) -> None:
    with Buckets(tmp_path, 2, [TRANSPORT]) as buckets:
        assert {stat.S_IMODE(path.stat().st_mode) for path in buckets.paths} == {0o600}
    with pytest.raises(FileExistsError), Buckets(tmp_path, 2, [TRANSPORT]):
        pass


@pytest.mark.parametrize(
    ("records", "count"), [(0, 1), (1, 1), (RECORDS_EACH, 1), (RECORDS_EACH + 1, 2), (10**9, MAX_BUCKETS)]
)
def test_there_are_as_many_files_as_records_need_and_never_too_many(records: int, count: int) -> None:
    assert bucket_count(records) == count
