"""A real PostgreSQL for tests: Debian's own binaries, a cluster in a temporary folder, gone with the run.

It keeps its promises as in operation (fsync on); only the making of the cluster is not synced.
"""

from __future__ import annotations

import getpass
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self

import psycopg

BINARIES = Path("/usr/lib/postgresql")
DEADLINE_S = 60
_SUPERUSER = "tester"
_OPTIONS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "100",
    "shared_buffers": "32MB",
    "deadlock_timeout": "200ms",
    "logging_collector": "off",
    "autovacuum": "off",
}


class PostgresMissingError(Exception):
    """PostgreSQL cannot be had here; the text says what is missing."""


class PostgresServer:
    """One server. Use as a context manager.

    Attributes:
        folder: Where all of it lies.
        log: What the server said.
    """

    def __init__(self) -> None:
        self._binaries = _find_binaries()
        self._prefix = _other_user()
        # Not under pytest's own folder: nobody but the user who runs the tests may enter that.
        self.folder = Path(tempfile.mkdtemp(prefix="formidler-pg-", dir="/tmp"))
        self.log = self.folder / "logg" / "server.log"
        self._password = secrets.token_urlsafe(12)
        self._port = 0
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self._make_cluster()
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop_and_remove()

    def stop_and_remove(self) -> None:
        """Leave nothing behind."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, database: str = "postgres") -> str:
        """Return where a database is, password and all."""
        return f"postgresql://{_SUPERUSER}:{self._password}@127.0.0.1:{self._port}/{database}"

    @property
    def password(self) -> str:
        """The password in ``url``."""
        return self._password

    def admin(self, database: str = "postgres") -> psycopg.Connection:
        """Return a connection of one's own, where each statement is committed."""
        return psycopg.connect(self.url(database), autocommit=True)

    def writings(self) -> tuple[Path, Path]:
        """Return where everything lies that was written, also what was dropped: the write-ahead log, and what the server said."""
        return self.folder / "data" / "pg_wal", self.folder / "logg"

    def new_database(self) -> str:
        """Make an empty database and return its name."""
        name = f"t{secrets.token_hex(6)}"
        with self.admin() as admin:
            admin.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'".encode())
        return name

    def new_schema(self) -> str:
        """Make a schema with nothing in it, and return the URL of those who keep their tables there: quicker than a database."""
        name = f"s{secrets.token_hex(6)}"
        with self.admin() as admin:
            admin.execute(f"CREATE SCHEMA {name}".encode())
        return f"{self.url()}?options=-csearch_path%3D{name}"

    def set(self, name: str, value: str) -> None:
        """Change a setting of the whole server, and return when it holds."""
        with self.admin() as admin:
            admin.execute(f"ALTER SYSTEM SET {name} = {value}".encode())
            admin.execute("SELECT pg_reload_conf()")
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            with self.admin() as admin:
                row = admin.execute("SELECT current_setting(%s)", (name,)).fetchone()
            if row == (value,):
                return
            time.sleep(0.02)
        raise TimeoutError(f"{name} is not {value}")

    def drop(self, database: str) -> None:
        """Remove a database, whoever uses it."""
        with self.admin() as admin:
            admin.execute(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)".encode())

    def start(self) -> None:
        """Start the server and wait until it answers; on its former port, if it had one."""
        for _ in range(5):
            self._port = self._port or _free_port()
            options = [f"-c{name}={value}" for name, value in _OPTIONS.items()]
            command = [self._binaries / "postgres", "-D", self.folder / "data", f"-cport={self._port}", *options]
            with self.log.open("ab") as log:
                self._process = subprocess.Popen(
                    [*self._prefix, *command], stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd="/"
                )
            if self._answers(self._process):
                return
            self._port = 0  # another was quicker
        raise PostgresMissingError(f"PostgreSQL starter ikke: {self.log.read_text('utf-8', 'replace')[-500:]}")

    def _answers(self, process: subprocess.Popen[bytes]) -> bool:
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline and process.poll() is None:
            try:
                self.admin().close()
            except psycopg.OperationalError:
                time.sleep(0.05)
            else:
                return True
        return False

    def stop(self) -> None:
        """Stop the server; those who are connected lose their connections."""
        self._end(signal.SIGINT)

    def crash(self) -> None:
        """End the server in the middle of whatever it does; ``start`` begins with recovery."""
        self._end(signal.SIGQUIT)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(how)
            try:
                process.wait(DEADLINE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _make_cluster(self) -> None:
        self.log.parent.mkdir()
        password = self.folder / "password"
        password.write_text(self._password)
        if self._prefix:
            owner = pwd.getpwnam(_unprivileged())
            for path in (self.folder, password):
                os.chown(path, owner.pw_uid, owner.pw_gid)
        made = subprocess.run(
            [
                *self._prefix,
                *(self._binaries / "initdb", "-D", self.folder / "data", "-U", _SUPERUSER, "-E", "UTF8"),
                *("--locale=C.UTF-8", "--auth=scram-sha-256", f"--pwfile={password}", "--no-sync"),
            ],
            capture_output=True,
            check=False,
            cwd="/",
        )
        if made.returncode:
            raise PostgresMissingError(f"initdb feilet: {made.stderr.decode('utf-8', 'replace')[-500:]}")


def _find_binaries() -> Path:
    def version(folder: Path) -> tuple[int, ...]:
        return tuple(int(part) for part in folder.parent.name.split(".") if part.isdigit())

    found = sorted((path.parent for path in BINARIES.glob("*/bin/initdb")), key=version)
    if not found:
        raise PostgresMissingError(
            f"fant ingen PostgreSQL under {BINARIES}: apt-get install postgresql, eller .ci/setup kafka"
        )
    return found[-1]


def _other_user() -> list[str]:
    """Return what runs a command as somebody who is not root, and ends it when we die."""
    end = ["setpriv", "--pdeathsig", "INT"]
    if os.geteuid() != 0:
        return [*end, "--"] if shutil.which("setpriv") else []
    if not shutil.which("setpriv"):
        raise PostgresMissingError(f"PostgreSQL kjører ikke som {getpass.getuser()}, og setpriv (util-linux) mangler")
    user = pwd.getpwnam(_unprivileged())
    return [*end, f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "--"]


def _unprivileged() -> str:
    for name in ("postgres", "nobody"):
        try:
            pwd.getpwnam(name)
        except KeyError:
            continue
        return name
    raise PostgresMissingError("fant ingen bruker som PostgreSQL kan kjøre som")


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
