from __future__ import annotations

from producers.relay_ports import BothGates, Closed


class Gate:
    """A gate over topics that a test opens and closes."""

    def __init__(self, *closed: str) -> None:
        self.names = set(closed)
        self.version = 0

    def closed(self, topic: str) -> bool:
        return topic in self.names

    def open(self, topic: str) -> None:
        self.names.discard(topic)
        self.version += 1


def test_two_gates_are_closed_when_one_of_them_is() -> None:
    first, second = Gate("a"), Gate("b")
    both = BothGates(first, second)
    assert [both.closed(name) for name in "abc"] == [True, True, False]
    version = both.version
    second.open("b")
    assert both.version != version
    held = Closed({"x"}, both)
    assert [name in held for name in "xab"] == [True, True, False]
