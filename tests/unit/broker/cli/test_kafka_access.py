from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from broker.cli.kafka_access import kafka_access
from broker.embedded.folder import DataFolder
from broker.files import write_private
from broker.supervisor.bootstrap import bootstrap, choose_connectors
from broker.supervisor.layout import Layout
from schemas.errors import ConfigurationError
from schemas.names import Kommunenummer


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return bootstrap(tmp_path / "data", choose_connectors([Kommunenummer("0301")]), datetime(2026, 11, 23, tzinfo=UTC))


def test_the_environment_says_where_kafka_is_before_any_folder(tmp_path: Path) -> None:
    settings = kafka_access(tmp_path, environment={"FORMIDLER_KAFKA_BOOTSTRAP": "kafka:9092"})
    assert settings.bootstrap == "kafka:9092"
    assert kafka_access(tmp_path, environment={"KAFKA_BROKERS": "nais:1"}).bootstrap == "nais:1"


def test_a_data_folder_gives_its_embedded_kafka_as_the_broker_process(layout: Layout) -> None:
    folder = DataFolder(layout.folder / "kafka")
    descriptor = folder.lock()
    state = folder.open_state()
    write_private(layout.kafka_password("broker"), b"hemmelig")
    settings = kafka_access(layout.folder, environment={})
    assert settings.bootstrap == f"127.0.0.1:{state.port}"
    assert (settings.username, settings.security_protocol) == ("broker", "SASL_PLAINTEXT")
    assert settings.password is not None
    assert settings.password.get_secret_value() == "hemmelig"
    os.close(descriptor)


def test_a_folder_that_was_never_up_says_what_to_do(layout: Layout, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="formidler up"):
        kafka_access(tmp_path / "ingen", environment={})
    with pytest.raises(ConfigurationError, match="FORMIDLER_KAFKA_"):
        kafka_access(layout.folder, environment={})
