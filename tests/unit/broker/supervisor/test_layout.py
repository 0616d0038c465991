from __future__ import annotations

import socket
import stat
from pathlib import Path

import pytest

from broker.supervisor.layout import ConnectorSetup, Layout, free_ports
from schemas.errors import ConfigurationError
from schemas.names import Kommunenummer

CONNECTORS = {
    "acme": ConnectorSetup(leverandor="acme", type="http", kommuner=(Kommunenummer("4601"), Kommunenummer("0301"))),
    "mappe": ConnectorSetup(leverandor="mappe", type="filedrop", kommuner=(Kommunenummer("1811"),)),
}


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout.prepare(tmp_path / "data", CONNECTORS)
    layout.save()
    return layout


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_set_up_that_was_saved_is_loaded_as_it_was(layout: Layout) -> None:
    loaded = Layout.load(layout.folder)
    assert loaded.setup == layout.setup
    assert loaded.folder == layout.folder
    assert Layout.exists(layout.folder)


def test_kommuner_are_listed_in_order(layout: Layout) -> None:
    assert layout.setup.kommuner() == ("0301", "1811", "4601")


def test_the_folders_are_for_their_owner_alone(layout: Layout) -> None:
    for name in ("", "nokler", "data", "dokumentlager", "logg"):
        assert mode(layout.folder / name) == 0o700, name
    assert mode(layout.folder / "oppsett.json") == 0o600


def test_a_folder_that_was_never_set_up_says_what_to_do(tmp_path: Path) -> None:
    assert not Layout.exists(tmp_path)
    with pytest.raises(ConfigurationError, match="formidler up"):
        Layout.load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"{}", b"\xff", b'{"konnektorer": {"a": {"kommuner": []}}}'])
def test_a_set_up_that_cannot_be_read_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "oppsett.json").write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"oppsett\.json"):
        Layout.load(tmp_path)


def test_a_port_is_chosen_once_and_kept(layout: Layout) -> None:
    layout.reserve_ports(["broker", "producers"])
    first = layout.port("broker")
    layout.reserve_ports(["broker", "kvittering"])
    assert layout.port("broker") == first
    assert Layout.load(layout.folder).port("kvittering") == layout.port("kvittering")
    assert len({layout.port(name) for name in ("broker", "producers", "kvittering")}) == 3
    assert layout.address("broker") == f"http://127.0.0.1:{first}"
    assert layout.issuer_url == f"http://127.0.0.1:{first}/utsteder"


def test_a_process_without_a_port_is_a_clear_error(layout: Layout) -> None:
    with pytest.raises(ConfigurationError, match="broker"):
        layout.port("broker")


def test_a_principal_without_access_is_a_clear_error(layout: Layout) -> None:
    layout.kafka = {"broker": {"FORMIDLER_KAFKA_BOOTSTRAP": "x"}}
    assert layout.kafka_env("broker") == {"FORMIDLER_KAFKA_BOOTSTRAP": "x"}
    with pytest.raises(ConfigurationError, match="producers"):
        layout.kafka_env("producers")


def test_every_path_lies_in_the_folder(layout: Layout) -> None:
    paths = [
        layout.key("ca"),
        layout.certificate("ca"),
        layout.kafka_password("broker"),
        layout.eier_key,
        layout.katalog,
        layout.connector_config("acme"),
        layout.database("producers"),
        layout.dokumentlager,
        layout.fagsystem,
        layout.log("broker"),
    ]
    assert len(set(paths)) == len(paths)
    assert all(path.is_relative_to(layout.folder) for path in paths)


def test_free_ports_are_free_and_different() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", ports[0]))
