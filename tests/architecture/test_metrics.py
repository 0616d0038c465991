"""All of our metrics can live in one registry: a name is counted in one place."""

from __future__ import annotations

import importlib
import re

from prometheus_client import REGISTRY


def test_the_processes_metrics_fit_together_and_have_names_of_ours() -> None:
    for package in ("broker", "producers", "consumers", "kvittering"):
        importlib.import_module(f"{package}.metrics")
    ours = [metric for metric in REGISTRY.collect() if metric.name.startswith(("fiks_", "http_"))]
    assert len(ours) > 10
    assert [m.name for m in ours if not re.fullmatch(r"[a-z][a-z0-9_]*", m.name) or not m.documentation] == []


def test_no_label_is_an_id_or_a_person() -> None:
    labels = {label for metric in REGISTRY.collect() for sample in metric.samples for label in sample.labels}
    assert not labels & {"digisos_id", "melding_id", "person", "fodselsnummer", "nav_ekstern_ref_id", "navn", "eier"}
