from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from broker.embedded.folder import DataFolder
from broker.embedded.server import EmbeddedKafka, answers, stop_folder
from broker.kafka.admin import KafkaAdmin
from broker.kafka.publisher import KafkaPublisher
from broker.kafka.subscriber import KafkaTail
from broker.record import Outgoing, RecordPosition, TopicPartition
from broker.routing import connector_rights, kommune_topics, soknad_topic
from schemas.errors import BrokerUnavailableError, ConfigurationError
from schemas.names import Kommunenummer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


pytestmark = pytest.mark.kafka

KNR = Kommunenummer("9999")
TOPIC = soknad_topic(KNR)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedKafka]:
    server = EmbeddedKafka(tmp_path / "kafka")
    server.start()
    yield server
    server.stop()


async def test_what_was_acknowledged_is_there_after_a_kill(server: EmbeddedKafka) -> None:
    async with KafkaAdmin(server.admin) as admin:
        await admin.ensure_topics(kommune_topics(KNR))
        await admin.upsert_user("c", "secret")
        await admin.ensure_acls(connector_rights("c", "acme", KNR))
    before = server.admin
    async with KafkaPublisher(server.admin) as publisher:
        outcomes = await publisher.publish_all([Outgoing(TOPIC, b"%d" % n, b"%d" % n) for n in range(200)])
        assert all(isinstance(one, RecordPosition) for one in outcomes)
        await asyncio.to_thread(server.kill)
        assert server.pid is None
        # The publisher lives on: the record waits in it, and comes through when the broker is back.
        late = asyncio.create_task(publisher.publish(Outgoing(TOPIC, b"late", b"200")))
        await asyncio.to_thread(server.start)
        assert server.admin == before
        assert isinstance(await late, RecordPosition)
    async with KafkaTail(server.admin.as_user("c", "secret"), [TOPIC]) as tail:
        found: list[int] = []
        async with asyncio.timeout(30):
            async for batch in tail:
                found += [int(record.value) for record in batch]
                if len(found) > 200:
                    break
    assert sorted(found) == list(range(201))


async def test_a_record_that_was_given_up_is_never_sent_behind_its_callers_back(server: EmbeddedKafka) -> None:
    async with KafkaAdmin(server.admin) as admin:
        await admin.ensure_topics(kommune_topics(KNR, partitions=1))
    async with KafkaPublisher(server.admin, delivery_timeout_s=1.0) as publisher:
        await publisher.publish(Outgoing(TOPIC, b"k", b"first"))
        await asyncio.to_thread(server.kill)
        with pytest.raises(BrokerUnavailableError) as raised:
            await publisher.publish(Outgoing(TOPIC, b"k", b"second"))
        assert raised.value.retriable
        await asyncio.to_thread(server.start)
        async with KafkaAdmin(server.admin) as admin:
            for _ in range(50):  # long enough for a forgotten producer to come back
                assert await admin.end_offsets([TOPIC]) == {TopicPartition(TOPIC, 0): 1}
                await asyncio.sleep(0.02)


def test_a_second_broker_on_the_same_folder_is_refused_by_name(server: EmbeddedKafka) -> None:
    other = EmbeddedKafka(server.folder.path)
    with pytest.raises(ConfigurationError, match=f"prosess {server.pid}"):
        other.start()
    assert answers(server.admin)


def test_only_the_owner_can_read_passwords_and_logs(server: EmbeddedKafka) -> None:
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in server.folder.path.iterdir() if file.is_file()}
    assert set(modes.values()) == {0o600}, modes
    assert stat.S_IMODE(server.folder.path.stat().st_mode) == 0o700
    state = server.folder.state()
    assert state is not None
    command_line = Path(f"/proc/{server.pid}/cmdline").read_text()
    log = server.folder.log.read_text()
    for secret in (state.admin_password, state.node_password):
        assert secret not in command_line
        assert secret not in log


def test_a_folder_of_somebody_elses_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(ConfigurationError, match="ikke tom"):
        EmbeddedKafka(tmp_path).start()
    assert {one.name for one in tmp_path.iterdir()} == {"letter.txt"}


def test_data_of_another_cluster_is_refused(server: EmbeddedKafka) -> None:
    server.stop()
    meta = server.folder.data / "meta.properties"
    meta.write_text(meta.read_text().replace("cluster.id=", "cluster.id=x"))
    with pytest.raises(ConfigurationError, match="hører ikke til"):
        server.start()


def test_a_first_start_that_was_cut_off_is_begun_again(server: EmbeddedKafka) -> None:
    server.stop()
    state_file = server.folder.path / "formidler-kafka.json"
    state_file.write_text(json.dumps(json.loads(state_file.read_text()) | {"formatted": False}))
    server.start()
    assert answers(server.admin)


def test_a_port_that_another_program_took_is_named(server: EmbeddedKafka) -> None:
    state = server.folder.state()
    assert state is not None
    server.stop()
    with socket.create_server(("127.0.0.1", state.port)), pytest.raises(ConfigurationError, match=str(state.port)):
        server.start()
    assert not server.folder.is_locked()


def test_a_broker_that_cannot_run_points_to_its_log(server: EmbeddedKafka) -> None:
    server.stop()
    checkpoint = server.folder.data / "meta.properties"
    checkpoint.write_text(checkpoint.read_text().replace("node.id=1", "node.id=7"))
    with pytest.raises(BrokerUnavailableError, match=r"kafka\.log"):
        server.start()
    assert not server.folder.is_locked()


def test_the_broker_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    code = """
        import sys, threading
        from pathlib import Path
        from broker.embedded.server import EmbeddedKafka
        server = EmbeddedKafka(Path(sys.argv[1]))
        starter = threading.Thread(target=server.start)  # that this thread ends must not end the broker
        starter.start()
        starter.join()
        print(server.pid, flush=True)
        sys.stdin.read()
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        folder = DataFolder(tmp_path)
        assert answers(folder.admin_settings())
        os.kill(pid, 0)
        parent.kill()
    deadline = time.monotonic() + 20
    while folder.is_locked():
        assert time.monotonic() < deadline, "the broker outlived its parent"
        time.sleep(0.02)


def test_a_broker_in_the_background_outlives_its_starter_and_is_stopped_by_its_folder(tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("formidler")), "kafka"]
    data = ["--data", str(tmp_path)]
    started = subprocess.run([*command, "start", *data, "--json"], capture_output=True, check=True, text=True)
    document = json.loads(started.stdout)
    try:
        assert answers(DataFolder(tmp_path / "kafka").admin_settings())
        status = subprocess.run([*command, "status", *data, "--json"], capture_output=True, check=True, text=True)
        assert json.loads(status.stdout)["svarer"] is True
        assert json.loads(status.stdout)["pid"] == document["pid"]
        again = subprocess.run([*command, "start", *data, "--json"], capture_output=True, check=True, text=True)
        assert json.loads(again.stdout) == document
    finally:
        assert stop_folder(tmp_path / "kafka")
    assert subprocess.run([*command, "status", *data], capture_output=True, check=False).returncode == 3
    assert not stop_folder(tmp_path / "kafka")


def test_a_warm_start_is_quick(server: EmbeddedKafka, record_property: Callable[[str, object], None]) -> None:
    server.stop()
    times: list[float] = []
    for _ in range(3):
        begun = time.monotonic()
        server.start()
        times.append(time.monotonic() - begun)
        server.stop()
    record_property("warm_start_s", min(times))
    assert min(times) < 5  # the goal is 1.5 s on an idle machine; this one is shared
