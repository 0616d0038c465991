"""Crash points: the places where a crash leaves something half done, by name, so that a test can crash exactly there.

``FORMIDLER_KRASJ="producers.outbox.after-commit:3"`` in the environment when this module is imported makes the process kill
itself (SIGKILL: no clean-up, no goodbye) the third time that it passes that place; without a number, the first time. Set for a
process in operation it does what it says, and nothing else sets it than the fault harness.

Rules:

1. Every name stands in ``CRASH_POINTS`` and at one place in the code; a test compares the two.
2. Unless the environment asks for one, a crash point costs one look at a global.
3. ``FORMIDLER_KRASJ_FIL`` names a file that is made when it happens. When it is there already, nothing happens: so the process
   that is started in place of the dead one lives, and whoever asked sees that it came so far. Without it every life ends there.
"""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

KRASJ_ENV: Final = "FORMIDLER_KRASJ"
KRASJ_FILE_ENV: Final = "FORMIDLER_KRASJ_FIL"

CRASH_POINTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "producers.start.swept": "the dokumentlager is tidied, the door is not open yet",
        "producers.dokumentlager.before-rename": "a large package is synced under its temporary name",
        "producers.dokumentlager.committed": "a large package has its place, and no row refers to it",
        "producers.outbox.before-commit": "reference and messages are written, and not committed",
        "producers.outbox.after-commit": "the søknad is ours, and nobody has been told",
        "producers.intake.before-answer": "all is done but writing 202",
        "producers.relay.before-publish": "a message was taken from the outbox, and Kafka has not got it",
        "producers.relay.after-publish": "Kafka has the message, and so has the outbox",
        "producers.outbox.in-replace": "the message is out and SENDT is in, not committed",
        "producers.relay.after-replace": "the søknad has left the outbox, its SENDT has not",
        "producers.kopi.before-commit": "a sender's copy is destroyed and its proof written, and not committed",
        "producers.omsending.before-commit": "a message is in the outbox again, not committed",
        "producers.recall.before-commit": "meldinger are withdrawn, and not committed",
        "producers.recall.withdrawn": "meldinger are withdrawn, and the act is not done",
        "producers.eskalering.claimed": "a withdrawn message has somebody who takes it on, and nothing done",
        "producers.eskalering.before-commit": "what came of a withdrawn message is written, and not committed",
        "producers.utskrift.before-rename": "a letter set is whole beside the print queue",
        "producers.utskrift.renamed": "a letter set is in the print queue, and no event says so",
        "consumers.rebuild.before-store": "kvitteringer were read back from the topic, and are not in the store",
        "consumers.rebuild.after-store": "some of the kvitteringer on the topic are in the store",
        "consumers.session.caught-up": "the store knows the topic, and what a former life left is unpublished",
        "consumers.deliver.before-open": "a record was read, and nothing done",
        "consumers.deliver.before-hand-over": "the package is open in memory",
        "consumers.deliver.after-hand-over": "the fagsystem has answered, and no kvittering is stored",
        "consumers.dedup.before-commit": "the kvittering is signed and written, and not committed",
        "consumers.deliver.after-issue": "the kvittering is stored, and not published",
        "consumers.kvittering.before-publish": "the kvittering's turn has come",
        "consumers.kvittering.after-publish": "the kvittering is on its topic, and the store does not know",
        "consumers.session.before-commit": "kvitteringer are out, and the offset is not committed",
        "consumers.session.after-commit": "the offset is committed",
        "consumers.dead-letter.before-publish": "a record was given up, and is no dead letter yet",
        "consumers.dead-letter.after-publish": "the dead letter is on its topic, and no kvittering is stored",
        "consumers.hendelse.before-publish": "a case update is sealed",
        "consumers.hendelse.after-publish": "a case update is on its topic, and not acknowledged",
        "consumers.svar.after-publish": "a later answer is on its topic, and not acknowledged",
        "consumers.http.before-cursor": "an event is done with, and the cursor stands before it",
        "consumers.filedrop.on-its-way": "a søknad is whole beside its place, and noted as on its way",
        "consumers.filedrop.dropped": "a søknad has its place in inn/, and is not noted",
        "kvittering.apply.before-store": "records were verified, and nothing is stored",
        "kvittering.apply.before-commit": "facts, statuses and offsets are written, and not committed",
        "kvittering.apply.after-commit": "a batch is stored, and no listener was told",
        "kvittering.outbox.before-publish": "statuses are queued",
        "kvittering.outbox.after-publish": "statuses are on their topic, and still queued",
        "kvittering.vakt.before-commit": "a message that waited too long is withdrawn, not committed",
        "broker.katalog.before-publish": "the katalog file has changed, and the topic has not",
        "broker.katalog.after-publish": "a katalog entry is on its topic, and nobody here has noted it",
        "broker.gjenkjoring.after-publish": "dead letters are on their way again, and the revisjon does not say so",
    }
)
"""Every crash point, and what is half done there. The first part of a name is the process."""


@dataclass(slots=True)
class _Armed:
    """The one place where this process is to end."""

    name: str
    left: int
    file: Path | None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def passed(self) -> None:
        """Count one pass, and end the process at the last."""
        with self.lock:
            self.left -= 1
            if self.left:
                return
            if self.file is not None:
                self.file.touch(mode=0o600)
            os.kill(os.getpid(), signal.SIGKILL)


def armed(environment: Mapping[str, str]) -> _Armed | None:
    """Return where this process is to end by its environment, or None.

    Raises:
        ConfigurationError: There is no such crash point, or the number is none.
    """
    wanted = environment.get(KRASJ_ENV)
    file = Path(environment[KRASJ_FILE_ENV]) if KRASJ_FILE_ENV in environment else None
    if not wanted or (file is not None and file.exists()):
        return None
    name, _, number = wanted.partition(":")
    if name not in CRASH_POINTS or not (number or "1").isdecimal() or number == "0":
        raise ConfigurationError(f"{KRASJ_ENV}: {wanted} er ikke et krasjpunkt")
    return _Armed(name, int(number or 1), file)


def crash_point(name: str) -> None:
    """End the process here if the environment asked for it.

    Args:
        name: From ``CRASH_POINTS``.
    """
    if _armed is not None and _armed.name == name:
        _armed.passed()


_armed: Final = armed(os.environ)
