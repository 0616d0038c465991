"""What holds for the whole run: nothing that names a person is left behind anywhere.

Every test takes part without asking. At the end of the run the guard searches

* what every test printed and logged, and the texts of all our own errors that were made on the way;
* under pytest's temporary folder: SQLite databases and their journals, Kafka's segments and all logs (``*.log``,
  ``*.jsonl``), and whatever lies in a folder named ``dokumentlager`` or ``logg``,

for the invented names of ``schemas.examples`` (nobody bears them and no text holds them by chance), for fødselsnummer of
the kind that they come with (80 added to the month, control digits right), and for every string of eleven digits that a
test's source holds. So a test plants by using ``schemas.examples``, and joins by keeping its files under ``tmp_path``.

Plaintext is right in two places: at the fagsystem, whose folders the guard does not open, and where a test shows what
must not happen. Such a test says so: ``@pytest.mark.klartekst("why")`` takes its output and its errors out of the search.

A finding names the place and the kind, never the value. ``tests/architecture/test_leak_guard.py`` proves that it finds.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from hypothesis import settings

from schemas.errors import MeldingsformidlerError
from schemas.examples import ETTERNAVN, FORNAVN

if TYPE_CHECKING:
    from postgres import PostgresServer

pytest_plugins = ["pytester"]

# A shared machine is slow now and then, which says nothing about the code; in CI the same examples are tried every time.
settings.register_profile("here", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")

_SEARCHED_SUFFIXES = {".log", ".jsonl"}
_SEARCHED_FOLDERS = {"dokumentlager", "logg"}
_SQLITE = b"SQLite format 3\0"
_WINDOW_BYTES = 8 * 1024 * 1024
_OVERLAP_BYTES = 256

_SYNTHETIC = re.compile(rb"(?<![0-9])[0-3][0-9](?:8[1-9]|9[0-2])[0-9]{7}(?![0-9])")
_WEIGHTS = ((3, 7, 6, 1, 8, 9, 4, 5, 2, 1), (5, 4, 3, 2, 7, 6, 5, 4, 3, 2, 1))


def _has_control_digits(digits: bytes) -> bool:
    numbers = [digit - ord("0") for digit in digits]
    return all(sum(w * n for w, n in zip(weights, numbers, strict=False)) % 11 == 0 for weights in _WEIGHTS)


class LeakGuard:
    """Collects what the run leaves behind, and searches it."""

    def __init__(self, test_folder: Path) -> None:
        self._needles = {form for name in (*FORNAVN, *ETTERNAVN) for form in _forms(name)}
        self._numbers = {
            number.encode()
            for path in test_folder.rglob("*.py")
            for number in re.findall(r'(?<=["\'])[0-9]{11}(?=["\'])', path.read_text("utf-8"))
        }
        self.findings: list[str] = []
        self.searched_files = 0
        self.exempt = False

    def search(self, data: bytes, place: str) -> None:
        """Note what ``data`` shows."""
        if any(needle in data for needle in self._needles):
            self.findings.append(f"{place}: navn")
        if any(number in data for number in self._numbers) or any(map(_has_control_digits, _SYNTHETIC.findall(data))):
            self.findings.append(f"{place}: fødselsnummer")

    def search_files(self, folder: Path) -> None:
        """Search the files below ``folder`` that may hold no plaintext."""
        for path in sorted(folder.rglob("*")):
            if not path.is_symlink() and path.is_file() and _is_searched(path, folder):
                self._search_file(path, folder)

    def search_everything(self, folder: Path) -> None:
        """Search all files below ``folder``."""
        for path in sorted(folder.rglob("*")):
            if not path.is_symlink() and path.is_file():
                self._search_file(path, folder)

    def _search_file(self, path: Path, folder: Path) -> None:
        self.searched_files += 1
        for window in _windows(path):
            self.search(window, str(path.relative_to(folder)))


def _forms(name: str) -> Iterable[bytes]:
    escaped = "".join(c if c.isascii() else f"\\u{ord(c):04x}" for c in name)
    return {name.encode(), name.encode("latin-1"), name.encode("utf-16-le"), escaped.encode()}


def _is_searched(path: Path, root: Path) -> bool:
    if path.suffix in _SEARCHED_SUFFIXES or path.name.endswith(("-wal", "-journal")):
        return True
    if _SEARCHED_FOLDERS & set(path.relative_to(root).parts[:-1]):
        return True
    with path.open("rb") as file:
        return file.read(len(_SQLITE)) == _SQLITE


def _windows(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        tail = b""
        while block := file.read(_WINDOW_BYTES):
            yield tail + block
            tail = block[-_OVERLAP_BYTES:]


_GUARD = pytest.StashKey[LeakGuard]()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "klartekst(why): shows plaintext on purpose; its output is not searched")
    config.stash[_GUARD] = LeakGuard(Path(__file__).parent)


def pytest_runtest_setup(item: pytest.Item) -> None:
    item.config.stash[_GUARD].exempt = item.get_closest_marker("klartekst") is not None


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    outcome: Any = yield
    report: pytest.TestReport = outcome.get_result()
    guard = item.config.stash[_GUARD]
    if not guard.exempt:
        printed = "\n".join(text for _, text in report.sections)
        guard.search(printed.encode("utf-8", "replace"), f"{item.nodeid} ({report.when}) printed")


@pytest.fixture(scope="session", autouse=True)
def leak_guard(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LeakGuard]:
    """Watch the run; set up before any other fixture of the session, so that it is the last to end."""
    guard = request.config.stash[_GUARD]
    with pytest.MonkeyPatch.context() as patch:
        original = MeldingsformidlerError.__init__

        def noted(self: MeldingsformidlerError, *args: object) -> None:
            original(self, *args)
            if not guard.exempt:
                guard.search(str(self).encode("utf-8", "replace"), f"text of {type(self).__name__}")

        patch.setattr(MeldingsformidlerError, "__init__", noted)
        yield guard
    guard.search_files(tmp_path_factory.getbasetemp())
    if guard.findings:
        pytest.fail("personal data left behind:\n" + "\n".join(sorted(set(guard.findings))), pytrace=False)


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """Leave no test with the logging that another one set up."""
    before = structlog.get_config()
    yield
    if structlog.get_config() != before:
        structlog.configure(**before)


@pytest.fixture(scope="session")
def postgres_server(leak_guard: LeakGuard) -> Iterator[PostgresServer]:
    """Start a PostgreSQL once for the run; where it cannot be had, a test is skipped, but never in CI."""
    from postgres import PostgresMissingError, PostgresServer  # noqa: PLC0415 - this file is also run alone, as a guard

    try:
        server = PostgresServer().__enter__()
    except PostgresMissingError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    try:
        yield server
    finally:
        server.stop()
        for folder in server.writings():
            leak_guard.search_everything(folder)
        server.__exit__()


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """Return the URL of a fresh database."""
    name = postgres_server.new_database()
    yield postgres_server.url(name)
    postgres_server.drop(name)


@pytest.fixture(params=["sqlite", "postgres"])
def database_place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return where a database may be made, once for each kind that we have."""
    if request.param == "sqlite":
        return str(tmp_path / "lager.sqlite")
    return str(request.getfixturevalue("postgres_url"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    guard = config.stash[_GUARD]
    places = len(set(guard.findings))
    terminalreporter.write_line(f"leak guard: {guard.searched_files} files and all output searched, {places} findings")
