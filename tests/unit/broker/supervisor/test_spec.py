from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from broker.supervisor import spec
from broker.supervisor.layout import ConnectorSetup, Layout
from broker.supervisor.spec import ProcessSpec, find_processes
from schemas.errors import ConfigurationError
from schemas.names import Kommunenummer


def _environment(_: Layout) -> dict[str, str]:
    return {}


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    setup = ConnectorSetup(leverandor="acme", type="http", kommuner=(Kommunenummer("0301"),))
    return Layout.prepare(tmp_path, {"acme": setup})


def offer(monkeypatch: pytest.MonkeyPatch, *offered: Any) -> None:
    class _Point:
        def __init__(self, number: int, thing: Any) -> None:
            self.name, self.thing = f"p{number}", thing

        def load(self) -> Any:
            return self.thing

    points = [_Point(number, thing) for number, thing in enumerate(offered)]
    monkeypatch.setattr(spec, "entry_points", lambda group: points if group == spec.GROUP else [])


def test_processes_come_in_starting_order(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    late, early = ProcessSpec("b", "m", 20, _environment), ProcessSpec("a", "m", 10, _environment)
    offer(monkeypatch, late, early)
    assert find_processes(layout) == [early, late]


def test_an_entry_point_may_offer_one_process_for_each_connector(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(
        monkeypatch,
        lambda given: [ProcessSpec(f"konnektor-{name}", "m", 30, _environment) for name in given.setup.konnektorer],
    )
    assert [found.name for found in find_processes(layout)] == ["konnektor-acme"]


def test_two_processes_may_not_share_a_name(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, *(ProcessSpec("a", module, 1, _environment) for module in ("m", "n")))
    with pytest.raises(ConfigurationError, match="a, a"):
        find_processes(layout)


def test_anything_else_is_refused_by_name(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, 7)
    with pytest.raises(ConfigurationError, match="p0"):
        find_processes(layout)


def test_the_processes_of_this_installation_are_those_of_the_design(layout: Layout) -> None:
    found = [process.name for process in find_processes(layout)]
    assert {"broker", "producers", "kvittering", "konnektor-acme"} <= set(found)
    assert found[0] == "broker"
