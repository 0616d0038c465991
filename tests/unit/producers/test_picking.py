from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producers.database import MIGRATIONS
from producers.picking import PAGE, Bounds, Picked, pick
from producers.sharing import bucket_of
from schemas.names import DigisosId

TRANSPORT = "transport"


def digisos(nr: int) -> DigisosId:
    return DigisosId(f"00000000-0000-4000-8000-{nr:012x}")


class Rows:
    """An outbox in memory; counts what is read of it."""

    def __init__(self) -> None:
        self.connection = sqlite3.connect(":memory:")
        for script in MIGRATIONS:
            self.connection.executescript(script)
        self.statements: list[str] = []

    def put(self, nr: int, topic: str = TRANSPORT, size: int = 10) -> int:
        found = self.connection.execute(
            "INSERT INTO utboks (digisos_id, melding_id, kommunenummer, nav_ekstern_ref_id, type, topic, lagt_ms, storrelse,"
            " headere, verdi, botte) VALUES (?, 'm', '0301', 'r', 'T', ?, 0, ?, '[]', x'', ?) RETURNING nr",
            (digisos(nr), topic, size, bucket_of(digisos(nr))),
        ).fetchone()
        return int(found[0])

    def remove(self, *places: int) -> None:
        self.connection.executemany("DELETE FROM utboks WHERE nr = ?", [(place,) for place in places])

    def pick(self, bounds: Bounds) -> Picked:
        return pick(self.connection, bounds)


@pytest.fixture
def rows() -> Iterator[Rows]:
    found = Rows()
    yield found
    found.connection.close()


def test_the_oldest_comes_first_with_all_that_it_has(rows: Rows) -> None:
    places = [rows.put(nr) for nr in (1, 2, 1, 3)]
    assert rows.pick(Bounds()).runs == [[places[0], places[2]], [places[1]], [places[3]]]
    assert rows.pick(Bounds(max_runs=1)).runs == [[places[0]]]  # the next one's row comes before its second
    assert rows.pick(Bounds(busy=[digisos(1)])).runs == [[places[1]], [places[3]]]
    assert rows.pick(Bounds(stuck=[digisos(2)])).runs == [[places[0], places[2]], [places[3]]]


def test_a_topic_on_trial_gets_one_digisos_id(rows: Rows) -> None:
    first, second, behind, other = (
        rows.put(1, "k"), rows.put(1, "k"), rows.put(2, "k"), rows.put(3, "annen"),
    )  # fmt: skip
    assert behind
    assert rows.pick(Bounds(single=["k"])).runs == [[first, second], [other]]


def test_only_our_buckets_are_looked_at(rows: Rows) -> None:
    places = {nr: rows.put(nr) for nr in (1, 2, 3)}
    ours = frozenset({bucket_of(digisos(1)), bucket_of(digisos(3))})
    assert rows.pick(Bounds(buckets=ours)).runs == [[places[1]], [places[3]]]


def test_what_nothing_can_be_done_about_is_not_looked_through_again(rows: Rows) -> None:
    blocked = [rows.put(nr, "k") for nr in range(3 * PAGE)]
    new = rows.put(9999)
    bounds = Bounds(held=["k"])
    first = rows.pick(bounds)
    assert first == Picked([[new]], blocked[-1])
    rows.remove(new)
    later = rows.put(9998)
    read: list[str] = []
    rows.connection.set_trace_callback(read.append)
    second = rows.pick(replace(bounds, after=first.after))
    assert second.runs == [[later]]
    assert len([sql for sql in read if "storrelse" in sql]) == 2  # its page, and the end


def test_few_that_are_blocked_are_not_worth_remembering(rows: Rows) -> None:
    rows.put(1, "k")
    new = rows.put(2)
    assert rows.pick(Bounds(held=["k"])) == Picked([[new]], 0)


def test_nothing_overtakes_what_was_passed_over_before(rows: Rows) -> None:
    blocked = [rows.put(nr, "k") for nr in range(PAGE + 1)]
    after = rows.pick(Bounds(held=["k"])).after
    assert after == blocked[-1]
    rows.put(7)  # of one that waits
    new = rows.put(8888)
    assert rows.pick(Bounds(held=["k"], after=after)).runs == [[new]]


def test_what_is_under_way_is_never_passed_over(rows: Rows) -> None:
    busy = rows.put(5000)
    blocked = [rows.put(nr, "k") for nr in range(PAGE + 1)]
    assert rows.pick(Bounds(held=["k"], busy=[digisos(5000)])).after == 0
    rows.remove(busy)
    assert rows.pick(Bounds(held=["k"])).after == blocked[-1]


@pytest.mark.parametrize("count", [100, 5_000])
def test_a_round_reads_as_much_of_a_long_outbox_as_of_a_short_one(rows: Rows, count: int) -> None:
    for nr in range(count):
        rows.put(nr)
    read: list[str] = []
    rows.connection.set_trace_callback(read.append)
    assert len(rows.pick(Bounds(max_runs=50)).runs) == 50
    assert len(read) == 1
    plan = " ".join(str(row[3]) for row in rows.connection.execute(f"EXPLAIN QUERY PLAN {read[0]}").fetchall())
    assert "USING INTEGER PRIMARY KEY" in plan
    assert "TEMP B-TREE" not in plan


MESSAGES = st.lists(st.tuples(st.integers(0, 6), st.sampled_from([TRANSPORT, "a", "b"])), max_size=30)


@settings(max_examples=150, deadline=None)
@given(
    MESSAGES,
    st.sets(st.sampled_from([TRANSPORT, "a", "b"])),
    st.sets(st.integers(0, 6)),
    st.data(),
)
def test_a_run_is_always_the_beginning_of_what_its_digisos_id_has(
    messages: list[tuple[int, str]], held: set[str], busy: set[int], data: Any
) -> None:
    rows = Rows()
    max_runs, max_bytes = data.draw(st.integers(1, 7)), data.draw(st.integers(1, 400))
    queues: dict[int, list[tuple[int, str]]] = {}
    for nr, topic in messages:
        queues.setdefault(nr, []).append((rows.put(nr, topic), topic))
    bounds = Bounds(
        busy=[digisos(nr) for nr in busy],
        held=held,
        max_runs=max_runs,
        max_bytes=max_bytes,
        after=data.draw(st.integers(0, len(messages))),
    )
    found = rows.pick(bounds)
    rows.connection.close()
    assert len(found.runs) <= max_runs
    of = {places[0][0]: nr for nr, places in queues.items()}
    for run in found.runs:
        queue = queues[of[run[0]]]  # a run begins with the oldest that the digisosId has
        assert run == [place for place, _ in queue[: len(run)]]
        assert of[run[0]] not in busy
        assert not held & {topic for _, topic in queue[: len(run)]}
    if not bounds.after and max_runs == 7 and max_bytes > 10 * len(messages):
        free = {nr for nr, queue in queues.items() if nr not in busy and queue[0][1] not in held}
        assert {of[run[0]] for run in found.runs} == free
