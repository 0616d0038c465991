from __future__ import annotations

import pytest

from producers.versions import known_version, parse_version
from schemas.errors import RefusedError


@pytest.mark.parametrize("text", ["1", "2026.11.23-a1b2c3", "soknadsdialog 4.2", "x" * 64, "~!", "0123456789"])
def test_a_version_is_printable_ascii_of_at_most_64(text: str) -> None:
    assert parse_version(text) == text


@pytest.mark.parametrize(
    "text", ["", " ", " 1", "1 ", "x" * 65, "é", "a\nb", "a\tb", "12345678901", "v12345678901", "123456 78901"]
)
def test_whatever_else_is_refused_and_never_repeated(text: str) -> None:
    assert known_version(text) is None
    with pytest.raises(RefusedError) as refused:
        parse_version(text)
    assert (refused.value.status, refused.value.reason) == (400, "versjon")
    assert not text.strip() or text not in refused.value.message or len(text) < 3
