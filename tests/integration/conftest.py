from __future__ import annotations

import asyncio
import itertools
import random
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest

from broker.embedded.server import EmbeddedKafka
from broker.kafka.admin import KafkaAdmin
from broker.kafka.publisher import KafkaPublisher
from broker.kafka.subscriber import KafkaSubscriber, KafkaTail
from broker.routing import central_topics, connector_rights, kommune_topics, process_rights
from schemas.names import Kommunenummer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from broker.kafka.settings import KafkaSettings
    from broker.ports import RebalanceListener
    from broker.record import Incoming
    from broker.routing import AclRule, Process

VENDOR = "acme"
SESSION_TIMEOUT_MS = 6_000

# Every test gets numbers that no other test of the session has had; the first digit 9 is nobody's.
_numbers = itertools.cycle(random.SystemRandom().sample(range(9000, 10000), 1000))


class KafkaHelp:
    """One test's view of the session's broker: principals, kommuner, publishers and subscribers of its own."""

    def __init__(self, server: EmbeddedKafka, admin: KafkaAdmin, stack: AsyncExitStack) -> None:
        self.server = server
        self.admin = admin
        self.vendor = VENDOR
        self._stack = stack

    @property
    def admin_settings(self) -> KafkaSettings:
        return self.server.admin.model_copy(update={"session_timeout_ms": SESSION_TIMEOUT_MS})

    async def new_kommune(self, partitions: int = 2) -> Kommunenummer:
        """Return a fresh kommunenummer whose topics exist."""
        kommunenummer = Kommunenummer(f"{next(_numbers):04}")
        await self.admin.ensure_topics(kommune_topics(kommunenummer, partitions))
        return kommunenummer

    async def principal(self, name: str, rules: Iterable[AclRule] = ()) -> KafkaSettings:
        """Return the settings of a user who has exactly these rights (and those it had)."""
        password = secrets.token_urlsafe(12)
        await self.admin.upsert_user(name, password)
        await self.admin.ensure_acls(rules)
        return self.admin_settings.as_user(name, password)

    async def connector(self, kommunenummer: Kommunenummer, name: str | None = None) -> KafkaSettings:
        """Return the settings of a connector of ``vendor`` for this kommune."""
        name = name or f"connector-{kommunenummer}-{secrets.token_hex(4)}"
        return await self.principal(name, connector_rights(name, self.vendor, kommunenummer))

    async def process(self, process: Process, *kommunenummer: Kommunenummer) -> KafkaSettings:
        """Return the settings of a central process, with a user of its own and rights to these kommuner and the centre."""
        await self.admin.ensure_topics(central_topics())
        name = f"{process}-{secrets.token_hex(4)}"
        return await self.principal(name, process_rights(process, kommunenummer, principal=name))

    async def publisher(self, settings: KafkaSettings | None = None, **options: float) -> KafkaPublisher:
        """Return a started publisher; stopped after the test."""
        return await self._stack.enter_async_context(KafkaPublisher(settings or self.admin_settings, **options))

    async def subscriber(
        self,
        topics: Iterable[str],
        *,
        group: str,
        settings: KafkaSettings | None = None,
        listener: RebalanceListener | None = None,
    ) -> KafkaSubscriber:
        """Return a started subscriber; stopped after the test."""
        subscriber = KafkaSubscriber(settings or self.admin_settings, topics, group=group, listener=listener)
        return await self._stack.enter_async_context(subscriber)

    async def take(self, source: KafkaSubscriber | KafkaTail, count: int) -> list[Incoming]:
        """Read until there are ``count`` records or more."""
        found: list[Incoming] = []
        async with asyncio.timeout(30):
            async for batch in source:
                found += batch
                if len(found) >= count:
                    break
        return found

    async def tail(self, topics: Iterable[str], settings: KafkaSettings | None = None) -> KafkaTail:
        """Return a started reader of whole topics; stopped after the test."""
        return await self._stack.enter_async_context(KafkaTail(settings or self.admin_settings, topics))


@pytest.fixture(scope="session")
def kafka_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka(tmp_path_factory.mktemp("kafka")) as server:
        yield server


@pytest.fixture
async def kafka(kafka_server: EmbeddedKafka) -> AsyncIterator[KafkaHelp]:
    async with asyncio.timeout(120), KafkaAdmin(kafka_server.admin) as admin, AsyncExitStack() as stack:
        yield KafkaHelp(kafka_server, admin, stack)
