"""The data folder of an embedded broker: what it is, who uses it, and the broker's configuration.

::

    formidler-kafka.json   0600  cluster id, ports, passwords; written before the first format
    formidler-kafka.lock         locked by the Java process itself, so that the lock lives exactly as long as it does
    formidler-kafka.run          who runs now, or ran last
    server.properties      0600  made anew at each start
    client.properties      0600  for tools, when asked for
    kafka.log              0600
    data/                        Kafka's own
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import secrets
import shutil
import socket
import uuid
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError

from broker.files import write_private
from broker.kafka.settings import KafkaSettings
from broker.routing import KVITTERING_RETENTION
from schemas.errors import ConfigurationError

HOST: Final = "127.0.0.1"
ADMIN: Final = "admin"
NODE: Final = "node"
_CLIENT_OPTIONS: Final = ("bootstrap.servers", "security.protocol", "sasl.mechanisms", "sasl.username", "sasl.password")
MAX_LOG_BYTES: Final = 10 * 1024 * 1024


class State(BaseModel):
    """What a folder keeps from start to start. Holds passwords: never log it.

    Attributes:
        version: Of this file's form.
        cluster_id: Kafka's, a UUID in base64url.
        port: Clients connect here, with SCRAM-SHA-512.
        controller_port: The broker's controller listens here, with SASL/PLAIN and the node's password.
        admin_password: Of the SCRAM user ``admin``, who may do everything.
        node_password: Of the broker itself.
        formatted: Whether ``data/`` is ready.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = 1
    cluster_id: str
    port: int
    controller_port: int
    admin_password: str
    node_password: str
    formatted: bool = False


class Run(BaseModel):
    """Who runs, or ran last: the Java process, and the archive of classes that it may write when it ends."""

    model_config = ConfigDict(frozen=True)

    pid: int
    archive: Path
    draft: Path


class DataFolder:
    """One data folder.

    Args:
        path: Made at the first start; must be empty or an earlier one of ours.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self.data = self.path / "data"
        self.log = self.path / "kafka.log"
        self.properties = self.path / "server.properties"
        self._state = self.path / "formidler-kafka.json"
        self._lock = self.path / "formidler-kafka.lock"
        self._run = self.path / "formidler-kafka.run"

    def lock(self) -> int:
        """Return a descriptor that holds the folder's lock; a child that inherits it holds it too.

        Raises:
            ConfigurationError: Another broker runs here; the text names its process.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            foreign = not self._state.exists() and any(one != self._lock for one in self.path.iterdir())
        except OSError as error:
            raise ConfigurationError(
                f"{self.path} kan ikke brukes som mappe for Kafka ({type(error).__name__})"
            ) from error
        if foreign:
            raise ConfigurationError(f"{self.path} er ikke tom, og er ikke en mappe som Kafka herfra har brukt")
        descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            run = self.last_run()
            who = f"prosess {run.pid}" if run else "en annen prosess"
            raise ConfigurationError(f"{self.path} brukes allerede av en Kafka ({who}); stopp den først") from None
        return descriptor

    def is_locked(self) -> bool:
        """Return whether a broker runs here now."""
        try:
            descriptor = os.open(self._lock, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def open_state(self) -> State:
        """Return the folder's state, made if this is the first start; call with the lock held.

        Raises:
            ConfigurationError: The state cannot be read, or does not belong to the data beside it.
        """
        state = self.state()
        if state is None:
            state = _new_state()
            self._write_state(state)
        if not state.formatted:
            shutil.rmtree(self.data, ignore_errors=True)  # what a first start left half-way
        elif self._cluster_id() != state.cluster_id:
            raise ConfigurationError(f"{self.data} hører ikke til {self._state.name}: mappen er flyttet eller endret")
        return state

    def state(self) -> State | None:
        """Return the folder's state, or None if there is none.

        Raises:
            ConfigurationError: It cannot be read.
        """
        try:
            return State.model_validate_json(self._state.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError):
            raise ConfigurationError(f"{self._state} kan ikke leses, eller er fra en annen versjon") from None

    def mark_formatted(self, state: State) -> State:
        """Note that ``data/`` is ready."""
        ready = state.model_copy(update={"formatted": True})
        self._write_state(ready)
        return ready

    def note_run(self, run: Run) -> None:
        """Note who runs."""
        write_private(self._run, run.model_dump_json().encode())

    def last_run(self) -> Run | None:
        """Return who runs or ran last, or None if that was never noted."""
        try:
            return Run.model_validate_json(self._run.read_bytes())
        except (OSError, ValidationError):
            return None

    def admin_settings(self) -> KafkaSettings:
        """Return how to reach this broker as its administrator.

        Raises:
            ConfigurationError: The folder was never started.
        """
        state = self.state()
        if state is None:
            raise ConfigurationError(f"ingen Kafka er startet i {self.path}")
        return KafkaSettings(
            bootstrap=f"{HOST}:{state.port}",
            security_protocol="SASL_PLAINTEXT",
            username=ADMIN,
            password=SecretStr(state.admin_password),
        )

    def write_client_properties(self) -> Path:
        """Write how to connect as administrator, for librdkafka's tools (``kcat -F``); return the file, mode 0600."""
        file = self.path / "client.properties"
        options = self.admin_settings().confluent()
        text = "".join(f"{name}={value}\n" for name, value in options.items() if name in _CLIENT_OPTIONS)
        write_private(file, text.encode())
        return file

    def write_properties(self, state: State) -> None:
        """Write the broker's configuration."""
        write_private(self.properties, server_properties(state, self.data).encode())

    def open_log(self) -> int:
        """Return a descriptor that appends to the log; a log that has grown large is put aside first."""
        with contextlib.suppress(FileNotFoundError):
            if self.log.stat().st_size > MAX_LOG_BYTES:
                self.log.replace(self.log.with_suffix(".log.1"))
        return os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def _write_state(self, state: State) -> None:
        write_private(self._state, json.dumps(state.model_dump(), indent=2).encode() + b"\n")

    def _cluster_id(self) -> str | None:
        with contextlib.suppress(OSError):
            for line in (self.data / "meta.properties").read_text(encoding="utf-8").splitlines():
                name, _, value = line.partition("=")
                if name == "cluster.id":
                    return value.strip()
        return None


def server_properties(state: State, data: Path) -> str:
    """Return ``server.properties``: every listener asks for a password, and nobody is super but the administrator and the node.

    Args:
        state: Ports and passwords.
        data: Kafka's own folder.
    """
    scram = "org.apache.kafka.common.security.scram.ScramLoginModule required"
    plain = "org.apache.kafka.common.security.plain.PlainLoginModule required"
    login = f'username="{NODE}" password="{state.node_password}"'
    settings = {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.bootstrap.servers": f"{HOST}:{state.controller_port}",
        "listeners": f"SASL://{HOST}:{state.port},CONTROLLER://{HOST}:{state.controller_port}",
        "advertised.listeners": f"SASL://{HOST}:{state.port}",
        "listener.security.protocol.map": "SASL:SASL_PLAINTEXT,CONTROLLER:SASL_PLAINTEXT",
        "inter.broker.listener.name": "SASL",
        "controller.listener.names": "CONTROLLER",
        "sasl.mechanism.inter.broker.protocol": "SCRAM-SHA-512",
        "sasl.mechanism.controller.protocol": "PLAIN",
        "listener.name.sasl.sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "listener.name.controller.sasl.enabled.mechanisms": "PLAIN",
        "listener.name.sasl.scram-sha-512.sasl.jaas.config": f"{scram} {login};",
        "listener.name.controller.plain.sasl.jaas.config": f'{plain} {login} user_{NODE}="{state.node_password}";',
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": f"User:{ADMIN};User:{NODE}",
        "allow.everyone.if.no.acl.found": "false",
        "auto.create.topics.enable": "false",
        "log.dirs": str(data).replace("\\", "\\\\"),
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": 5,
        # A connector may be away as long as its topics are kept, and still find its place.
        "offsets.retention.minutes": int(KVITTERING_RETENTION.total_seconds() // 60),
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "transaction.state.log.num.partitions": 5,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        "share.coordinator.state.topic.num.partitions": 1,
        "group.initial.rebalance.delay.ms": 0,
        # After a crash the node may register again only when its former self has been silent for this long; the default is 9 s.
        "broker.session.timeout.ms": 3000,
        "broker.heartbeat.interval.ms": 500,
        # One node with 1 428 small topics: the defaults are made for a large machine.
        "log.index.size.max.bytes": 1024 * 1024,
        "log.cleaner.dedupe.buffer.size": 16 * 1024 * 1024,
        "num.network.threads": 2,
        "num.io.threads": 4,
    }
    return "".join(f"{name}={value}\n" for name, value in settings.items())


def _new_state() -> State:
    port, controller_port = _free_ports(2)
    return State(
        cluster_id=_cluster_id(),
        port=port,
        controller_port=controller_port,
        admin_password=secrets.token_urlsafe(24),
        node_password=secrets.token_urlsafe(24),
    )


def _cluster_id() -> str:
    """Return a UUID in base64url that does not look like an option on a command line; Kafka's own tool draws again too."""
    while (text := base64.urlsafe_b64encode(uuid.uuid4().bytes).decode("ascii").rstrip("=")).startswith("-"):
        continue
    return text


def _free_ports(count: int) -> list[int]:
    """Return ports that were free a moment ago, all different."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((HOST, 0))
        return [int(one.getsockname()[1]) for one in sockets]
