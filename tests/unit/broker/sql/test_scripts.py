from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.sql.scripts import statements


@given(st.lists(st.sampled_from(["CREATE TABLE a (x TEXT DEFAULT ';')", "SELECT 1", "SELECT '\n;'"]), min_size=1))
def test_a_script_falls_into_the_statements_that_it_was_made_of(parts: list[str]) -> None:
    assert statements(";\n".join(parts) + ";") == [part + ";" for part in parts]


def test_a_script_that_ends_in_the_middle_is_refused() -> None:
    with pytest.raises(ValueError, match="middle"):
        statements("CREATE TABLE a (x TEXT")
