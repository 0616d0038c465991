"""What every scenario works with: a world, a load, and a checker that is asked until nothing moves any more."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any, Final, Self

import httpx
import yaml
from checker import Checker, Finding
from environment import KOMMUNER, OVER_HTTP, World
from journal import Entry, Journal
from load import Load
from witness import Observed, StatusReader, TopicReader, read_deliveries, read_letters, read_signers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from journal import Story
    from load import Slag
    from network import Network

    from schemas.names import Kommunenummer

SETTLE_WITHIN_S: Final = 75.0
LOOK_EVERY_S: Final = 0.4
PRINT: Final = "utskrift"


@dataclass
class Result:
    """What came of one scenario.

    Attributes:
        name: Its name.
        runs: How many times.
        kills: How many processes were killed.
        soknader: How many messages were accepted.
        poison: How many records were laid out that nobody can deliver.
        findings: What must not be.
        seconds: How long it took.
        skipped: Why it was not run at all.
    """

    name: str
    runs: int = 0
    kills: int = 0
    soknader: int = 0
    poison: int = 0
    findings: list[Finding] = field(default_factory=list[Finding])
    seconds: float = 0.0
    skipped: str = ""

    def add(self, other: Result) -> None:
        """Take another run of the same scenario in."""
        self.runs += other.runs
        self.kills += other.kills
        self.soknader += other.soknader
        self.poison += other.poison
        self.findings += other.findings
        self.seconds += other.seconds

    def count(self, *kinds: str) -> int:
        """Return how many findings are of these kinds."""
        return sum(finding.kind in kinds for finding in self.findings)


class BrokenPromiseError(Exception):
    """Something that a scenario looks at by itself was not as it must be."""


class Harness:
    """One world and its load. Use as an asynchronous context manager.

    Args:
        folder: Empty.
        seed: Decides everything that is drawn.
        network: Between the processes, if there is one.
        report: Told, in a few words, what is being done.
    """

    def __init__(self, folder: Path, seed: int, network: Network | None, report: Callable[[str], None]) -> None:
        self.rng = Random(seed)
        self.report = report
        self.journal = Journal(folder.parent / f"{folder.name}.journal")
        self.world = World(folder, network, report)
        self._checker = Checker()
        self._stack = AsyncExitStack()
        self._runs = 0
        self.lasting: set[Finding] = set()

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self.world)
        layout = self.world.layout
        self.load = Load(self.world, self.journal, self.rng)
        self._stack.push_async_callback(self.load.close)
        self.http = await self._stack.enter_async_context(httpx.AsyncClient(timeout=10))
        self.topics = TopicReader(self.world.admin.confluent())
        self.statuses = StatusReader(layout.issuer_url, layout.address("kvittering"))
        self._stack.callback(self.statuses.close)
        printing = asyncio.create_task(self._print())
        self._stack.callback(printing.cancel)
        return self

    async def _print(self) -> None:
        """Be the one who prints: take each letter set from the queue, and put it where those lie that are done."""
        folder = self.world.layout.folder / PRINT
        while True:
            for letters in folder.glob("ko/*"):
                with suppress(OSError):  # it was taken back
                    letters.rename(folder / "ferdig" / letters.name)
            await asyncio.sleep(LOOK_EVERY_S)

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def new_run(self) -> str:
        """Return a name for the next run."""
        self._runs += 1
        return f"{self._runs:05}"

    # Load.

    async def send(
        self,
        run: str,
        *kommuner: Kommunenummer,
        large: bool = False,
        more: int = 0,
        **how: Any,
    ) -> list[Entry]:
        """Send a søknad to each of ``kommuner`` side by side, and ``more`` ettersendelser after each."""

        async def one(kommunenummer: Kommunenummer) -> Entry:
            entry = await self.load.send(self.load.prepare(run, kommunenummer, large=large, **how))
            for _ in range(more):
                await self.load.send_more(entry)
            return entry

        return list(await asyncio.gather(*(one(number) for number in kommuner)))

    async def poison(self, run: str, kommuner: Sequence[Kommunenummer], slag: Sequence[Slag]) -> None:
        """Lay one record of each kind on a topic of one of ``kommuner``."""
        for one in slag:
            await self.load.poison(run, self.rng.choice(kommuner), one)

    async def fagsystem(self, change: dict[str, Any], *kommuner: Kommunenummer) -> None:
        """Turn the simulated fagsystem's switches, for some kommuner or for all."""
        base = self.world.layout.address("fagsystem")
        for path in [f"/{number}" for number in kommuner] or [""]:
            (await self.http.put(f"{base}/styring{path}", json=change)).raise_for_status()

    def change_katalog(self) -> None:
        """Change a kommune's entry in the katalog file: its name, which nothing hangs on."""
        path = self.world.layout.katalog
        document = yaml.safe_load(path.read_bytes())
        for entry in document["kommuner"]:
            entry["navn"] = f"{str(entry['navn']).split(' nr ')[0]} nr {self.rng.getrandbits(32)}"
        work = path.with_suffix(".ny")
        work.write_text(yaml.safe_dump(document, allow_unicode=True, sort_keys=False), "utf-8")
        work.replace(path)

    async def jump(self, how_far: str) -> None:
        """Move the set-up's time ahead.

        Raises:
            BrokenPromiseError: It would not be moved.
        """
        done = await self.world.formidler("tid", "frem", how_far)
        self.statuses.forget_tokens()
        if done.returncode:
            raise BrokenPromiseError(f"formidler tid frem: {done.stderr or done.stdout}")

    # Judgement.

    async def settle(self, run: str | None = None, within_s: float = SETTLE_WITHIN_S) -> list[Finding]:
        """Ask the checker until it finds nothing, or until the deadline; return what it finds then.

        Args:
            run: Judge what this run did; everything when None.
            within_s: How long things may take to come to rest.
        """
        deadline = asyncio.get_running_loop().time() + within_s
        lasting: set[Finding] = set()
        while True:
            findings = await asyncio.to_thread(self._judge, run)
            lasting |= {finding for finding in findings if finding.lasting}
            if not findings or asyncio.get_running_loop().time() > deadline:
                return [*findings, *(lasting - set(findings))]
            await asyncio.sleep(LOOK_EVERY_S)

    def _judge(self, run: str | None) -> list[Finding]:
        whole = self.journal.story
        story = whole if run is None else whole.of_run(run)
        try:
            observed = self.observe(story)
        except Exception as error:  # noqa: BLE001 - what cannot be read now may be read a moment later
            return [Finding("uforklart", type(error).__name__, f"kan ikke lese det som er der: {error}")]
        return self._checker.judge(story, observed, whole)

    def observe(self, story: Story) -> Observed:
        """Read everything: statuses first, so that what they say must be on the disks when those are read."""
        owners = [
            (entry.digisos_id, entry.person)
            for entry in story.entries.values()
            if entry.digisos_id is not None and entry.nr == 0
        ]
        strangers = [entry.person for entry in self.journal.story.entries.values()]
        stranger = strangers[0] if strangers and owners and owners[0][1] != strangers[0] else None
        statuses = self.statuses.read(owners, stranger=stranger)
        deliveries = read_deliveries(self.world.layout.fagsystem)
        signers, root = read_signers(self.world.layout.folder)
        letters = read_letters(self.world.layout.folder / PRINT)
        return Observed(self.topics.read(), deliveries, statuses, signers, root, letters)

    def result(self, name: str, run: str, findings: list[Finding], *, kills: int = 0, seconds: float = 0.0) -> Result:
        """Return one run as a result."""
        story = self.journal.story.of_run(run)
        accepted = sum(entry.accepted for entry in story.entries.values())
        return Result(name, 1, kills, accepted, len(story.poison), findings, seconds)


def all_kommuner(*, http: int = 1, files: int = 1) -> list[Kommunenummer]:
    """Return each kommune over HTTP ``http`` times, and the one over folders ``files`` times."""
    return [*OVER_HTTP * http, *[KOMMUNER[2]] * files]


def tally(findings: Sequence[Finding]) -> dict[str, int]:
    """Return how many findings there are of each kind."""
    return dict(Counter(finding.kind for finding in findings))
