from __future__ import annotations

import asyncio
import os
import signal
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from patience import until
from structlog.testing import capture_logs

from broker.runtime import SUPERVISED_ENV
from broker.supervisor import children
from broker.supervisor.children import FIRST_PAUSE_S, LONGEST_PAUSE_S, STEADY_AFTER_S, Child, next_pause
from schemas.errors import ConfigurationError


@pytest.mark.parametrize(
    ("previous", "lived", "pause"),
    [
        (0.0, 0.1, FIRST_PAUSE_S),
        (0.5, 0.1, 1.0),
        (1.0, 59.0, 2.0),
        (16.0, 1.0, LONGEST_PAUSE_S),
        (30.0, 1.0, LONGEST_PAUSE_S),
        (30.0, STEADY_AFTER_S, FIRST_PAUSE_S),
    ],
)
def test_the_pause_doubles_to_a_limit_and_begins_anew_after_a_steady_life(
    previous: float, lived: float, pause: float
) -> None:
    assert next_pause(previous, lived) == pause


@pytest.fixture
async def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Callable[..., Any]]:
    """Return a function that runs a program as a child; what still runs afterwards is stopped."""
    monkeypatch.setattr(children, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(children, "LONGEST_PAUSE_S", 0.01)
    started: list[tuple[Child, asyncio.Task[None]]] = []

    def start(program: str, **environment: str) -> tuple[Child, asyncio.Task[None], Path]:
        number = len(started)
        (tmp_path / f"barn{number}.py").write_text(program, "utf-8")
        log = tmp_path / f"barn{number}.log"
        child = Child(f"barn{number}", f"barn{number}", {"PYTHONPATH": str(tmp_path), **environment}, log)
        task = asyncio.create_task(child.run())
        started.append((child, task))
        return child, task, log

    yield start
    for child, task in started:
        await child.stop()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_child_writes_to_its_log_and_knows_its_supervisor(start: Any) -> None:
    child, _, log = start(
        f"import os, signal, sys\nprint(os.environ[{SUPERVISED_ENV!r}], flush=True)\n"
        "print('err', file=sys.stderr, flush=True)\nsignal.pause()\n"
    )
    await until(lambda: "err" in log.read_text() if log.exists() else False)
    assert str(os.getpid()) in log.read_text()
    assert child.restarts == 0


async def test_a_childs_log_is_for_its_owner_alone(start: Any, tmp_path: Path) -> None:
    earlier = tmp_path / "barn0.log"
    earlier.touch(0o644)
    _, _, log = start("import signal\nprint('x', flush=True)\nsignal.pause()\n")
    await until(lambda: "x" in log.read_text())
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


async def test_a_child_that_cannot_be_started_is_tried_again(start: Any, tmp_path: Path) -> None:
    log = tmp_path / "barn0.log"
    log.mkdir()  # as with a full disk: the log cannot be opened
    child, task, _ = start("import signal\nsignal.pause()\n")
    with capture_logs() as logs:
        await until(lambda: child.restarts >= 2)
    assert "child_not_started" in {line["event"] for line in logs}
    assert not task.done()
    log.rmdir()
    await until(lambda: child.pid)


async def test_nothing_of_our_environment_reaches_a_child_but_what_it_needs(
    start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEMMELIG", "verdi")
    _, _, log = start("import os\nprint(sorted(os.environ), flush=True)\n", FORMIDLER_X="1")
    await until(lambda: log.exists() and log.read_text())
    assert "FORMIDLER_X" in log.read_text()
    assert "HEMMELIG" not in log.read_text()


async def test_a_child_that_dies_is_started_again(start: Any) -> None:
    child, _, log = start("import os\nprint(os.getpid(), flush=True)\nos._exit(9)\n")
    with capture_logs() as logs:
        await until(lambda: child.restarts >= 3)
    assert len(set(log.read_text().split())) >= 3
    assert {line["exit_code"] for line in logs if line["event"] == "child_ended"} == {9}


async def test_each_life_of_a_child_has_an_id_of_its_own(start: Any) -> None:
    child, _, log = start("import os\nprint(os.environ['FORMIDLER_INSTANS'], flush=True)\nos._exit(9)\n")
    await until(lambda: child.restarts >= 3)
    seen = log.read_text().split()
    assert len(seen) == len(set(seen)) >= 3
    assert child.instance


async def test_a_child_that_is_killed_is_started_again(start: Any) -> None:
    child, _, _ = start("import signal\nsignal.pause()\n")
    await until(lambda: child.pid)
    first = child.pid
    os.kill(first, signal.SIGKILL)
    await until(lambda: child.pid not in {None, first})
    assert child.restarts == 1


async def test_a_wrong_setting_is_not_tried_again_and_is_told(start: Any) -> None:
    child, task, _ = start("import sys\nprint('FORMIDLER_X mangler')\nsys.exit(78)\n")
    with pytest.raises(ConfigurationError, match=r"barn0.*FORMIDLER_X mangler"):
        await task
    assert child.restarts == 0


async def test_a_child_is_asked_to_stop_and_may_end_in_order(start: Any) -> None:
    child, task, log = start(
        "import signal, sys\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('i orden', flush=True), sys.exit(0)))\n"
        "print('klar', flush=True)\nwhile True: signal.pause()\n"
    )
    await until(lambda: log.exists() and "klar" in log.read_text())
    await child.stop()
    await task
    assert "i orden" in log.read_text()
    assert child.pid is None
    assert child.restarts == 0


async def test_a_child_that_will_not_stop_is_killed(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "STOP_GRACE_S", 0.1)
    child, task, log = start(
        "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('klar', flush=True)\n"
        "while True: signal.pause()\n"
    )
    await until(lambda: log.exists() and "klar" in log.read_text())
    with capture_logs() as logs:
        await child.stop()
    await task
    assert child.pid is None
    assert [line["event"] for line in logs] == ["child_killed"]


async def test_a_child_that_is_between_two_lives_can_be_stopped(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "FIRST_PAUSE_S", 3600.0)
    child, task, _ = start("import os\nos._exit(1)\n")
    await until(lambda: child.restarts == 1)
    await child.stop()
    async with asyncio.timeout(5):
        await task


async def test_a_stop_while_the_child_is_being_started_is_not_lost(start: Any) -> None:
    child, task, _ = start("import signal\nsignal.pause()\n")
    await asyncio.sleep(0)  # the task has begun, the process has not
    await child.stop()
    async with asyncio.timeout(10):
        await task
    assert child.pid is None


async def test_a_signal_to_our_terminal_does_not_reach_a_child(start: Any) -> None:
    child, _, _ = start("import signal\nsignal.pause()\n")
    await until(lambda: child.pid)
    assert os.getpgid(child.pid) != os.getpgid(0)
