from __future__ import annotations

import dataclasses

import pytest

from crypto import Limits
from crypto.limits import MIB


def test_a_soknad_of_150_mb_is_within_the_limits() -> None:
    limits = Limits()

    assert min(limits.max_package_bytes, limits.max_total_bytes, limits.max_file_bytes) > 150 * MIB


def test_limits_do_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Limits().max_files = 5  # type: ignore[misc]  # the point of the test
