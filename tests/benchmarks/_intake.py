"""A real ``python -m producers`` for the benchmarks, an issuer for its tokens, and a client that costs next to nothing."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
from _sender import AVSENDER, DEADLINE_S, Cluster, Sending, make_keys, publish_katalog
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from fastapi import FastAPI

from broker.clock import system_clock
from broker.issuer import LocalIssuer, issuer_router
from broker.katalog import Katalog
from broker.supervisor.layout import free_ports
from broker.web import serve
from crypto import certificate_pem
from crypto.keys import write_private_key
from producers.http_client import multipart_body, parts

if TYPE_CHECKING:
    from cryptography import x509

    from schemas.names import Fodselsnummer, Kommunenummer

BOUNDARY = "grense"


@cache
def mottak() -> tuple[x509.Certificate, rsa.RSAPrivateKey]:
    """Return what clients encrypt for: RSA-3072, as new virksomhetssertifikater are."""
    certificate, key = make_keys().authority.issue("Mottak", AVSENDER, purpose="kryptering", now=system_clock())
    assert isinstance(key, rsa.RSAPrivateKey)
    return certificate, key


def body_of(sending: Sending) -> bytes:
    """Return a request's body as a client of NAV's makes it, each file encrypted."""
    made = parts(sending.soknad_json, sending.vedlegg_json, sending.files, mottak()[0])
    return b"".join(multipart_body(BOUNDARY, made))


@dataclass(frozen=True)
class Intake:
    """A running intake: where, which process, and who issues tokens for it."""

    port: int
    pid: int
    issuer: LocalIssuer

    def request(self, sending: Sending, body: bytes) -> bytes:
        """Return a whole HTTP request with a reference of its own."""
        head = (
            f"POST /digisos/api/v1/soknader/{sending.kommunenummer}/{secrets.token_hex(16)} HTTP/1.1\r\n"
            f"Host: 127.0.0.1\r\nAuthorization: Bearer {self.token(sending.person)}\r\n"
            f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    @cache  # noqa: B019  # lives as long as the benchmark
    def token(self, person: Fodselsnummer) -> str:
        """Return the person's token, made once."""
        return self.issuer.citizen_token(person)

    async def send_all(self, requests: Sequence[bytes], *, at_once: int) -> None:
        """Send requests over so many connections, each waiting for its answer; every one must be a 202."""
        waiting = iter(requests)

        async def connection() -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            for request in waiting:
                writer.write(request)
                await writer.drain()
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                content = await reader.readexactly(length)
                assert head.startswith(b"HTTP/1.1 202"), content
            writer.close()
            await writer.wait_closed()

        async with asyncio.TaskGroup() as tasks:
            for _ in range(at_once):
                tasks.create_task(connection())

    async def drained(self) -> None:
        """Wait until everything that was accepted is on its topics."""
        async with asyncio.timeout(DEADLINE_S), httpx.AsyncClient() as http:
            while True:
                answer = await http.get(f"http://127.0.0.1:{self.port}/metrics")
                if "fiks_outbox_messages 0.0" in answer.text:
                    return
                await asyncio.sleep(0.05)


@asynccontextmanager
async def running_intake(kafka: Cluster, kommuner: Sequence[Kommunenummer], folder: Path) -> AsyncIterator[Intake]:
    """Run the process with its keys in files, and wait until it is ready."""
    await publish_katalog(kafka.admin, kommuner)
    issuer_port, port = free_ports(2)
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = LocalIssuer(f"http://127.0.0.1:{issuer_port}/utsteder", "meldingsformidler", key, Katalog(), system_clock)
    app, stop = FastAPI(), asyncio.Event()
    app.include_router(issuer_router(issuer))
    serving = asyncio.create_task(serve(app, "127.0.0.1", issuer_port, stop))
    environment = dict(os.environ) | _settings(folder, port, issuer) | kafka.producers.environment()
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "producers", env=environment, stdout=subprocess.DEVNULL
    )
    try:
        await _ready(port)
        yield Intake(port, child.pid, issuer)
    finally:
        child.terminate()
        await child.wait()
        stop.set()
        await serving


def _settings(folder: Path, port: int, issuer: LocalIssuer) -> dict[str, str]:
    keys = make_keys()
    for name, certificate, key in (
        ("avsender", keys.signer.certificate, keys.signer.private_key),
        ("mottak", *mottak()),
    ):
        (folder / f"{name}.pem").write_bytes(certificate_pem(certificate))
        write_private_key(folder / f"{name}.key", key)
    (folder / "eier.key").write_text("ab" * 32)
    settings = {
        "PORT": str(port),
        "DATABASE": str(folder / "producers.sqlite"),
        "DOKUMENTLAGER": str(folder / "dokumentlager"),
        "SIGNING_CERTIFICATE": str(folder / "avsender.pem"),
        "SIGNING_KEY": str(folder / "avsender.key"),
        "MOTTAK_CERTIFICATE": str(folder / "mottak.pem"),
        "MOTTAK_KEYS": json.dumps([str(folder / "mottak.key"), str(folder / "mottak.pem")]),
        "KOPI_KEYS": json.dumps([str(folder / "eier.key")]),
        "EIER_KEY": str(folder / "eier.key"),
        "ISSUER": issuer.issuer,
        "JWKS_URL": f"{issuer.issuer}/jwks",
    }
    return {f"FORMIDLER_PRODUCERS_{name}": value for name, value in settings.items()}


async def _ready(port: int) -> None:
    async with asyncio.timeout(DEADLINE_S), httpx.AsyncClient() as http:
        while True:
            try:
                if (await http.get(f"http://127.0.0.1:{port}/isready")).is_success:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.05)
