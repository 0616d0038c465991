"""One connector process: many kommuner, each with its own fagsystem, breaker and subscription, none of which slows another.

A kommune's subscription that breaks, or a local store that does not answer, begins again after a while, and the others do not
notice. What ends the process is a wrong
setting, or a mistake of our own.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from broker.delivery_messages import Limits
from broker.kafka.subscriber import KafkaSubscriber, KafkaTail
from broker.log import get_logger
from broker.retry import ALWAYS, Random, delay
from broker.routing import consumer_group, kvittering_topic, soknad_topic
from broker.runtime import first_of_ours
from consumers.connector import ConnectorContext
from consumers.delivering import Deliverer
from consumers.guard import GuardedConnector
from consumers.hendelser import HendelseHandler, Innsyn
from consumers.kvitteringer import Kvitteringer
from consumers.lookahead import Lookahead
from consumers.opening import Opener
from consumers.rebuild import Rebuilder
from consumers.session import DeliverySession
from consumers.topic_guard import TopicGuard
from crypto import Signer
from schemas.errors import MeldingsformidlerError, StoreError, TransportError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from concurrent.futures import Executor

    from cryptography import x509
    from pydantic import BaseModel

    from broker.clock import Clock
    from broker.kafka.settings import KafkaSettings
    from broker.ports import Publisher, RebalanceListener
    from broker.record import TopicPartition
    from consumers.connector import AnySpec, FagsystemConnector
    from consumers.dedup import DedupStore
    from consumers.kvitteringer import Issuer
    from consumers.opening import PackageSource
    from consumers.topic_guard import Identities
    from crypto import KeyRing, Trust
    from schemas.names import DigisosId, Kommunenummer, Organisasjonsnummer

DELIVER_TIMEOUT: Final = timedelta(minutes=5)


@dataclass(frozen=True)
class Shared:
    """What all kommuner of a process have in common.

    Attributes:
        leverandor: The vendor; part of the groups' names.
        issuer: Who signs kvitteringer and updates.
        innsyn: Certificate that updates are sealed for.
        trust: Whose packages are accepted.
        kafka: Where to read, and as whom.
        publisher: Started.
        dokumentlager: Where large packages are.
        store: Open.
        pool: As many threads as cores.
        clock: What the time is.
        random: Spreads retries.
        without_forsendelse_from: Whose packages may lack ``forsendelse.json``.
        identities: Knows what topics are; None judges no topic.
    """

    leverandor: str
    issuer: Issuer
    innsyn: x509.Certificate
    trust: Trust
    kafka: KafkaSettings
    publisher: Publisher
    dokumentlager: PackageSource
    store: DedupStore
    pool: Executor
    clock: Clock
    random: Random
    without_forsendelse_from: frozenset[Organisasjonsnummer] = frozenset()
    identities: Identities | None = None


@dataclass(frozen=True)
class Kommune:
    """One kommune as it is set up.

    Attributes:
        kommunenummer: The kommune.
        keys: Its private keys.
        spec: Kind of connector.
        settings: The connector's own, valid by ``spec.settings``.
        limits: How much it may have open.
    """

    kommunenummer: Kommunenummer
    keys: KeyRing
    spec: AnySpec
    settings: BaseModel
    limits: Limits = field(default_factory=Limits)


class KommuneRunner:
    """Serves one kommune.

    Args:
        kommune: Whom.
        shared: With what.
        connector: The fagsystem; made by the kommune's spec if not given.
    """

    def __init__(self, kommune: Kommune, shared: Shared, *, connector: FagsystemConnector | None = None) -> None:
        number = kommune.kommunenummer
        context = ConnectorContext(number, shared.clock, shared.store.state(number))
        self._connector = GuardedConnector(
            connector or kommune.spec.create(kommune.settings, context), timeout=DELIVER_TIMEOUT
        )
        self._shared = shared
        self._number = number
        self._limits = kommune.limits
        self._group = consumer_group(shared.leverandor, number)
        self._kvitteringer = Kvitteringer(
            number, issuer=shared.issuer, store=shared.store, publisher=shared.publisher, clock=shared.clock
        )
        self._deliverer = Deliverer(
            number,
            group=self._group,
            opener=Opener(
                kommune.keys, shared.trust, shared.dokumentlager, shared.pool, shared.without_forsendelse_from
            ),
            connector=self._connector,
            store=shared.store,
            kvitteringer=self._kvitteringer,
            publisher=shared.publisher,
            clock=shared.clock,
        )
        self._hendelser = HendelseHandler(
            number,
            connector=self._connector,
            store=shared.store,
            kvitteringer=self._kvitteringer,
            innsyn=Innsyn(shared.issuer.name, shared.innsyn, Signer(shared.issuer.certificate, shared.issuer.key)),
            publisher=shared.publisher,
            clock=shared.clock,
            random=shared.random,
        )
        self._deliverer.on_answer = self._hendelser.release
        self._hendelser.owns = self._owns
        self._rebuilder = Rebuilder(
            number, issuer=shared.issuer, store=shared.store, open_tail=self._tail, guard=_guard(number, shared)
        )
        self._session: DeliverySession | None = None
        self._log = get_logger().bind(kommunenummer=number, group=self._group)

    def problem(self) -> str | None:
        """Return why the kommune is not served as it should be, None when all is well."""
        return "leser ikke fra Kafka" if self._session is None else self._session.problem()

    async def run(self) -> None:
        """Serve the kommune until cancelled.

        Raises:
            ConfigurationError: The connector can never work as it is set up.
        """
        await self._connector.start()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._hendelser.run())
                tasks.create_task(self._read_forever())
        finally:
            await self._close()

    async def _close(self) -> None:
        try:
            await self._connector.close()
            await self._kvitteringer.mark_published()
        except MeldingsformidlerError as error:
            self._log.warning("connector_not_closed", exc_info=error)

    async def _read_forever(self) -> None:
        failures = 0
        while True:
            self._session = None
            try:
                self._session = self._new_session()
                await self._session.run(self._subscriber)
            except* (TransportError, StoreError) as group:
                failures = 1 if self._session is not None and self._session.was_reading else failures + 1
                wait = delay(ALWAYS, failures, self._shared.random).total_seconds()
                self._log.warning("subscription_broke", vent_s=round(wait, 1), exc_info=first_of_ours(group))
                await asyncio.sleep(wait)

    def _new_session(self) -> DeliverySession:
        return DeliverySession(
            self._number,
            topic=soknad_topic(self._number),
            deliverer=self._deliverer,
            kvitteringer=self._kvitteringer,
            rebuilder=self._rebuilder,
            lookahead=Lookahead(self._number, topic=soknad_topic(self._number), open_tail=self._partial_tail),
            limits=self._limits,
            clock=self._shared.clock,
            random=self._shared.random,
            on_assigned=self._hendelser.release_all,
        )

    def _owns(self, digisos_id: DigisosId) -> bool:
        return self._session is not None and self._session.owns(digisos_id)

    def _subscriber(self, listener: RebalanceListener) -> KafkaSubscriber:
        return KafkaSubscriber(
            self._shared.kafka,
            [soknad_topic(self._number)],
            group=self._group,
            listener=listener,
            client_id=f"konnektor-{self._shared.issuer.name}",
        )

    def _tail(self, topics: Iterable[str], positions: Mapping[TopicPartition, int]) -> KafkaTail:
        return KafkaTail(self._shared.kafka, topics, offsets=positions)

    def _partial_tail(self, topics: Iterable[str], positions: Mapping[TopicPartition, int]) -> KafkaTail:
        return KafkaTail(self._shared.kafka, topics, offsets=positions, only_offsets=True)


def _guard(number: Kommunenummer, shared: Shared) -> TopicGuard | None:
    if shared.identities is None:
        return None
    topics = (soknad_topic(number), kvittering_topic(number))
    return TopicGuard(topics, identities=shared.identities, store=shared.store)


async def run_kommuner(runners: Iterable[KommuneRunner], stop: asyncio.Event) -> None:
    """Serve them all until ``stop`` is set; what is under way then gets some seconds to end.

    Raises:
        ConfigurationError: A connector can never work as it is set up.
    """
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(runner.run()) for runner in runners]
        await stop.wait()
        for task in running:
            task.cancel()
