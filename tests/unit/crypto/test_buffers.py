from __future__ import annotations

from crypto import buffers


def test_a_buffer_is_as_large_as_asked_for_and_comes_back() -> None:
    buffer = buffers.borrow(1000)
    assert len(buffer) >= 1000
    buffers.give_back(buffer)
    assert buffers.borrow(10) is buffer


def test_what_is_too_large_is_not_kept() -> None:
    buffer = bytearray(buffers.MAX_SPARE_BYTES + 1)
    buffers.give_back(buffer)
    assert buffers.borrow(10) is not buffer
