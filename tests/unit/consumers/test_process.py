from __future__ import annotations

import stat
from pathlib import Path

import pytest

from broker.supervisor.layout import ConnectorSetup, Layout
from consumers.process import environment, specs
from consumers.settings import CONFIG_ENV, ConnectorSettings
from consumers.simulator.process import SPEC as FAGSYSTEM
from schemas.errors import ConfigurationError
from schemas.names import Kommunenummer


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    connectors = {
        "fjordsak": ConnectorSetup(leverandor="fjord", type="http", kommuner=(Kommunenummer("0301"),)),
        "arkivmappe": ConnectorSetup(leverandor="arkiv", type="filedrop", kommuner=(Kommunenummer("4601"),)),
    }
    layout = Layout.prepare(tmp_path / "data", connectors)
    layout.save()
    layout.reserve_ports(["broker", "producers", "fagsystem", "konnektor-fjordsak", "konnektor-arkivmappe"])
    layout.kafka = {f"konnektor-{name}": {"FORMIDLER_KAFKA_BOOTSTRAP": "x:1"} for name in connectors}
    return layout


def test_there_is_a_process_for_each_connector(layout: Layout) -> None:
    assert {(spec.name, spec.module) for spec in specs(layout)} == {
        ("konnektor-fjordsak", "consumers"),
        ("konnektor-arkivmappe", "consumers"),
    }


def test_a_connectors_settings_are_written_for_its_owner_alone_and_can_be_read(layout: Layout) -> None:
    given = {spec.name: spec.environment(layout) for spec in specs(layout)}
    path = Path(given["konnektor-fjordsak"][CONFIG_ENV])
    settings = ConnectorSettings.load(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (settings.konnektor, settings.leverandor) == ("fjordsak", "fjord")
    assert settings.kommuner[0].innstillinger["url"] == f"{layout.address('fagsystem')}/0301"
    assert given["konnektor-fjordsak"]["FORMIDLER_KAFKA_BOOTSTRAP"] == "x:1"


def test_what_people_changed_in_the_file_stays(layout: Layout) -> None:
    environment("arkivmappe", layout)
    path = layout.connector_config("arkivmappe")
    path.write_text(path.read_text().replace("port:", "host: 127.0.0.2\nport:"))
    environment("arkivmappe", layout)
    assert ConnectorSettings.load(path).host == "127.0.0.2"


def test_a_connector_without_access_to_kafka_cannot_be_started(layout: Layout) -> None:
    layout.kafka = {}
    with pytest.raises(ConfigurationError):
        environment("fjordsak", layout)


def test_the_connectors_and_the_fagsystem_agree_on_their_folder(layout: Layout) -> None:
    environment("arkivmappe", layout)
    settings = ConnectorSettings.load(layout.connector_config("arkivmappe"))
    assert settings.kommuner[0].innstillinger["mappe"] == FAGSYSTEM.environment(layout)["FORMIDLER_FAGSYSTEM_FILEDROP"]
