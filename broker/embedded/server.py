"""A real Apache Kafka on this machine: KRaft, one node, SCRAM and ACLs on from the first moment.

What differs from a cluster is the address. Start it in a folder; a second start in the same folder goes on where it stopped,
on the same ports, and a killed one loses nothing that was acknowledged (it survives the process; only a machine that loses
power may lose what the operating system had not written yet).
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from typing import TYPE_CHECKING, Final, Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from broker.embedded.cds import ClassArchive, class_archive
from broker.embedded.folder import ADMIN, HOST, NODE, DataFolder, Run, State
from broker.embedded.jars import find_jars
from broker.embedded.java import Java, find_java
from broker.embedded.process import JavaProcess
from broker.files import write_private
from schemas.errors import BrokerUnavailableError, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

    from broker.kafka.settings import KafkaSettings

START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 60.0
_POLL_S: Final = 0.01
_JVM: Final = (
    "-Xmx512m",
    "-Xms128m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",  # a third off the start; a broker of this size never misses the second compiler
    "-XX:-UsePerfData",
    "-XX:+ExitOnOutOfMemoryError",
    "-Xlog:cds=error",  # which classes an archive leaves out
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
)


class EmbeddedKafka:
    """An embedded broker. Use as a context manager, or call ``start`` and ``stop``. Its methods block.

    Args:
        folder: Its data; empty, missing, or from an earlier start.
        environment: ``JAVA_HOME``, ``KAFKA_HOME``, ``PATH``, ``XDG_CACHE_HOME``; the process' own if not given.
        die_with_parent: Whether it ends when this process does, however that happens (on Linux).
    """

    def __init__(
        self, folder: Path, *, environment: Mapping[str, str] | None = None, die_with_parent: bool = True
    ) -> None:
        self.folder = DataFolder(folder)
        self._environment = dict(os.environ if environment is None else environment)
        self._die_with_parent = die_with_parent
        self._process: JavaProcess | None = None
        self._archive: ClassArchive | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def admin(self) -> KafkaSettings:
        """How to reach it as its administrator."""
        return self.folder.admin_settings()

    @property
    def bootstrap(self) -> str:
        """Its address, ``127.0.0.1:PORT``; the same at every start."""
        return self.admin.bootstrap

    @property
    def pid(self) -> int | None:
        """The Java process, or None if it does not run."""
        return self._process.pid if self._process is not None and self._process.running() else None

    def start(self) -> None:
        """Start, and return when the broker answers its administrator.

        Raises:
            ConfigurationError: Java or Kafka cannot be found, the folder is another's or in use, or a port is taken.
            BrokerUnavailableError: It started and ended again, or did not answer in time; its log says why.
        """
        if self._process is not None and self._process.running():
            raise RuntimeError("the broker runs already")
        java, jars = find_java(self._environment), find_jars(self._environment)
        self._archive = class_archive(jars, java, self._environment)
        prefix = [*_JVM, *self._archive.options(), "-cp", os.pathsep.join(map(str, jars))]
        lock = self.folder.lock()
        try:
            state = self.folder.open_state()
            self.folder.write_properties(state)
            if not state.formatted:
                self._format(java, prefix, state)
                state = self.folder.mark_formatted(state)
            _check_ports(state)
            self._spawn([str(java.executable), *prefix, "kafka.Kafka", str(self.folder.properties)], lock)
        finally:
            os.close(lock)  # the Java process holds it from here on
        try:
            self._wait_for_answer(state)
        except BaseException:
            self.kill()
            raise

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Stop in good order; kill after ``timeout_s``. Nothing happens if it does not run."""
        if self._process is None:
            return
        self._process.signal(signal.SIGTERM)
        if not self._process.wait(timeout_s):
            self.kill()
        if self._archive is not None:
            self._archive.keep()

    def kill(self) -> None:
        """End it at once, as a crash would."""
        if self._process is None:
            return
        self._process.signal(signal.SIGKILL)
        self._process.wait(STOP_TIMEOUT_S)
        if self._archive is not None:
            self._archive.drop()

    def _format(self, java: Java, prefix: list[str], state: State) -> None:
        """Format ``data/``. The arguments go through a private file: a command line is everybody's to read."""
        users = {ADMIN: state.admin_password, NODE: state.node_password}
        scram = [
            argument
            for name, password in users.items()
            for argument in ("--add-scram", f"SCRAM-SHA-512=[name={name},password={password}]")
        ]
        options = [one for one in prefix if not one.startswith("-XX:ArchiveClassesAtExit")]
        arguments = [
            *options, "kafka.tools.StorageTool", "format", "--standalone",
            "-t", state.cluster_id, "-c", str(self.folder.properties), *scram,
        ]  # fmt: skip
        file = self.folder.path / "format.args"
        write_private(file, "\n".join(_quoted(one) for one in arguments).encode())
        try:
            done = subprocess.run(  # noqa: S603  # Java, found by us, with our arguments
                [java.executable, f"@{file}"], capture_output=True, check=False, timeout=START_TIMEOUT_S
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise ConfigurationError("Kafkas mappe kunne ikke formateres") from error
        finally:
            file.unlink()
        if done.returncode != 0:
            log = self.folder.open_log()
            os.write(log, done.stdout + done.stderr)
            os.close(log)
            raise ConfigurationError(f"Kafkas mappe kunne ikke formateres; se {self.folder.log}")

    def _spawn(self, command: list[str], lock: int) -> None:
        log = self.folder.open_log()
        try:
            self._process = JavaProcess(
                command, log=log, inherited=lock, environment=self._environment, die_with_parent=self._die_with_parent
            )
        except OSError as error:
            raise ConfigurationError(f"Java kunne ikke startes ({type(error).__name__})") from error
        finally:
            os.close(log)
        if self._archive is not None:
            self.folder.note_run(Run(pid=self._process.pid, archive=self._archive.path, draft=self._archive.draft))

    def _wait_for_answer(self, state: State) -> None:
        """Poll until the administrator can log in and read the list of topics."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _accepts(state.port):
            self._check_alive(deadline)
            time.sleep(_POLL_S)
        while not answers(self.admin):
            self._check_alive(deadline)

    def _check_alive(self, deadline: float) -> None:
        if self._process is None or not self._process.running():
            raise BrokerUnavailableError(f"Kafka startet, men sluttet igjen; se {self.folder.log}")
        if time.monotonic() > deadline:
            raise BrokerUnavailableError(f"Kafka svarte ikke innen {START_TIMEOUT_S:.0f} s; se {self.folder.log}")


def answers(settings: KafkaSettings, timeout_s: float = 1.0) -> bool:
    """Return whether a broker logs us in and tells its topics within ``timeout_s``."""
    try:
        return bool(AdminClient(settings.confluent()).list_topics(timeout=timeout_s).brokers)
    except KafkaException:
        return False


def stop_folder(path: Path, timeout_s: float = STOP_TIMEOUT_S) -> bool:
    """Stop the broker that runs in a folder, whoever started it; return whether one ran.

    Raises:
        BrokerUnavailableError: It did not stop in time.
    """
    folder = DataFolder(path)
    run = folder.last_run()
    if run is None or not folder.is_locked():
        return False
    os.kill(run.pid, signal.SIGTERM)
    deadline = time.monotonic() + timeout_s
    while folder.is_locked():
        if time.monotonic() > deadline:
            raise BrokerUnavailableError(f"Kafka (prosess {run.pid}) stoppet ikke innen {timeout_s:.0f} s")
        time.sleep(_POLL_S)
    ClassArchive(run.archive, run.draft).keep()
    return True


def _check_ports(state: State) -> None:
    for port in (state.port, state.controller_port):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError as error:
                raise ConfigurationError(
                    f"port {port}, som Kafka i denne mappen har, brukes av et annet program"
                ) from error


def _accepts(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=1.0).close()
    except OSError:
        return False
    return True


def _quoted(argument: str) -> str:
    """Quote for a java ``@file``."""
    escaped = argument.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
