from __future__ import annotations

from producers.holds import Hold, Holds


def test_a_hold_grows_with_each_failure_and_remembers_since_when() -> None:
    holds: Holds[str] = Holds(lambda: 0.0)
    first = holds.fail("k", "kode", 10.0)
    assert isinstance(first, Hold)
    assert holds.fail("k", "kode", first.until - 0.001) is None  # somebody else who was under way
    second = holds.fail("k", "kode", first.until)
    assert second is not None
    assert (second.failures, second.since) == (2, 10.0)
    assert second.until - first.until > first.until - 10.0 or second.until > first.until
    assert holds.closed(first.until) == {"k"}
    assert holds.on_trial(second.until) == {"k"}
    assert holds.next_until(second.until) is None
    assert holds.clear("k")
    assert not holds.clear("k")
    assert len(holds) == 0
