from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from broker.runtime import EXIT_CONFIGURATION, EXIT_FAILED, SUPERVISED_ENV, first_of_ours, leaves, run_command
from schemas.errors import BrokerUnavailableError, ConfigurationError


def run(body: str, **environment: str) -> tuple[int, list[dict[str, Any]], str]:
    """Run ``async def main(stop)`` with ``body`` as a process of its own; return exit code, log and standard error."""
    program = "import asyncio, os, signal, sys\nfrom broker.runtime import run_process\nfrom schemas.errors import *\n"
    program += "async def main(stop):\n" + textwrap.indent(textwrap.dedent(body), "    ")
    program += "\nsys.exit(run_process('prove', main))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={**os.environ, **environment},
    )
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def test_a_clean_end_is_exit_code_zero_and_two_lines() -> None:
    code, log, _ = run("pass")
    assert code == 0
    assert [line["event"] for line in log] == ["process_started", "process_stopped"]
    assert {line["prosess"] for line in log} == {"prove"}


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_asks_the_process_to_stop_in_order(name: str) -> None:
    code, log, _ = run(f"os.kill(os.getpid(), signal.{name})\nawait stop.wait()")
    assert code == 0
    assert log[-1]["event"] == "process_stopped"


@pytest.mark.parametrize(("body", "wanted"), [("pass", 0), ("raise ConfigurationError('x')", EXIT_CONFIGURATION)])
def test_a_full_disk_under_the_log_changes_nothing_about_how_a_process_ends(body: str, wanted: int) -> None:
    program = (
        "import sys\nfrom broker.runtime import run_process\nfrom schemas.errors import ConfigurationError\n"
        f"async def main(stop):\n    {body}\nsys.exit(run_process('prove', main))"
    )
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run([sys.executable, "-c", program], stdout=full, stderr=full, timeout=30, check=False)
    assert done.returncode == wanted


def test_a_wrong_setting_has_an_exit_code_of_its_own_and_says_what_it_is() -> None:
    code, log, error = run("raise ConfigurationError('FORMIDLER_X mangler')")
    assert code == EXIT_CONFIGURATION
    assert (log[-1]["event"], log[-1]["kode"]) == ("process_failed", "oppsett")
    assert error == "prove: FORMIDLER_X mangler\n"


def test_an_error_of_ours_is_found_inside_a_task_group() -> None:
    code, log, error = run(
        """
        async def fails():
            raise BrokerUnavailableError("Kafka svarer ikke")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(fails())
        """
    )
    assert code == EXIT_FAILED
    assert log[-1]["kode"] == BrokerUnavailableError.code
    assert error == "prove: Kafka svarer ikke\n"


def test_a_crash_is_told_by_class_and_place_and_never_by_text() -> None:
    code, log, error = run("kari = 'Nordmann'\nraise ValueError(kari)")
    assert code == EXIT_FAILED
    assert (log[-1]["event"], log[-1]["feiltype"]) == ("process_crashed", "ValueError")
    assert "runtime.py" in log[-1]["sted"]
    assert "Nordmann" not in json.dumps(log) + error


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the kernel's own signal at a parent's death is Linux'"
)
def test_a_process_does_not_outlive_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    pid_file, done_file = tmp_path / "pid", tmp_path / "done"
    child = (
        "import asyncio, os, sys, pathlib\nfrom broker.runtime import run_process\n"
        "async def main(stop):\n"
        f"    pathlib.Path({str(pid_file)!r}).write_text(str(os.getpid()))\n"
        "    await stop.wait()\n"
        f"    pathlib.Path({str(done_file)!r}).write_text('stopped in order')\n"
        "sys.exit(run_process('barn', main))"
    )
    parent = (
        "import os, subprocess, sys\n"
        f"subprocess.Popen([sys.executable, '-c', {child!r}], env=os.environ | {{{SUPERVISED_ENV!r}: str(os.getpid())}})\n"
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as supervisor:
        asyncio.run(_until(pid_file.exists))
        os.kill(supervisor.pid, signal.SIGKILL)
        asyncio.run(_until(done_file.exists))


async def _until(condition: Any) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  # another process' file
            await asyncio.sleep(0.01)


def test_a_process_whose_supervisor_is_gone_already_stops_at_once() -> None:
    code, log, _ = run("await stop.wait()", **{SUPERVISED_ENV: "1"})
    assert code in {0, -signal.SIGTERM}
    assert not [line for line in log if line["event"] == "process_crashed"]


def test_the_first_error_of_ours_is_found_in_a_nested_group() -> None:
    ours = ConfigurationError("x")
    group = BaseExceptionGroup("a", [ValueError(), ExceptionGroup("b", [KeyError(), ours])])
    assert first_of_ours(group) is ours
    assert [type(leaf) for leaf in leaves(group)] == [ValueError, KeyError, ConfigurationError]
    assert first_of_ours(ValueError()) is None


def test_a_command_raises_our_error_without_the_group_around_it() -> None:
    async def main() -> None:
        raise ExceptionGroup("utenfor", [ExceptionGroup("innenfor", [ConfigurationError("feil port")])])

    with pytest.raises(ConfigurationError, match="feil port"):
        run_command(main())


def test_a_command_raises_a_group_without_an_error_of_ours_as_it_is() -> None:
    async def main() -> None:
        raise ExceptionGroup("utenfor", [ValueError()])

    with pytest.raises(ExceptionGroup):
        run_command(main())


def test_a_command_returns_what_it_came_to() -> None:
    async def main() -> int:
        return 7

    assert run_command(main()) == 7
