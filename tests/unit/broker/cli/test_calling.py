from __future__ import annotations

import httpx
import pytest
import typer

from broker.cli.calling import run_calls
from broker.cli.output import EXIT_INTERRUPTED, EXIT_UNREACHABLE
from schemas.errors import ConfigurationError

ADDRESS = "https://avsender.test/digisos/api/v1?pid=hemmelig"


async def answer() -> int:
    return 42


async def fail(error: BaseException) -> None:
    raise error


def test_what_the_calls_come_to_is_returned() -> None:
    assert run_calls(answer()) == 42


def test_an_address_that_does_not_answer_is_named_without_what_was_asked(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as ended:
        run_calls(fail(httpx.ConnectError("x", request=httpx.Request("GET", ADDRESS))))
    assert ended.value.exit_code == EXIT_UNREACHABLE
    told = capsys.readouterr().err
    assert "https://avsender.test/ svarer ikke (ConnectError)" in told
    assert "hemmelig" not in told


def test_somebody_who_interrupts_gets_the_shells_own_code() -> None:
    with pytest.raises(typer.Exit) as ended:
        run_calls(fail(KeyboardInterrupt()))
    assert ended.value.exit_code == EXIT_INTERRUPTED


def test_an_error_of_ours_is_raised_as_it_is_whatever_it_was_wrapped_in() -> None:
    with pytest.raises(ConfigurationError, match="utstederen"):
        run_calls(fail(ExceptionGroup("tasks", [ConfigurationError("utstederen")])))
