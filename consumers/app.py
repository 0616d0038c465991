"""The composition root of a connector process: the only place that knows every part of it."""

from __future__ import annotations

import asyncio
import os
import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from fastapi import FastAPI

from broker.clock import system_clock
from broker.delivery_messages import Limits
from broker.kafka.identities import KafkaIdentities
from broker.kafka.publisher import KafkaPublisher
from broker.kafka.settings import KafkaSettings
from broker.log import get_logger
from broker.tokens import ClientTokens
from broker.web import Health, health_router, serve
from consumers.dedup import DedupStore
from consumers.dokumentlager_client import DokumentlagerClient
from consumers.kvitteringer import Issuer
from consumers.runner import Kommune, KommuneRunner, Shared, run_kommuner
from consumers.settings import ConnectorSettings, connector_of, find_connectors
from crypto import KeyRing, Trust, load_certificate, load_certificates, load_private_key
from schemas.errors import BrokerUnavailableError, ConfigurationError, CryptoError

if TYPE_CHECKING:
    from cryptography import x509

    from broker.clock import Clock

HTTP_TIMEOUT_S: Final = 30.0


async def run(
    settings: ConnectorSettings, kafka: KafkaSettings, stop: asyncio.Event, *, clock: Clock = system_clock
) -> None:
    """Run a connector process until ``stop`` is set.

    Args:
        settings: Of the process.
        kafka: Where to read, and as whom.
        stop: Ends it, in order.
        clock: What the time is.

    Raises:
        ConfigurationError: A key, a certificate or a connector's setting is wrong; the text says which.
    """
    issuer, innsyn, kommuner = load_issuer(settings), load_innsyn(settings), load_kommuner(settings)
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(httpx.AsyncClient(timeout=HTTP_TIMEOUT_S))
        publisher = KafkaPublisher(kafka, client_id=f"konnektor-{settings.konnektor}")
        stack.push_async_callback(publisher.stop)
        try:
            await publisher.start()
        except BrokerUnavailableError as error:
            get_logger().warning("kafka_unavailable", exc_info=error)  # it connects by itself later
        identities = KafkaIdentities(kafka)
        stack.callback(identities.close)
        cores = os.cpu_count() or 1
        shared = Shared(
            leverandor=settings.leverandor,
            issuer=issuer,
            innsyn=innsyn,
            trust=load_trust(settings),
            without_forsendelse_from=frozenset(settings.tillit.uten_forsendelse_fra),
            kafka=kafka,
            publisher=publisher,
            dokumentlager=DokumentlagerClient(
                settings.dokumentlager_url, http=http, tokens=_tokens(settings, issuer, http, clock)
            ),
            store=await stack.enter_async_context(DedupStore(settings.database)),
            pool=stack.enter_context(ThreadPoolExecutor(cores, thread_name_prefix="crypto")),
            clock=clock,
            random=random.SystemRandom().random,
            identities=identities,
        )
        await serve_kommuner(settings, [KommuneRunner(kommune, shared) for kommune in kommuner], stop)


async def serve_kommuner(settings: ConnectorSettings, runners: list[KommuneRunner], stop: asyncio.Event) -> None:
    """Serve the kommuner, and health beside them, until ``stop`` is set."""
    health = Health()
    for kommune, runner in zip(settings.kommuner, runners, strict=True):
        health.add_check(kommune.kommunenummer, runner.problem)
    app = FastAPI(title=f"konnektor {settings.konnektor}", openapi_url=None)
    app.include_router(health_router(health))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(serve(app, settings.host, settings.port, stop))
        tasks.create_task(run_kommuner(runners, stop))


def load_issuer(settings: ConnectorSettings) -> Issuer:
    """Return who signs.

    Raises:
        ConfigurationError: A file is missing or is not what it should be.
    """
    signering = settings.signering
    try:
        key = load_private_key(signering.nokkel)
        certificate = load_certificate(signering.sertifikat)
        former = tuple(load_certificate(path) for path in signering.tidligere_sertifikater)
    except CryptoError as error:
        raise ConfigurationError(f"signering: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise ConfigurationError("signering: nøkkelen skal være P-256 og høre til sertifikatet")
    return Issuer(settings.konnektor, certificate, key, former)


def load_kommuner(settings: ConnectorSettings) -> list[Kommune]:
    """Return each kommune with its keys and its kind of connector.

    Raises:
        ConfigurationError: A key is missing, or a connector's setting is wrong.
    """
    specs = find_connectors()
    found: list[Kommune] = []
    for kommune in settings.kommuner:
        spec, own = connector_of(kommune, specs)
        try:
            keys = KeyRing.load(*kommune.nokler)
        except CryptoError as error:
            raise ConfigurationError(f"kommuner.{kommune.kommunenummer}.nokler: {error}") from error
        found.append(Kommune(kommune.kommunenummer, keys, spec, own, Limits(running=kommune.samtidige)))
    return found


def load_trust(settings: ConnectorSettings) -> Trust:
    """Return whose packages are accepted.

    Raises:
        ConfigurationError: A certificate cannot be read, or there is none at all.
    """
    tillit = settings.tillit
    try:
        roots = [certificate for path in tillit.rotter for certificate in load_certificates(path)]
        pinned = [certificate for path in tillit.fastlaste for certificate in load_certificates(path)]
    except CryptoError as error:
        raise ConfigurationError(f"tillit: {error}") from error
    if not roots and not pinned:
        raise ConfigurationError("tillit: oppgi minst ett sertifikat under rotter eller fastlaste")
    return Trust(roots=roots, pinned=pinned, allow_sha1_from=frozenset(tillit.sha1_fra))


def load_innsyn(settings: ConnectorSettings) -> x509.Certificate:
    """Return the certificate that case updates are sealed for.

    Raises:
        ConfigurationError: It cannot be read.
    """
    try:
        return load_certificate(settings.innsyn_sertifikat)
    except CryptoError as error:
        raise ConfigurationError(f"innsyn_sertifikat: {error}") from error


def _tokens(settings: ConnectorSettings, issuer: Issuer, http: httpx.AsyncClient, clock: Clock) -> ClientTokens:
    return ClientTokens(
        settings.tokenutsteder.token_url,
        issuer=settings.tokenutsteder.navn,
        client_id=settings.konnektor,
        key=issuer.key,
        certificate=issuer.certificate,
        http=http,
        clock=clock,
    )
