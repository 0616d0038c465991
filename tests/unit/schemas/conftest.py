from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from schemas.records import RECORD_TYPES, Record


@pytest.fixture(scope="session")
def records() -> dict[str, Record]:
    """One record of every kind, with every field set: those of the golden bytes."""
    path = Path(__file__).parents[2] / "vectors" / "avro" / "generate_avro.py"
    spec = importlib.util.spec_from_file_location("generate_avro", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.records()


@pytest.fixture(params=sorted(RECORD_TYPES))
def record(request: Any, records: dict[str, Record]) -> Record:
    """Each of ``records`` in turn."""
    return records[request.param]
