"""The real thing in a temporary folder: Kafka, every process under the supervisor's own children, and the means to break them."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import httpx
import yaml
from network import Network, ProxiedFolder
from waiting import until

from broker.clock import system_clock
from broker.embedded.server import EmbeddedKafka
from broker.kafka.admin import KafkaAdmin
from broker.katalog import load_katalog
from broker.krasj import KRASJ_ENV, KRASJ_FILE_ENV
from broker.supervisor.bootstrap import FILEDROP_CONNECTOR, HTTP_CONNECTOR, bootstrap, choose_connectors
from broker.supervisor.layout import free_ports
from broker.supervisor.provisioning import provision
from broker.supervisor.spec import find_processes
from broker.supervisor.up import Running
from consumers.settings import CONFIG_ENV
from schemas.names import Kommunenummer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from broker.kafka.settings import KafkaSettings
    from broker.supervisor.layout import Layout
    from broker.supervisor.spec import ProcessSpec

KOMMUNER: Final = tuple(map(Kommunenummer, ("4641", "1811", "5612")))
"""The first two have the fagsystem that speaks HTTP, the third drops files."""
ON_PAPER: Final = Kommunenummer("1144")
"""Its fagsystem is always down and its deadline short, so that everything to it ends on paper."""
DEADLINE: Final = "PT4S"
NOBODY: Final = "http://127.0.0.1:1"
OVER_HTTP: Final = KOMMUNER[:2]
OVER_FILES: Final = KOMMUNER[2]
HTTP_PROCESS: Final = f"konnektor-{HTTP_CONNECTOR}"
FILE_PROCESS: Final = f"konnektor-{FILEDROP_CONNECTOR}"

SESSION_TIMEOUT_MS: Final = 6000
"""The shortest that the broker allows: a connector that was killed is missed for so long before its partitions move."""
ANSWER_WITHIN_S: Final = 5.0
RESTART_WITHIN_S: Final = 60.0
KAFKA: Final = "kafka"
FAGSYSTEM: Final = "fagsystem"


class World:
    """A set-up that is up. Use as an asynchronous context manager.

    Args:
        folder: Empty; everything lies in it.
        network: Put between the processes and Kafka, and between a connector and its fagsystem, if given.
        report: Told, in a few words, what is being done.
    """

    def __init__(self, folder: Path, network: Network | None, report: Callable[[str], None]) -> None:
        self.layout: Layout = bootstrap(folder, choose_connectors((*KOMMUNER, ON_PAPER)), system_clock())
        self.network = network
        self.kafka = EmbeddedKafka(self.layout.folder / "kafka")
        self._listen, self._proxy, self._fagsystem_proxy = free_ports(3)
        if network is not None:
            self.kafka.folder = ProxiedFolder(self.layout.folder / "kafka", self._listen, self._proxy)
        self._report = report
        self._stack = AsyncExitStack()
        self._specs: dict[str, ProcessSpec] = {}
        self._markers = self.layout.folder / "krasj"
        self._markers.mkdir()
        self._armed = 0

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self._report("stopper")
        await self._stack.aclose()

    @property
    def admin(self) -> KafkaSettings:
        """How to reach Kafka past the proxy, as somebody who may do anything."""
        return self.kafka.admin

    async def _start(self) -> None:
        self._report("starter Kafka")
        self._stack.push_async_callback(asyncio.to_thread, self.kafka.kill)  # the folder is thrown away
        await asyncio.to_thread(self.kafka.start)
        if self.network is not None:
            await self.network.open(KAFKA, self._proxy, self._listen)
        await self.give_access()
        found = find_processes(self.layout)
        self.layout.reserve_ports(spec.name for spec in found)
        self._specs = {spec.name: spec for spec in found}
        if self.network is not None:
            await self.network.open(FAGSYSTEM, self._fagsystem_proxy, self.layout.port("fagsystem"))
        self._settle_connectors()
        self._settle_deadlines()
        tasks = await self._stack.enter_async_context(asyncio.TaskGroup())
        self.up = Running(self.layout, self.admin, tasks, self._report)
        self._stack.push_async_callback(self.up.stop_all)
        await self.up.start_all(self._specs.values())

    async def give_access(self) -> None:
        """Make topics, users and rights, as the supervisor does."""
        async with KafkaAdmin(self.admin) as admin:
            passwords = await provision(self.layout, load_katalog(self.layout.katalog), admin)
        through = f"127.0.0.1:{self._proxy}" if self.network is not None else self.admin.bootstrap
        settings = self.admin.model_copy(update={"session_timeout_ms": SESSION_TIMEOUT_MS, "bootstrap": through})
        self.layout.kafka = {
            principal: settings.as_user(principal, password).environment() for principal, password in passwords.items()
        }

    def _settle_connectors(self) -> None:
        """Let connectors write their settings, and lead them to the fagsystem through the proxy, with little patience."""
        direct = self.layout.address("fagsystem")
        for name in (HTTP_PROCESS, FILE_PROCESS):
            self._specs[name].environment(self.layout)
            path = self.layout.connector_config(name.removeprefix("konnektor-"))
            document: dict[str, Any] = yaml.safe_load(path.read_bytes())
            for kommune in document["kommuner"]:
                own = kommune["innstillinger"]
                if kommune["kommunenummer"] == ON_PAPER:
                    own["url"] = NOBODY
                elif kommune["type"] == "http":
                    own["tidsgrense_s"] = ANSWER_WITHIN_S
                    if self.network is not None:
                        own["url"] = own["url"].replace(direct, f"http://127.0.0.1:{self._fagsystem_proxy}")
            path.write_text(yaml.safe_dump(document, allow_unicode=True, sort_keys=False), "utf-8")

    def _settle_deadlines(self) -> None:
        """Give the one kommune a short deadline, and let the watch act a second after it."""
        document: dict[str, Any] = yaml.safe_load(self.layout.katalog.read_bytes())
        for entry in document["kommuner"]:
            if entry["kommunenummer"] == ON_PAPER:
                entry["frist_bekreftet"] = DEADLINE
        self.layout.katalog.write_text(yaml.safe_dump(document, allow_unicode=True, sort_keys=False), "utf-8")
        spec = self._specs["kvittering"]
        add = {"FORMIDLER_KVITTERING_FRIST_MARGIN": "PT1S"}
        self._specs["kvittering"] = replace(spec, environment=partial(_with, spec.environment, add))

    # Breaking things.

    async def restart_to_crash(self, name: str, point: str, nth: int) -> Path:
        """Start a process anew so that its next life ends at ``point``; return the file that tells when it did."""
        marker = self.new_marker()
        spec = self._specs[name]
        add = {KRASJ_ENV: f"{point}:{nth}", KRASJ_FILE_ENV: str(marker)}
        await self.up.stop(name)
        await self.up.start(replace(spec, environment=partial(_with, spec.environment, add)))
        return marker

    async def start_second(self, name: str) -> str:
        """Start one more process of a connector, with a memory of its own; return its name."""
        second = f"{name}-2"
        self.layout.reserve_ports([second])
        spec = self._specs[name]
        environment = dict(spec.environment(self.layout))
        path = self._write_second(Path(environment[CONFIG_ENV]), second)
        await self.up.start(replace(spec, name=second, environment=lambda _: {**environment, CONFIG_ENV: str(path)}))
        return second

    def _write_second(self, first: Path, name: str) -> Path:
        path = self.layout.connector_config(name.removeprefix("konnektor-"))
        document: dict[str, Any] = yaml.safe_load(first.read_bytes())
        document |= {"database": str(self.layout.database(name)), "port": self.layout.port(name)}
        path.write_text(yaml.safe_dump(document, allow_unicode=True, sort_keys=False), "utf-8")
        path.chmod(0o600)
        return path

    async def kill(self, name: str) -> None:
        """Kill a process as it is; its supervisor starts it again."""
        child = self.up.children[name]
        if await until(lambda: child.pid is not None, RESTART_WITHIN_S) and child.pid is not None:
            os.kill(child.pid, signal.SIGKILL)

    async def restart_kafka(self, *, down_s: float = 0.0) -> None:
        """Kill Kafka, and start it again after a while."""
        await asyncio.to_thread(self.kafka.kill)
        await until(lambda: False, down_s)  # an outage has a length, which nothing tells
        await asyncio.to_thread(self.kafka.start)

    async def lose_kafka(self) -> None:
        """Kill Kafka and take its folder away; begin with a new one, as whoever runs ``formidler up`` would."""
        await asyncio.to_thread(self.kafka.kill)
        await self.stop(*self._specs)
        await asyncio.to_thread(shutil.rmtree, self.layout.folder / "kafka")
        await asyncio.to_thread(self.kafka.start)
        await self.give_access()

    async def stop(self, *names: str) -> None:
        """Stop processes in good order."""
        await asyncio.gather(*(self.up.stop(name) for name in names))

    async def start(self, *names: str) -> None:
        """Start processes, and wait until each is ready or a minute has passed."""
        await self.up.start_all([self._specs[name] for name in names])

    async def start_to_see(self, name: str, text: str) -> None:
        """Start a process that is not going to be ready, and return when its ``/isready`` says ``text``."""
        starting = asyncio.create_task(self.up.start(self._specs[name]))

        async def says() -> bool:
            try:
                async with httpx.AsyncClient(timeout=2) as http:
                    return text in (await http.get(f"{self.layout.address(name)}/isready")).text
            except httpx.TransportError:
                return False

        seen = await until(says, RESTART_WITHIN_S)
        starting.cancel()
        await asyncio.wait([starting])
        if not seen:
            raise TimeoutError(f"{name} sa aldri «{text}»")

    async def formidler(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command as an operator does, on this set-up."""
        return await self.command(*arguments, "--data", str(self.layout.folder), **environment)

    async def command(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command."""
        command = [sys.executable, "-m", "broker.cli", *arguments]
        return await asyncio.to_thread(
            subprocess.run, command, capture_output=True, text=True, check=False, env={**os.environ, **environment}
        )

    def new_marker(self) -> Path:
        """Return a file that a process may make when it dies at a crash point."""
        self._armed += 1
        return self._markers / f"{self._armed:05}"


def _with(environment: Callable[[Layout], Mapping[str, str]], add: dict[str, str], layout: Layout) -> dict[str, str]:
    return {**environment(layout), **add}
