"""The ``kvittering`` process's composition root: ``python -m kvittering``."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import httpx

from broker.kafka.identities import KafkaIdentities
from broker.kafka.publisher import KafkaPublisher
from broker.kafka.settings import KafkaSettings
from broker.kafka.subscriber import KafkaTail, read_from_start
from broker.katalog import Katalog, KatalogFollower
from broker.process_clock import ProcessClock, check_time, process_clock
from broker.routing import KATALOG
from broker.runtime import run_process
from broker.settings import load_settings
from broker.tokens import HttpJwks, TokenVerifier
from broker.web import Health, serve
from crypto.keys import KeyRing, load_secret
from kvittering.app import Innsyn, create_app
from kvittering.applier import Applier, watch_figures
from kvittering.emnevakt import TopicGuard
from kvittering.follower import Follower
from kvittering.hub import Hub
from kvittering.oppbevaring import keep_retention
from kvittering.outbox import OutboxPublisher
from kvittering.settings import KvitteringSettings
from kvittering.store import StatusStore
from kvittering.vakt import Vakt, frister_of
from schemas.names import MIN_EIER_KEY_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from broker.record import TopicPartition

CLIENT_ID = "kvittering"


async def main(stop: asyncio.Event) -> None:
    """Follow the topics and serve the status, until ``stop``."""
    settings = load_settings(KvitteringSettings)
    kafka = KafkaSettings.from_environment(os.environ)
    keys = KeyRing.load(*settings.innsyn_keys)
    clock = process_clock(os.environ)
    katalog, hub, health = Katalog(), Hub(), Health()
    katalog_follower = KatalogFollower(katalog, lambda: read_from_start(kafka, [KATALOG]))

    def open_tail(topics: Iterable[str], offsets: Mapping[TopicPartition, int]) -> KafkaTail:
        return KafkaTail(kafka, topics, offsets=offsets, client_id=CLIENT_ID)

    async with (
        StatusStore(settings.database, frister_of=frister_of(katalog, settings.frister())) as store,
        AsyncExitStack() as leaving,
        httpx.AsyncClient() as http,
        asyncio.TaskGroup() as tasks,
    ):
        check_time(await store.newest(), clock())
        # It connects by itself: the status is shown without Kafka too.
        publisher = KafkaPublisher(kafka, client_id=CLIENT_ID)
        leaving.push_async_callback(publisher.stop)
        applier = Applier(katalog=katalog, store=store, keys=keys, hub=hub, clock=clock)
        identities = KafkaIdentities(kafka)
        leaving.callback(identities.close)
        follower = Follower(
            katalog=katalog,
            changed=katalog_follower.changed,
            open_tail=open_tail,
            store=store,
            applier=applier,
            guard=TopicGuard(store, identities.seen),
        )
        vakt = _vakt(settings, store=store, katalog=katalog, follower=follower, applier=applier, clock=clock)
        outbox = OutboxPublisher(store, publisher, applier.stored, begin=follower.caught_up)
        _add_checks(health, katalog=katalog_follower, follower=follower, applier=applier, outbox=outbox, clock=clock)
        innsyn = _innsyn(settings, store=store, hub=hub, http=http, katalog=katalog, clock=clock)
        following = [
            tasks.create_task(katalog_follower.run()),
            tasks.create_task(follower.run(katalog_follower.caught_up)),
            tasks.create_task(outbox.run()),
            tasks.create_task(vakt.run(katalog_follower.caught_up)),
            tasks.create_task(watch_figures(store, clock)),
            tasks.create_task(keep_retention(store, settings.oppbevaring, clock, applier.stored)),
        ]
        serving = tasks.create_task(serve(create_app(innsyn, health), settings.host, settings.port, stop))
        await stop.wait()
        hub.close()
        await serving
        for task in following:
            task.cancel()


def _add_checks(
    health: Health,
    *,
    katalog: KatalogFollower,
    follower: Follower,
    applier: Applier,
    outbox: OutboxPublisher,
    clock: ProcessClock,
) -> None:
    health.add_check("katalog", katalog.problem)
    health.add_check("emner", follower.problem)
    health.add_check("lager", applier.problem)
    health.add_check("utboks", outbox.problem)
    health.add_check("klokke", clock.problem)


def _vakt(
    settings: KvitteringSettings,
    *,
    store: StatusStore,
    katalog: Katalog,
    follower: Follower,
    applier: Applier,
    clock: ProcessClock,
) -> Vakt:
    return Vakt(
        store=store,
        katalog=katalog,
        defaults=settings.frister(),
        reader=follower,
        clock=clock,
        queued=applier.stored,
    )


def _innsyn(
    settings: KvitteringSettings,
    *,
    store: StatusStore,
    hub: Hub,
    http: httpx.AsyncClient,
    katalog: Katalog,
    clock: ProcessClock,
) -> Innsyn:
    return Innsyn(
        store=store,
        hub=hub,
        tokens=TokenVerifier(settings.issuer, settings.audience, HttpJwks(settings.jwks_url, http), clock),
        eier_key=load_secret(settings.eier_key, MIN_EIER_KEY_BYTES),
        katalog=katalog,
        avsendere=settings.avsendere,
        heartbeat_s=settings.heartbeat_s,
        max_stream_s=settings.max_stream_s,
        clock=clock,
    )


if __name__ == "__main__":
    sys.exit(run_process("kvittering", main))
