from __future__ import annotations

from consumers.connectors.memory import SPEC, MemoryConnector, MemorySettings


def test_its_spec_makes_it() -> None:
    connector = SPEC.create(MemorySettings(), None)  # type: ignore[arg-type]  # it needs none
    assert isinstance(connector, MemoryConnector)
    assert connector.unsettled == 0
