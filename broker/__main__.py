"""The ``broker`` process's composition root: ``python -m broker``."""

from __future__ import annotations

import asyncio
import os
import sys

from broker.app import create_app
from broker.clock import Clock
from broker.issuer import LocalIssuer, check_loopback, load_issuer_key
from broker.kafka.publisher import KafkaPublisher
from broker.kafka.settings import KafkaSettings
from broker.kafka.subscriber import read_from_start
from broker.katalog import Katalog, KatalogFollower
from broker.katalog_publisher import KatalogPublisher
from broker.process_clock import process_clock
from broker.routing import KATALOG
from broker.runtime import first_of, run_process
from broker.settings import BrokerSettings, load_settings
from broker.web import Health, serve
from crypto.certificates import load_certificate


async def main(stop: asyncio.Event) -> None:
    """Publish the katalog and serve what the process serves, until ``stop``."""
    settings = load_settings(BrokerSettings)
    kafka = KafkaSettings.from_environment(os.environ)
    clock = process_clock(os.environ)
    katalog = Katalog()
    follower = KatalogFollower(katalog, lambda: read_from_start(kafka, [KATALOG]))
    health = Health()
    publisher = KafkaPublisher(
        kafka, client_id="broker"
    )  # connects by itself: we serve what we have while Kafka is away
    publishing = KatalogPublisher(settings.katalog, katalog, publisher, clock)
    health.add_check("katalog", publishing.problem)
    health.add_check("klokke", clock.problem)
    app = create_app(katalog, health, _issuer(settings, katalog, clock))
    try:
        async with asyncio.TaskGroup() as tasks:
            following = tasks.create_task(follower.run())
            serving = tasks.create_task(serve(app, settings.host, settings.port, stop))
            await first_of(follower.caught_up, stop)
            if not stop.is_set():
                await publishing.run(stop)
            await serving
            following.cancel()
    finally:
        await publisher.stop()


def _issuer(settings: BrokerSettings, katalog: Katalog, clock: Clock) -> LocalIssuer | None:
    if settings.local_issuer_key is None:
        return None
    check_loopback(settings.host)
    key = load_issuer_key(settings.local_issuer_key)
    sender = load_certificate(settings.sender_certificate) if settings.sender_certificate else None
    return LocalIssuer(settings.local_issuer_url, settings.audience, key, katalog, clock, sender=sender)


if __name__ == "__main__":
    sys.exit(run_process("broker", main))
