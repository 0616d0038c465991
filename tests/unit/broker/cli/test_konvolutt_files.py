from __future__ import annotations

import io
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from broker.cli import konvolutt_files
from broker.cli.konvolutt_files import progress

if TYPE_CHECKING:
    from conftest import Desk


def test_a_failure_while_writing_leaves_nothing_behind(desk: Desk) -> None:
    desk.put(desk.archive({"vedlegg": b"en fil", "vedlegg/hus.pdf": desk.PDF}))
    before = desk.everything()
    result = desk.open()
    assert result.exit_code == 1
    assert "kan ikke skrives" in desk.said(result)
    assert desk.everything() == before


def test_keeps_folders_inside_a_package(desk: Desk) -> None:
    desk.put(desk.archive({"vedlegg/hus.pdf": desk.PDF}))
    assert desk.open().exit_code == 0
    assert (desk / "ut/vedlegg/hus.pdf").read_bytes() == desk.PDF
    assert (desk / "ut/vedlegg").stat().st_mode & 0o777 == 0o700


def test_fills_an_empty_folder(desk: Desk) -> None:
    desk.seal()
    (desk / "ut").mkdir()
    assert desk.open().exit_code == 0


def test_refuses_a_folder_that_is_not_empty(desk: Desk) -> None:
    desk.seal()
    (desk / "ut").mkdir()
    (desk / "ut/mitt").write_bytes(b"mitt")
    result = desk.open()
    assert result.exit_code == 1
    assert "er ikke tom" in desk.said(result)
    assert [path.name for path in (desk / "ut").iterdir()] == ["mitt"]


def test_refuses_a_folder_in_a_folder_that_does_not_exist(desk: Desk) -> None:
    result = desk.run(
        *("open", "--nokkel", desk / "kommune.key", "--rot", desk / "ca.pem"),
        *("--mappe", desk / "ikke/her", desk / "pakke.cms"),
    )
    assert result.exit_code == 1
    assert "lag den først" in desk.said(result)


def test_being_stopped_leaves_nothing_behind(desk: Desk) -> None:
    before = desk.everything()
    command = [sys.executable, "-m", "broker.cli", "konvolutt", "seal", "--bare"]
    command += ["--mottaker", str(desk / "kommune.pem"), "--ut", str(desk / "pakke.cms"), "-"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        wait_for(lambda: desk.everything() != before)
        child.send_signal(signal.SIGTERM)
        child.communicate()
    assert child.returncode == 143
    assert desk.everything() == before


def test_a_large_file_takes_little_memory(desk: Desk) -> None:
    size = 96 * 1024 * 1024
    with (desk / "stor.bin").open("wb") as file:
        file.truncate(size)
    seal_options = ["seal", "--bare", "--mottaker", desk / "kommune.pem", "--ut", desk / "stor.cms"]
    open_options = ["open", "--bare", "--nokkel", desk / "kommune.key", "--ut", desk / "stor.ut"]
    idle = peak_kib("inspect", desk / "soknad.json")
    assert peak_kib(*seal_options, desk / "stor.bin") - idle < 32 * 1024
    assert peak_kib(*open_options, desk / "stor.cms") - idle < 32 * 1024
    assert (desk / "stor.ut").stat().st_size == size


@pytest.mark.parametrize(("total", "shown"), [(20_000_000, True), (9_000_000, False)])
def test_is_shown_for_large_files(monkeypatch: pytest.MonkeyPatch, total: int, *, shown: bool) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(konvolutt_files, "errors", Console(file=screen, force_terminal=True, width=100))
    with progress("leser", total) as advance:
        advance(total // 2)
    assert ("leser" in screen.getvalue()) is shown


def test_is_not_shown_to_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(konvolutt_files, "errors", Console(file=screen, force_terminal=False))
    with progress("leser", 20_000_000) as advance:
        advance(10_000_000)
    assert screen.getvalue() == ""


def peak_kib(*arguments: object) -> int:
    """Return the largest resident size of a run, in KiB."""
    program = (
        "import resource, sys; from broker.cli.main import app\n"
        "try: app()\n"
        "except SystemExit: pass\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"
    )
    command = [sys.executable, "-c", program, "konvolutt", *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, check=True)
    return int(result.stderr.split()[-1])


def wait_for(condition: Callable[[], bool], *, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
