"""Everything up: Kafka, then the processes side by side; then watch; then everything down, one after the other.

A process that is alive but not ready in time is no reason to stop the others: unless ``strict``, it is told with its reason and
its log, and watched on like the rest. One that is set up wrongly is a reason: it would never be ready.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

import httpx
from filelock import FileLock, Timeout

from broker.embedded.server import EmbeddedKafka
from broker.kafka.admin import KafkaAdmin
from broker.kafka.settings import KafkaSettings
from broker.katalog import load_katalog
from broker.log import get_logger
from broker.process_clock import CLOCK_ENV, ProcessClock
from broker.runtime import INSTANCE_HEADER
from broker.supervisor.bootstrap import complete
from broker.supervisor.children import Child
from broker.supervisor.housekeeping import keep_house
from broker.supervisor.provisioning import principals, provision, wanted_topics
from broker.supervisor.spec import ProcessSpec, find_processes
from schemas.errors import BrokerUnavailableError, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable

    from broker.supervisor.layout import Layout

READY_WITHIN_S: Final = 60.0
REACHED_WITHIN_S: Final = 6.0
_POLL_S: Final = 0.05
_STRANGER: Final = "en annen prosess svarer på adressen"


class Running:
    """A set-up that is up.

    Args:
        layout: Its folder and addresses.
        kafka: Settings of a principal that may do anything, for provisioning, demo and tests.
        tasks: Where the children are watched.
        report: Told, in a few words, what is being done.
        strict: Whether a process that is not ready in time is an error.

    Attributes:
        not_ready: Processes that were not ready in time, and why; always empty when ``strict``.
    """

    def __init__(
        self,
        layout: Layout,
        kafka: KafkaSettings,
        tasks: asyncio.TaskGroup,
        report: Callable[[str], None],
        *,
        strict: bool = True,
    ) -> None:
        self.layout = layout
        self.kafka = kafka
        self.children: dict[str, Child] = {}
        self.not_ready: dict[str, str] = {}
        self._strict = strict
        self._orders: dict[str, int] = {}
        self._watchers: dict[str, asyncio.Task[None]] = {}
        self._tasks = tasks
        self._report = report

    async def start(self, spec: ProcessSpec) -> None:
        """Start one process and wait until it is ready.

        Raises:
            ConfigurationError: It cannot start.
            BrokerUnavailableError: It is not ready after a minute, and either it is not alive, or this is ``strict``.
        """
        self._report(f"starter {spec.name}")
        environment = {CLOCK_ENV: str(self.layout.clock), **spec.environment(self.layout)}
        child = Child(spec.name, spec.module, environment, self.layout.log(spec.name))
        self.children[spec.name] = child
        self._orders[spec.name] = spec.order
        self._watchers[spec.name] = self._tasks.create_task(child.run())
        try:
            await self._wait_until_ready(child)
        except BrokerUnavailableError as error:
            if self._strict or child.pid is None:
                raise
            get_logger().error("child_not_ready", navn=spec.name, vent_s=READY_WITHIN_S)
            self.not_ready[spec.name] = str(error)
            self._report(f"{error}. De andre går videre, og den kan bli klar senere")

    async def start_all(self, specs: Iterable[ProcessSpec]) -> None:
        """Start processes side by side; each waits by itself for what it needs. What is not ready then is in ``not_ready``."""
        async with asyncio.TaskGroup() as starting:
            for spec in specs:
                starting.create_task(self.start(spec))

    async def start_named(self, name: str) -> None:
        """Start a process of this set-up that was left out so far.

        Raises:
            ConfigurationError: There is none of that name, or it cannot start.
        """
        for spec in find_processes(self.layout):
            if spec.name == name:
                return await self.start(spec)
        raise ConfigurationError(f"oppsettet har ingen prosess {name}")

    async def stop(self, name: str) -> None:
        """Stop one process; it may have been stopped before."""
        child = self.children.pop(name, None)
        if child is not None:
            await child.stop()
            await asyncio.wait([self._watchers.pop(name)])

    async def stop_all(self) -> None:
        """Stop every process: those of the highest order first, those of one order side by side."""
        for order in sorted({self._orders[name] for name in self.children}, reverse=True):
            names = [name for name in self.children if self._orders[name] == order]
            await asyncio.gather(*(self.stop(name) for name in names))

    async def _wait_until_ready(self, child: Child) -> None:
        deadline = asyncio.get_running_loop().time() + READY_WITHIN_S
        problem: str | None = "svarer ikke"
        async with httpx.AsyncClient(base_url=self.layout.address(child.name), timeout=2) as http:
            while asyncio.get_running_loop().time() < deadline:
                with suppress(httpx.TransportError):
                    problem = _problem(await http.get("/isready"), child.instance)
                if problem is None:
                    return
                await asyncio.sleep(_POLL_S)
        log = self.layout.log(child.name)
        raise BrokerUnavailableError(f"{child.name} ble ikke klar på {READY_WITHIN_S:.0f} s: {problem}; se {log}")


def _problem(answer: httpx.Response, instance: str) -> str | None:
    """Return why this answer from ``/isready`` does not mean that our child is ready, or None."""
    if answer.headers.get(INSTANCE_HEADER) != instance:
        return _STRANGER
    if answer.is_success:
        return None
    try:
        return str(answer.json()["mangler"])
    except (ValueError, KeyError, TypeError):
        return f"svarer {answer.status_code}"


@asynccontextmanager
async def running(
    layout: Layout,
    *,
    external: KafkaSettings | None,
    report: Callable[[str], None],
    leave_out: frozenset[str] = frozenset(),
    strict: bool = True,
) -> AsyncGenerator[Running]:
    """Run the set-up in ``layout`` for as long as the context lasts.

    Args:
        layout: An existing set-up.
        external: A cluster to use instead of the embedded broker.
        report: Told, in a few words, what is being done.
        leave_out: Names of processes not to start.
        strict: Whether a process that is alive but not ready in time is an error, or goes to ``Running.not_ready``.

    Raises:
        ConfigurationError: Another ``formidler up`` runs on this folder, or a process cannot start.
    """
    async with AsyncExitStack() as stack:
        stack.enter_context(_only_one(layout))
        complete(layout)
        kafka = external or await _embedded_kafka(layout, stack, report)
        await _give_access(layout, kafka, embedded=external is None, report=report)
        specs = find_processes(layout)
        layout.reserve_ports(spec.name for spec in specs)
        async with asyncio.TaskGroup() as tasks:
            up = Running(layout, kafka, tasks, report, strict=strict)
            keeping: asyncio.Task[None] | None = None
            try:
                await up.start_all(spec for spec in specs if spec.name not in leave_out)
                if external is None:
                    keeping = tasks.create_task(_keep_house(layout, kafka))
                yield up
            finally:
                if keeping is not None:
                    keeping.cancel()
                report("stopper")
                await up.stop_all()


async def _keep_house(layout: Layout, kafka: KafkaSettings) -> None:
    await keep_house(kafka, lambda: wanted_topics(layout, load_katalog(layout.katalog)), ProcessClock(layout.clock))


def _only_one(layout: Layout) -> AbstractContextManager[object]:
    try:
        return FileLock(
            layout.folder / "oppe.lock", timeout=0
        ).acquire()  # held once: ``FileLock`` itself would count two
    except Timeout:
        text = f"{layout.folder} er i bruk av en annen `formidler up`; stopp den, eller velg en annen mappe med --data"
        raise ConfigurationError(text) from None


async def _embedded_kafka(layout: Layout, stack: AsyncExitStack, report: Callable[[str], None]) -> KafkaSettings:
    report("starter Kafka")
    server = EmbeddedKafka(layout.folder / "kafka")
    await asyncio.to_thread(server.start)
    stack.push_async_callback(asyncio.to_thread, server.stop)
    get_logger().info("kafka_started", bootstrap=server.bootstrap)
    return server.admin


async def _give_access(layout: Layout, kafka: KafkaSettings, *, embedded: bool, report: Callable[[str], None]) -> None:
    """Provision an embedded broker by principal; on a cluster of somebody else's, only the topics are ours to make."""
    report("lager topics og rettigheter")
    katalog = load_katalog(layout.katalog)
    if not embedded:
        await check_reachable(kafka)
    async with KafkaAdmin(kafka) as admin:
        if not embedded:
            await admin.ensure_topics(wanted_topics(layout, katalog))
            layout.kafka = {principal: kafka.environment() for principal in principals(layout)}
            return
        passwords = await provision(layout, katalog, admin)
    layout.kafka = {
        principal: kafka.as_user(principal, password).environment() for principal, password in passwords.items()
    }


async def check_reachable(kafka: KafkaSettings) -> None:
    """Find out, in seconds, whether somebody else's cluster is there and takes us in.

    Raises:
        BrokerUnavailableError: Nobody listens, or whoever does will not speak with us; the text says what to set.
        AccessDeniedError: The user or the password is refused.
    """
    async with KafkaAdmin(kafka, timeout_s=REACHED_WITHIN_S) as admin:
        try:
            await admin.list_topics()
        except BrokerUnavailableError as error:
            raise BrokerUnavailableError(
                f"Kafka på {kafka.bootstrap} svarer ikke på {REACHED_WITHIN_S:.0f} s som {kafka.security_protocol}. "
                "Er adressen riktig? Krever den innlogging, så sett FORMIDLER_KAFKA_SECURITY_PROTOCOL (for eksempel "
                "SASL_PLAINTEXT), FORMIDLER_KAFKA_USERNAME og FORMIDLER_KAFKA_PASSWORD"
            ) from error
