"""The ``producers`` process put together: what it is made of, and in which order that starts and stops."""

from __future__ import annotations

import asyncio
import gc
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from broker.kafka.publisher import KafkaPublisher
from broker.kafka.subscriber import read_from_start
from broker.katalog import Katalog, KatalogFollower
from broker.krasj import crash_point
from broker.log import get_logger
from broker.process_clock import check_time
from broker.routing import KATALOG, TRANSPORT, soknad_topic
from broker.tokens import HttpJwks, TokenVerifier
from broker.web import Health, serve
from crypto.certificates import load_certificate
from crypto.keys import KeyRing, Signer, load_private_key, load_secret
from producers import metrics
from producers.app import create_app
from producers.dokumentlager import DiskDokumentlager
from producers.drift_routes import Drift, drift_router
from producers.guards import Guards
from producers.kanalvern import Kanalvern
from producers.kopivern import Kopivern
from producers.library import IntakeKeys, Producer
from producers.oppbevaring import Kept, keep_retention
from producers.outbox import Outbox
from producers.places import Places
from schemas.errors import TransportError
from schemas.names import MIN_EIER_KEY_BYTES

if TYPE_CHECKING:
    import httpx
    from fastapi import FastAPI

    from broker.kafka.settings import KafkaSettings
    from broker.process_clock import ProcessClock
    from broker.sql import Database
    from producers.settings import ProducersSettings


@dataclass(frozen=True)
class Ground:
    """What everything else stands on.

    Attributes:
        settings: The process's.
        kafka: Where Kafka is, and as whom.
        clock: What the time is.
        database: Opened.
        http: Fetches the issuer's keys.
    """

    settings: ProducersSettings
    kafka: KafkaSettings
    clock: ProcessClock
    database: Database
    http: httpx.AsyncClient


class Assembly:
    """One process. Made, then ``prepare``, then ``run``.

    Args:
        ground: What it stands on.
    """

    def __init__(self, ground: Ground) -> None:
        settings, self._clock = ground.settings, ground.clock
        self._settings = settings
        self._katalog = Katalog()
        self._follower = KatalogFollower(self._katalog, lambda: read_from_start(ground.kafka, [KATALOG]))
        self._publisher = KafkaPublisher(ground.kafka, client_id="producers")
        self._dokumentlager = DiskDokumentlager(settings.dokumentlager)
        self._outbox = Outbox(ground.database)
        self._copies = Kopivern.of(
            settings,
            ground.kafka,
            ground.database,
            self._outbox,
            self._dokumentlager,
            katalog=self._katalog,
            following=self._follower,
            clock=ground.clock,
        )
        self._channels = Kanalvern(
            self._copies.kopier,
            self._outbox,
            katalog=self._katalog,
            following=self._follower,
            kafka=ground.kafka,
            clock=ground.clock,
            utskrift=settings.utskrift,
        )
        self._guards = Guards(settings.database, ground.database, self._outbox, self._katalog, ground.kafka)
        self._producer = self._intake()
        self._tokens = TokenVerifier(
            settings.issuer, settings.audience, HttpJwks(settings.jwks_url, ground.http), ground.clock
        )
        self._relay = self._guards.relay(
            self._outbox,
            self._publisher,
            ground.clock,
            forsegler=self._copies.forsegler,
            packages=self._producer.packages,
        )

    async def prepare(self) -> None:
        """See that what is stored may be worked on, and tidy up after a crash.

        Raises:
            ConfigurationError: What is stored is of a later time than now.
            StoreError: The database cannot be read.
        """
        check_time(await self._outbox.newest(), self._clock())
        await _sweep(self._dokumentlager, self._outbox)
        crash_point("producers.start.swept")

    async def run(self, stop: asyncio.Event) -> None:
        """Take in and publish until ``stop``. The door closes first; what came in through it may still leave."""
        app = self._app()
        # All that was imported lives as long as the process; looking through it for garbage stops the loop for 30 ms.
        gc.freeze()
        settings, relay_stop = self._settings, asyncio.Event()
        kept = Kept(kopi=settings.kopi_oppbevaring, pakke=settings.pakke_oppbevaring)
        async with asyncio.TaskGroup() as tasks:
            relaying = tasks.create_task(self._relay.run(relay_stop))
            others = [
                tasks.create_task(self._follower.run()),
                tasks.create_task(_warm(self._publisher, self._follower, self._katalog)),
                tasks.create_task(keep_retention(self._copies.kopier, kept, self._clock, self._guards.register.level)),
            ]
            for part in (self._guards, self._copies, self._channels):
                part.start(tasks)
            await serve(app, settings.host, settings.port, stop)
            relay_stop.set()
            await relaying
            for part in (self._channels, self._copies, self._guards):
                await part.stop()
            for task in others:
                task.cancel()
        self._producer.close()
        await self._publisher.stop()

    def _intake(self) -> Producer:
        settings = self._settings
        signer = Signer(load_certificate(settings.signing_certificate), load_private_key(settings.signing_key))
        eier_key = load_secret(settings.eier_key, MIN_EIER_KEY_BYTES)
        return Producer(
            katalog=self._katalog,
            katalog_problem=self._follower.problem,
            outbox=self._outbox,
            dokumentlager=self._dokumentlager,
            kopier=self._copies.kopier,
            keys=IntakeKeys(signer, KeyRing.load(*settings.mottak_keys), eier_key),
            limits=settings.limits(),
            clear_files=settings.allow_clear_files,
            clock=self._clock,
            closed=self._guards.register.problem,
            places=Places(settings.max_concurrent, settings.max_per_person),
            frist_bekreftet=settings.frist_bekreftet,
        )

    def _app(self) -> FastAPI:
        health, producer = Health(), self._producer
        health.add_check("katalog", self._follower.problem)
        self._guards.add_checks(health, self._relay)
        health.add_check("plasser", producer.places.problem)
        health.add_check("klokke", self._clock.problem)
        app = create_app(
            producer=producer,
            tokens=self._tokens,
            katalog=self._katalog,
            certificate=load_certificate(self._settings.mottak_certificate),
            health=health,
        )
        drift = Drift(
            self._tokens, producer.avsender, self._outbox, producer.packages, self._guards, health, self._clock
        )
        app.include_router(drift_router(drift))
        self._copies.install(app, health, self._tokens, producer.avsender)
        return app


async def _sweep(dokumentlager: DiskDokumentlager, outbox: Outbox) -> None:
    """Remove what was never committed, and tell of packages that no submission refers to."""
    swept = await asyncio.to_thread(dokumentlager.sweep, await outbox.packages())
    get_logger().info("dokumentlager_swept", antall=swept.removed)
    metrics.PACKAGES_UNKNOWN.set(swept.unknown)
    if swept.unknown:
        get_logger().warning("packages_unknown", antall=swept.unknown)


async def _warm(publisher: KafkaPublisher, follower: KatalogFollower, katalog: Katalog) -> None:
    """Learn where all topics are at once; the relay would ask for one at a time."""
    await follower.caught_up.wait()
    with suppress(TransportError):  # the relay finds out by itself, and says so
        await publisher.warm([TRANSPORT, *(soknad_topic(entry.kommunenummer) for entry in katalog.all())])
