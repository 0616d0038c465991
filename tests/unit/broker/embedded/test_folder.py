from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from broker.embedded.folder import MAX_LOG_BYTES, DataFolder, State, server_properties
from schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

STATE = State(cluster_id="c", port=1001, controller_port=1002, admin_password="adminpw", node_password="nodepw")


def properties(path: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in server_properties(STATE, path).splitlines())


def test_every_listener_asks_for_a_password(tmp_path: Path) -> None:
    found = properties(tmp_path)
    names = [one.split(":")[0] for one in found["listeners"].split(",")]
    protocols = dict(one.split(":") for one in found["listener.security.protocol.map"].split(","))
    assert set(names) == set(protocols)
    assert set(protocols.values()) == {"SASL_PLAINTEXT"}


def test_nobody_is_super_without_a_password_and_nothing_is_open_by_default(tmp_path: Path) -> None:
    found = properties(tmp_path)
    assert found["super.users"] == "User:admin;User:node"
    assert found["allow.everyone.if.no.acl.found"] == "false"
    assert found["auto.create.topics.enable"] == "false"
    assert "StandardAuthorizer" in found["authorizer.class.name"]


def test_only_this_machine_can_connect(tmp_path: Path) -> None:
    found = properties(tmp_path)
    for listener in (*found["listeners"].split(","), *found["advertised.listeners"].split(",")):
        assert "//127.0.0.1:" in listener


def test_ports_and_passwords_are_kept_and_differ_from_folder_to_folder(tmp_path: Path) -> None:
    states: list[State] = []
    for name in ("a", "b"):
        folder = DataFolder(tmp_path / name)
        descriptor = folder.lock()
        states.append(folder.open_state())
        assert folder.open_state() == states[-1]
        os.close(descriptor)
    first, second = states
    assert first.admin_password != second.admin_password
    assert first.cluster_id != second.cluster_id
    assert len({first.port, first.controller_port}) == 2
    assert not first.cluster_id.startswith("-")


def test_a_lock_holds_until_its_last_descriptor_is_closed(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "k")
    assert not folder.is_locked()
    descriptor = folder.lock()
    inherited = os.dup(descriptor)
    os.close(descriptor)
    assert folder.is_locked()
    with pytest.raises(ConfigurationError, match="brukes allerede"):
        folder.lock()
    os.close(inherited)
    assert not folder.is_locked()
    os.close(folder.lock())


def test_a_state_that_cannot_be_read_is_named_and_not_replaced(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    file = tmp_path / "formidler-kafka.json"
    file.write_text('{"version": 99}')
    with pytest.raises(ConfigurationError, match=r"formidler-kafka\.json"):
        folder.open_state()
    assert file.read_text() == '{"version": 99}'


def test_a_path_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="kan ikke brukes"):
        DataFolder(tmp_path / "file").lock()


def test_a_folder_that_was_never_started_has_no_address(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="ingen Kafka"):
        DataFolder(tmp_path).admin_settings()
    assert DataFolder(tmp_path).last_run() is None


def test_a_log_that_has_grown_large_is_put_aside(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    for size in (10, MAX_LOG_BYTES + 1):
        folder.log.write_bytes(bytes(size))
        os.close(folder.open_log())
    assert folder.log.stat().st_size == 0
    assert (tmp_path / "kafka.log.1").stat().st_size == MAX_LOG_BYTES + 1
