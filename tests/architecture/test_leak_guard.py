"""The guard in ``tests/conftest.py`` finds what is planted, in a run of pytest of its own with that very guard."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.klartekst("repeats the output of a run that leaks")

PREPARE = """
import logging
import sqlite3
from random import Random
import pytest
from schemas.errors import ConfigurationError
from schemas.examples import ETTERNAVN, synthetic_fodselsnummer
NAME = ETTERNAVN[-1]
PERSON = synthetic_fodselsnummer(Random(7))
"""

LEAKING = """
def test_prints_a_name():
    print(NAME)

def test_logs_a_name():
    logging.getLogger("x").warning("who is %s", NAME)

def test_prints_a_number_like_a_person():
    print(f"person {PERSON}.")

def test_prints_a_number_that_only_a_test_knows():
    print("11111" + "222222")
KNOWN = "11111222222"

def test_puts_a_name_in_an_error():
    with pytest.raises(ConfigurationError):
        raise ConfigurationError(f"who is {NAME}")

def test_writes_a_database(tmp_path):
    database = sqlite3.connect(tmp_path / "x.any")
    database.execute("create table t (a text)")
    database.execute("insert into t values (?)", (PERSON,))
    database.commit()
    database.close()

def test_writes_to_a_topic(tmp_path):
    (tmp_path / "00000.log").write_bytes(b"\\0" + NAME.encode())

def test_writes_over_the_edge_of_a_window(tmp_path):
    (tmp_path / "edge.log").write_bytes(b"x" * (8 * 1024 * 1024 - 3) + NAME.encode())

def test_writes_a_package_in_clear(tmp_path):
    (tmp_path / "dokumentlager").mkdir()
    (tmp_path / "dokumentlager" / "a").write_bytes(NAME.encode())
"""

FINDINGS = [
    "*::test_prints_a_name (call) printed: navn",
    "*::test_logs_a_name (call) printed: navn",
    "*::test_prints_a_number_like_a_person (call) printed: fødselsnummer",
    "*::test_prints_a_number_that_only_a_test_knows (call) printed: fødselsnummer",
    "text of ConfigurationError: navn",
    "test_writes_a_database*/x.any: fødselsnummer",
    "test_writes_to_a_topic*/00000.log: navn",
    "test_writes_over_the_edge_of_a*/edge.log: navn",
    "test_writes_a_package_in_clear*/dokumentlager/a: navn",
]

CLEAN = """
def test_prints_an_ordinary_number():
    print("offset 12345678901 of 1")

def test_keeps_plaintext_at_the_fagsystem(tmp_path):
    (tmp_path / "soknad.json").write_text(NAME + PERSON)

@pytest.mark.klartekst("shows the danger")
def test_shows_plaintext_on_purpose():
    print(NAME)

def test_makes_an_error_without_values():
    with pytest.raises(ConfigurationError):
        raise ConfigurationError("a setting is missing")
"""


@pytest.fixture
def run(pytester: pytest.Pytester) -> Iterator[pytest.Pytester]:
    pytester.makeconftest((Path(__file__).parents[1] / "conftest.py").read_text("utf-8"))
    pytester.makeini("[pytest]\naddopts = -p no:cacheprovider -p no:asyncio")
    yield pytester
    # What it planted lies below our own temporary folder, where the guard of this run would find it.
    shutil.rmtree(pytester.path, ignore_errors=True)


def test_the_guard_fails_the_run_and_names_every_place(run: pytest.Pytester) -> None:
    run.makepyfile(PREPARE + LEAKING)
    result = run.runpytest_subprocess("--basetemp", str(run.path / "temp"))
    result.assert_outcomes(passed=LEAKING.count("def test_"), errors=1)
    for finding in FINDINGS:
        result.stdout.fnmatch_lines([finding])


def test_the_guard_never_repeats_what_it_found_in_a_file(run: pytest.Pytester) -> None:
    run.makepyfile(PREPARE + LEAKING[LEAKING.index("def test_writes_a_database") :])
    result = run.runpytest_subprocess("--basetemp", str(run.path / "temp"))
    result.assert_outcomes(passed=4, errors=1)
    result.stdout.no_fnmatch_line("*Vaffeljernstuen*")


def test_the_guard_lets_plaintext_be_where_it_is_right(run: pytest.Pytester) -> None:
    run.makepyfile(PREPARE + CLEAN)
    result = run.runpytest_subprocess("--basetemp", str(run.path / "temp"))
    result.assert_outcomes(passed=CLEAN.count("def test_"))
