"""Every store's own tests hold on a real PostgreSQL too.

The stores beside those with a suite of their own here (``test_*_store.py``) are many and small. Their unit tests are the suite:
they are run once more, in a process where every database file is a database on a server.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "tests" / "unit"
EDGES = ("producers", "consumers", "kvittering")
SQL = re.compile(r"\.execute(?:many)?\(")

TRIED_BY = {
    "consumers/chain_rows": "consumers/test_dedup.py",
    "kvittering/bulk_store": "kvittering/test_rebuild.py",
    "kvittering/rows": "kvittering/test_store.py",
    "kvittering/taking_in": "kvittering/test_applier.py",
    "producers/eskalering_rows": "producers/test_eskalering.py",
    "producers/outbox_rows": "producers/test_relay.py",
    "producers/picking": "producers/test_relay.py",
    "producers/recall_rows": "producers/test_recall.py",
}
"""Modules with SQL whose tests are another module's."""

_DESTROYED = (
    "producers/test_kvittering_follower.py::"
    "test_so_is_one_that_was_destroyed_for_another_reason_also_when_the_process_ended_in_between"
)
OF_A_FILE_ALONE = {
    "consumers/test_dedup.py::test_a_file_that_is_no_database_is_refused": "it is about a file",
    "kvittering/test_fristlager.py::test_the_lists_that_are_read_each_second_use_an_index": "asks for SQLite's own plan",
    "kvittering/test_store.py::test_a_second_process_is_refused_the_file_of_the_first_and_may_read_it": "about a file",
    "kvittering/test_store.py::test_the_file_is_its_owners_alone": "it is about a file",
    "producers/test_avsenderkopi.py::test_a_destroyed_key_is_in_no_file_of_the_database": "a server scrubs in its own time",
    "producers/test_kvittering_follower.py::test_its_key_is_in_no_file_of_the_database_soon_after": "as above",
    f"{_DESTROYED}[False]": "as above",
    f"{_DESTROYED}[True]": "as above",
    "producers/test_leases.py::test_the_databases_own_clock_is_milliseconds_of_now": "asks each database for itself",
    "producers/test_outbox.py::test_messages_of_before_there_were_buckets_get_theirs": "inserts by SQLite's own literals",
    "producers/test_outbox.py::test_one_that_has_lost_its_lease_removes_nothing": "asks SQLite for the time",
}
"""Tests that say something about SQLite, and why."""


def modules_with_sql() -> list[str]:
    found = [path for edge in EDGES for path in (ROOT / edge).rglob("*.py") if SQL.search(path.read_text("utf-8"))]
    return sorted(str(path.relative_to(ROOT).with_suffix("")) for path in found)


def suite_of(module: str) -> Path:
    folder, name = module.rsplit("/", 1)
    return UNIT / TRIED_BY.get(module, f"{folder}/test_{name}.py")


@pytest.mark.parametrize("module", modules_with_sql())
def test_every_module_with_sql_is_tried(module: str) -> None:
    assert suite_of(module).exists(), f"which tests try {module} on PostgreSQL?"


@pytest.mark.usefixtures("postgres_server")
@pytest.mark.timeout(600)
def test_every_stores_own_tests_hold_on_a_server() -> None:
    tests = {str(path) for each in modules_with_sql() if (path := suite_of(each)).exists()}
    left_out = [f"--deselect={UNIT.relative_to(ROOT)}/{test}" for test in OF_A_FILE_ALONE]
    python_path = os.pathsep.join([str(ROOT / "tests" / "support"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [
            sys.executable,
            "-P",
            "-m",
            "pytest",
            "-q",
            "-p",
            "on_postgres",
            "-p",
            "no:cacheprovider",
            *left_out,
            *sorted(tests),
        ],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": python_path},
        capture_output=True,
        text=True,
        check=False,
    )
    summary = done.stdout[-6000:]
    assert done.returncode == 0, summary
    assert f"{len(OF_A_FILE_ALONE)} deselected" in summary, "a test that is left out here has another name now"
