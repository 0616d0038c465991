"""The ``producers`` process's composition root: ``python -m producers``."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from contextlib import suppress

import httpx

from broker.kafka.publisher import KafkaPublisher
from broker.kafka.settings import KafkaSettings
from broker.kafka.subscriber import read_from_start
from broker.katalog import Katalog, KatalogFollower
from broker.krasj import crash_point
from broker.log import get_logger
from broker.process_clock import check_time, process_clock
from broker.routing import KATALOG, TRANSPORT, soknad_topic
from broker.runtime import run_process
from broker.settings import load_settings
from broker.sql import open_database
from broker.tokens import HttpJwks, TokenVerifier
from broker.web import Health, serve
from crypto.certificates import load_certificate
from crypto.keys import KeyRing, Signer, load_private_key, load_secret
from producers import metrics
from producers.app import create_app
from producers.database import MIGRATIONS
from producers.dokumentlager import DiskDokumentlager
from producers.drift_routes import Drift, drift_router
from producers.guards import Guards
from producers.kanalvern import Kanalvern
from producers.kopivern import Kopivern
from producers.library import IntakeKeys, Producer
from producers.oppbevaring import Kept, keep_retention
from producers.outbox import Outbox
from producers.places import Places
from producers.settings import ProducersSettings
from schemas.errors import TransportError
from schemas.names import MIN_EIER_KEY_BYTES


async def main(stop: asyncio.Event) -> None:
    """Take søknader in and publish them, until ``stop``."""
    settings = load_settings(ProducersSettings)
    kafka = KafkaSettings.from_environment(os.environ)
    clock = process_clock(os.environ)
    katalog = Katalog()
    follower = KatalogFollower(katalog, lambda: read_from_start(kafka, [KATALOG]))
    publisher = KafkaPublisher(kafka, client_id="producers")
    dokumentlager = DiskDokumentlager(settings.dokumentlager)
    async with open_database(settings.database, MIGRATIONS) as database, httpx.AsyncClient() as http:
        outbox = Outbox(database)
        copies = Kopivern.of(
            settings, kafka, database, outbox, dokumentlager, katalog=katalog, following=follower, clock=clock
        )
        channels = Kanalvern(
            copies.kopier,
            outbox,
            katalog=katalog,
            following=follower,
            kafka=kafka,
            clock=clock,
            utskrift=settings.utskrift,
        )
        check_time(await outbox.newest(), clock())
        guards = Guards(settings.database, database, outbox, katalog, kafka)
        await _sweep(dokumentlager, outbox)
        crash_point("producers.start.swept")
        producer = Producer(
            katalog=katalog,
            katalog_problem=follower.problem,
            outbox=outbox,
            dokumentlager=dokumentlager,
            kopier=copies.kopier,
            keys=_keys(settings),
            limits=settings.limits(),
            clear_files=settings.allow_clear_files,
            clock=clock,
            closed=guards.register.problem,
            places=Places(settings.max_concurrent, settings.max_per_person),
            frist_bekreftet=settings.frist_bekreftet,
        )
        tokens = TokenVerifier(settings.issuer, settings.audience, HttpJwks(settings.jwks_url, http), clock)
        relay = guards.relay(outbox, publisher, clock, forsegler=copies.forsegler, packages=producer.packages)
        health = Health()
        health.add_check("katalog", follower.problem)
        guards.add_checks(health, relay)
        health.add_check("plasser", producer.places.problem)
        health.add_check("klokke", clock.problem)
        app = create_app(
            producer=producer,
            tokens=tokens,
            katalog=katalog,
            certificate=load_certificate(settings.mottak_certificate),
            health=health,
        )
        drift = Drift(tokens, producer.avsender, outbox, producer.packages, guards, health)
        app.include_router(drift_router(drift))
        copies.install(app, health, tokens, producer.avsender)
        # All that was imported lives as long as the process; looking through it for garbage stops the loop for 30 ms.
        gc.freeze()
        relay_stop = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            following = tasks.create_task(follower.run())
            guards.start(tasks)
            warming = tasks.create_task(_warm(publisher, follower, katalog))
            relaying = tasks.create_task(relay.run(relay_stop))
            copies.start(tasks)
            channels.start(tasks)
            kept = Kept(kopi=settings.kopi_oppbevaring, pakke=settings.pakke_oppbevaring)
            clearing = tasks.create_task(keep_retention(copies.kopier, kept, clock))
            # The door closes first; what came in through it may still leave.
            await serve(app, settings.host, settings.port, stop)
            relay_stop.set()
            await relaying
            await channels.stop()
            await copies.stop()
            await guards.stop()
            following.cancel()
            warming.cancel()
            clearing.cancel()
        producer.close()
        await publisher.stop()


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


def _keys(settings: ProducersSettings) -> IntakeKeys:
    signer = Signer(load_certificate(settings.signing_certificate), load_private_key(settings.signing_key))
    return IntakeKeys(signer, KeyRing.load(*settings.mottak_keys), load_secret(settings.eier_key, MIN_EIER_KEY_BYTES))


if __name__ == "__main__":
    sys.exit(run_process("producers", main))
