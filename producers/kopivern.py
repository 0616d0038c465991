"""Everything about the sender's copies, put together for the composition root: keep, seal again, send again, destroy."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

from broker.kafka.subscriber import KafkaTail
from broker.operatorer import Operatorer
from crypto.certificates import load_certificate
from crypto.key_wrap import KeyWrapper
from crypto.trust import Trust
from producers.avsenderkopi import Avsenderkopier
from producers.forsegling import Forsegler
from producers.kopi_routes import KopiDrift, kopi_router
from producers.kvittering_follower import KvitteringFollower
from producers.omsending import Omsender
from producers.recall import Tilbakekaller
from producers.recall_routes import RecallDrift, recall_router

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from fastapi import FastAPI

    from broker.clock import Clock
    from broker.kafka.settings import KafkaSettings
    from broker.katalog import Katalog, KatalogFollower
    from broker.record import TopicPartition
    from broker.sql import Database
    from broker.tokens import TokenVerifier
    from broker.web import Health
    from producers.dokumentlager import Dokumentlager
    from producers.outbox import Outbox
    from producers.settings import ProducersSettings
    from schemas.names import Organisasjonsnummer


class Kopivern:
    """The sender's copies of one process.

    Args:
        kopier: The copies.
        katalog: The kommuner.
        following: Keeps the katalog.
        kafka: Where, and as whom.
        clock: What the time is.
        operatorer: Folder with the register of operators; None when nobody may recall.
    """

    def __init__(
        self,
        kopier: Avsenderkopier,
        katalog: Katalog,
        following: KatalogFollower,
        kafka: KafkaSettings,
        clock: Clock,
        *,
        operatorer: Path | None = None,
    ) -> None:
        def tail(topics: Iterable[str], offsets: Mapping[TopicPartition, int]) -> KafkaTail:
            return KafkaTail(kafka, topics, offsets=offsets, client_id="producers-kvitteringer")

        self.kopier = kopier
        self.forsegler = Forsegler(katalog, kopier, clock)
        self._omsender = Omsender(kopier, self.forsegler, clock)
        register = Operatorer(operatorer).load if operatorer else None
        self._recall = Tilbakekaller(kopier.database, self._omsender, register, clock, kopier.wake)
        self._katalog_ready = following.caught_up
        self._sealing_changed = following.listen()
        self._follower = KvitteringFollower(
            katalog=katalog, changed=following.listen(), open_tail=tail, kopier=kopier, clock=clock
        )
        self._tasks: list[asyncio.Task[None]] = []

    @classmethod
    def of(
        cls,
        settings: ProducersSettings,
        kafka: KafkaSettings,
        database: Database,
        outbox: Outbox,
        dokumentlager: Dokumentlager,
        *,
        katalog: Katalog,
        following: KatalogFollower,
        clock: Clock,
    ) -> Self:
        """Return the copies that the settings speak of.

        Raises:
            KeyFileError: A key file cannot be used.
            CertificateError: A certificate cannot be read.
        """
        signers = [settings.signing_certificate, *settings.former_signing_certificates]
        kopier = Avsenderkopier(
            database,
            dokumentlager,
            wrapper=KeyWrapper.load(*settings.kopi_keys),
            trust=Trust(pinned=[load_certificate(path) for path in signers]),
            added=outbox.added.set,
        )
        return cls(kopier, katalog, following, kafka, clock, operatorer=settings.operatorer)

    def install(self, app: FastAPI, health: Health, tokens: TokenVerifier, avsender: Organisasjonsnummer) -> None:
        """Add the operators' routes, and what ``/isready`` tells."""
        health.add_notice("sertifikater", self.forsegler.problem)
        app.include_router(kopi_router(KopiDrift(tokens, avsender, self.kopier, self._omsender)))
        app.include_router(recall_router(RecallDrift(tokens, avsender, self._recall)))

    def start(self, tasks: asyncio.TaskGroup) -> None:
        """Begin to look at certificates and to read kvitteringer."""
        self._tasks = [
            tasks.create_task(self.forsegler.watch(self._sealing_changed)),
            tasks.create_task(self._follower.run(self._katalog_ready)),
        ]

    async def stop(self) -> None:
        """End, when the relay has."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
