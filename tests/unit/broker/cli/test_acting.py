from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest
import typer

from broker.cli.acting import clock_of, parsed, reason, stopping
from schemas.names import Kommunenummer


@pytest.mark.parametrize("text", [None, "", "  "])
def test_an_act_without_a_reason_is_wrong_usage(text: str | None) -> None:
    with pytest.raises(typer.BadParameter, match="--begrunnelse"):
        reason(text)
    assert reason(" rettet ") == "rettet"


def test_an_option_takes_several_with_commas_or_by_repeating() -> None:
    assert parsed(["0301,4601", "1811"], Kommunenummer, "--kommune") == ("0301", "4601", "1811")
    assert parsed(None, Kommunenummer, "--kommune") == ()
    with pytest.raises(typer.BadParameter):
        parsed(["oslo"], Kommunenummer, "--kommune")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_asks_to_stop_and_nothing_more(number: signal.Signals) -> None:
    with stopping() as stop:
        assert not stop.is_set()
        os.kill(os.getpid(), number)
        await asyncio.wait_for(stop.wait(), 5)


def test_the_clock_without_a_set_up_is_the_machines(tmp_path: Path) -> None:
    assert clock_of(tmp_path)().tzinfo is not None
