"""The network between the processes, where it can be cut and slowed: Toxiproxy in front of Kafka and of the fagsystem.

Toxiproxy is taken from ``TOXIPROXY`` or ``PATH`` (``toxiproxy-server``), or built once with Go into the cache for all clones.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import httpx
from waiting import until

from broker.embedded.folder import HOST, DataFolder
from broker.supervisor.layout import free_ports

if TYPE_CHECKING:
    from broker.embedded.folder import State

VERSION: Final = "v2.12.0"
_MODULE: Final = f"github.com/Shopify/toxiproxy/v2/cmd/server@{VERSION}"
_BUILD_WITHIN_S: Final = 300
_WITHIN_S: Final = 20.0


def find_toxiproxy() -> Path | None:
    """Return the server's program, built now if that can be done; None when it cannot be had here."""
    for name in (os.environ.get("TOXIPROXY"), shutil.which("toxiproxy-server")):
        if name:
            return Path(name)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "meldingsformidler"
    folder = cache / f"toxiproxy-{VERSION}"
    program = folder / "server"
    go = shutil.which("go")
    if not program.exists() and go is not None:
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            [go, "install", _MODULE],
            env={**os.environ, "GOBIN": str(folder)},
            capture_output=True,
            check=False,
            timeout=_BUILD_WITHIN_S,
        )
    return program if program.exists() else None


class Network:
    """A running Toxiproxy. Use as an asynchronous context manager.

    Args:
        program: The server.
    """

    def __init__(self, program: Path) -> None:
        self._program = program
        (port,) = free_ports(1)
        self._port = port
        self._http = httpx.AsyncClient(base_url=f"http://{HOST}:{port}", timeout=5)
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            self._program, "-host", HOST, "-port", str(self._port),
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        if not await until(self._answers, _WITHIN_S):
            raise TimeoutError("Toxiproxy svarer ikke")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def _answers(self) -> bool:
        try:
            return (await self._http.get("/version")).is_success
        except httpx.TransportError:
            return False

    async def open(self, name: str, listen: int, upstream: int) -> None:
        """Let ``listen`` lead to ``upstream``, both on loopback."""
        await self._post(
            "/proxies", {"name": name, "listen": f"{HOST}:{listen}", "upstream": f"{HOST}:{upstream}", "enabled": True}
        )

    async def cut(self, name: str) -> None:
        """Close all connections, and refuse new ones."""
        await self._post(f"/proxies/{name}", {"enabled": False})

    async def spoil(self, name: str, kind: str, stream: str = "downstream", **attributes: int) -> None:
        """Add a toxic: ``latency``, ``bandwidth``, ``timeout`` (a silence), ``reset_peer``, ``slicer``, ``limit_data``."""
        await self._post(
            f"/proxies/{name}/toxics",
            {"name": f"{kind}-{stream}", "type": kind, "stream": stream} | {"attributes": attributes},
        )

    async def heal(self) -> None:
        """Open everything, and take away every toxic."""
        await self._post("/reset", {})

    async def _post(self, path: str, document: dict[str, Any]) -> None:
        (await self._http.post(path, json=document)).raise_for_status()


class ProxiedFolder(DataFolder):
    """A Kafka data folder whose broker has one more listener, which tells clients to come through a proxy.

    Args:
        path: As for ``DataFolder``.
        listen: The listener's own port.
        advertised: The proxy's, which clients are told of.
    """

    def __init__(self, path: Path, listen: int, advertised: int) -> None:
        super().__init__(path)
        self._listen = listen
        self._advertised = advertised

    def write_properties(self, state: State) -> None:
        """Write the broker's configuration with the listener ``PROXY``, as closed as ``SASL`` is."""
        super().write_properties(state)
        added = {
            "listeners": f",PROXY://{HOST}:{self._listen}",
            "advertised.listeners": f",PROXY://{HOST}:{self._advertised}",
            "listener.security.protocol.map": ",PROXY:SASL_PLAINTEXT",
        }
        lines: list[str] = []
        for line in self.properties.read_text("utf-8").splitlines():
            name, _, value = line.partition("=")
            lines.append(f"{name}={value}{added.get(name.strip(), '')}")
            if name.startswith("listener.name.sasl."):
                lines.append(f"{name.replace('listener.name.sasl.', 'listener.name.proxy.')}={value}")
        self.properties.write_text("\n".join(lines) + "\n", "utf-8")
