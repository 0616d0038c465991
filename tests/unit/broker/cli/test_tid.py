from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from broker.cli.tid import app
from broker.process_clock import ProcessClock
from broker.supervisor.bootstrap import choose_connectors
from broker.supervisor.layout import Layout
from schemas.errors import ConfigurationError, InvalidNameError
from schemas.names import Kommunenummer


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout.prepare(tmp_path, choose_connectors([Kommunenummer("0301")]))
    layout.save()
    return layout


def run(layout: Layout, *arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments, "--data", str(layout.folder)])


def test_time_is_the_machines_until_somebody_moves_it(layout: Layout) -> None:
    result = run(layout, "vis")
    assert result.exit_code == 0
    assert result.output.rstrip().endswith("som maskinens")


def test_a_process_of_the_set_up_sees_the_time_move(layout: Layout) -> None:
    clock = ProcessClock(layout.clock)
    assert run(layout, "frem", "20d").exit_code == 0
    assert ProcessClock(layout.clock)() - datetime.now(UTC) > timedelta(days=19, hours=23)
    clock._look_at = 0.0
    assert clock() - datetime.now(UTC) > timedelta(days=19, hours=23)


def test_moves_add_up(layout: Layout) -> None:
    run(layout, "frem", "20d")
    shown = json.loads(run(layout, "frem", "12h", "--json").output)
    assert shown["forskyvningS"] == timedelta(days=20, hours=12).total_seconds()
    assert run(layout, "vis").output.rstrip().endswith("20d12h foran maskinens")


def test_a_move_back_or_into_nonsense_is_refused(layout: Layout) -> None:
    assert isinstance(run(layout, "frem", "tilbake").exception, InvalidNameError)
    for _ in range(300):
        result = run(layout, "frem", "36000d")
        if result.exception:
            break
    assert isinstance(result.exception, ConfigurationError)


def test_without_a_set_up_there_is_no_time_to_move(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["frem", "1d", "--data", str(tmp_path)])
    assert isinstance(result.exception, ConfigurationError)
