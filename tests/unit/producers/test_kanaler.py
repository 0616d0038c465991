from __future__ import annotations

import pytest

from producers.kanaler import CLOSES, Next, next_channel


@pytest.mark.parametrize(
    ("channels", "after", "available", "expected"),
    [
        (("KAFKA", "PRINT"), "KAFKA", {"PRINT"}, Next((), "PRINT")),
        (("KAFKA", "SVARINN", "PRINT"), "KAFKA", {"PRINT"}, Next(("SVARINN",), "PRINT")),
        (("KAFKA", "SVARINN", "PRINT"), "SVARINN", {"PRINT"}, Next((), "PRINT")),
        (("KAFKA", "SVARINN"), "KAFKA", {"PRINT"}, Next(("SVARINN",), None)),
        (("KAFKA", "PRINT"), "PRINT", {"PRINT"}, Next((), None)),
        (("KAFKA",), "KAFKA", {"PRINT"}, Next((), None)),
        (("PRINT", "KAFKA"), "KAFKA", {"PRINT"}, Next((), None)),
        (("SVARINN", "PRINT"), "KAFKA", {"PRINT"}, Next(("SVARINN",), "PRINT")),
    ],
)
def test_the_next_channel_is_the_katalogs_next_that_is_built(
    channels: tuple[str, ...], after: str, available: set[str], expected: Next
) -> None:
    assert next_channel(channels, after, available) == expected


def test_print_closes_with_a_receipt_of_its_own() -> None:
    assert dict(CLOSES) == {"PRINT": "UTSKREVET"}
