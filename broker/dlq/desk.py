"""An operator's desk: reads how the dead letters stand, and carries out what one operator may, or two together.

``redrive``, ``park``, ``lukk`` and ``apne`` on more letters than ``Register.grense``, with those that the operator reached alone
the last ``styring.ALONE_FOR``, become a proposal; ``approve`` by another operator carries it out on exactly the letters it was
made for (``broker.styring``). Every act is signed by who does it.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final, Literal

from filelock import FileLock, Timeout
from pydantic import ValidationError

from broker.dlq import plan as planning
from broker.dlq.plan import Utvalg, choose, plan_redrive
from broker.dlq.reading import read_dead_letters
from broker.dlq.redrive import DEFAULT_RATE, Oppdrag, Redriver, Utfall
from broker.dlq.state import ACTS, APNET, GJENKJORT, LUKKET, PARKERT
from broker.kafka.fetcher import KafkaFetcher
from broker.kafka.publisher import KafkaPublisher
from broker.revisjon import RevisjonWriter
from broker.revisjon_reading import find_head, read_acts
from broker.styring import (
    ALONE_FOR,
    FORESLATT,
    GODKJENT,
    TRUKKET,
    UTFORT,
    Forslag,
    carried_out,
    check_approval,
    check_selection,
    counting,
    done_alone,
    needs_approval,
    proposal_details,
    proposals,
    selection_digest,
    to_ms,
)
from schemas.errors import ApprovalError, GovernedActError
from schemas.names import Uuid

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
    from pathlib import Path

    from broker.clock import Clock
    from broker.dlq.plan import Plan
    from broker.dlq.reading import Lest
    from broker.kafka.settings import KafkaSettings
    from broker.katalog import Katalog
    from broker.operator_register import Register
    from broker.operatorer import Operator, Operatorer
    from schemas.names import Kommunenummer

Merking = Literal["dlq.parkert", "dlq.lukket", "dlq.apnet"]
MERKINGER: Final[Mapping[str, Merking]] = {"dlq.park": PARKERT, "dlq.lukk": LUKKET, "dlq.apne": APNET}
"""What a proposal proposes, and the act that it becomes."""
_LOCK: Final = "gjenkjoring.lock"
_CLIENT: Final = "formidler-dlq"


@dataclass(frozen=True, slots=True)
class Gang:
    """How a run goes.

    Attributes:
        rate: Most letters a second; 0 for no limit.
        stop: Set it to end after the present wave.
        progress: Told after each wave.
    """

    rate: float = DEFAULT_RATE
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    progress: Callable[[Utfall], None] = lambda _: None


@dataclass(frozen=True, slots=True)
class Resultat:
    """What came of a command.

    Attributes:
        plan: What was to be sent, for a redrive.
        utfall: What came of it; None when it was proposed, or nothing was to be done.
        forslag: The proposal that it became, or that was carried out.
        merket: Letters that an act was written on, or would be.
        utfort: Something was done, and not only proposed.
    """

    plan: Plan | None = None
    utfall: Utfall | None = None
    forslag: Uuid | None = None
    merket: tuple[Uuid, ...] = ()
    utfort: bool = False


@dataclass(frozen=True)
class Desk:
    """The desk.

    Args:
        folder: The data folder.
        kafka: As ``broker``.
        katalog: Which kommuner there are.
        operatorer: Who may act.
        clock: What the time is.
    """

    folder: Path
    kafka: KafkaSettings
    katalog: Katalog
    operatorer: Operatorer
    clock: Clock

    @property
    def register(self) -> Register:
        """The operators and their limits, as they are now."""
        return self.operatorer.load()

    async def read(self, kommuner: Iterable[Kommunenummer] = ()) -> Lest:
        """Return how the dead letters stand now.

        Raises:
            TransportError: Kafka does not answer, or refuses.
        """
        return await read_dead_letters(self.kafka, self.katalog, self.register, self.clock(), kommuner=kommuner)

    async def redrive(self, utvalg: Utvalg, operator: Operator, begrunnelse: str, gang: Gang | None = None) -> Resultat:
        """Send letters again, or propose it.

        Args:
            utvalg: Which.
            operator: Who does it.
            begrunnelse: Why.
            gang: How it goes.

        Raises:
            GovernedActError: Somebody else is at it now.
            AuditError: The reason may not stand in the revisjon.
            TransportError: Kafka does not answer, or refuses.
        """
        async with self._acting(operator) as hand:
            lest = await self.read(utvalg.kommuner)
            plan = plan_redrive(lest.brev, utvalg)
            if not plan.steg:
                return Resultat(plan)
            if await self._reaches_many({step.letter.id for step in plan.steg}, operator):
                frozen = _frozen(utvalg, lest)
                digest = plan_redrive(lest.brev, frozen).digest()
                details = proposal_details(planning.HANDLING, frozen.to_json(), digest, len(plan.steg))
                return Resultat(plan, forslag=await hand.propose(begrunnelse, details))
            return Resultat(plan, await hand.run(plan, Oppdrag(begrunnelse, utvalg.to_json()), gang), utfort=True)

    async def mark(self, handling: str, utvalg: Utvalg, operator: Operator, begrunnelse: str) -> Resultat:
        """Park, close or open letters, or propose it.

        Args:
            handling: ``dlq.park``, ``dlq.lukk`` or ``dlq.apne``.
            utvalg: Which.
            operator: Who does it.
            begrunnelse: Why.

        Raises:
            GovernedActError: Somebody else is at it now.
            AuditError: The reason may not stand in the revisjon.
            TransportError: Kafka does not answer, or refuses.
        """
        async with self._acting(operator) as hand:
            lest = await self.read(utvalg.kommuner)
            ids = choose(lest.brev, utvalg, handling)
            if not ids:
                return Resultat()
            if await self._reaches_many(ids, operator):
                frozen = _frozen(utvalg, lest)
                digest = selection_digest(handling, choose(lest.brev, frozen, handling))
                details = proposal_details(handling, frozen.to_json(), digest, len(ids))
                return Resultat(forslag=await hand.propose(begrunnelse, details), merket=ids)
            await hand.mark(handling, ids, begrunnelse)
            return Resultat(merket=ids, utfort=True)

    async def proposals(self) -> dict[Uuid, Forslag]:
        """Return every proposal in the revisjon.

        Raises:
            TransportError: Kafka does not answer, or refuses.
        """
        return proposals(counting(await read_acts(self.kafka), self.register))

    async def approve(self, forslag_id: Uuid, operator: Operator, gang: Gang | None = None) -> Resultat:
        """Approve another operator's proposal and carry it out; goes on with one that was interrupted.

        Args:
            forslag_id: Which proposal.
            operator: Who approves.
            gang: How a run goes.

        Raises:
            ApprovalError: This operator may not approve it, or there is none such.
            SelectionChangedError: It is not the same letters any more; nothing was done.
            TransportError: Kafka does not answer, or refuses.
        """
        async with self._acting(operator) as hand:
            acts = await read_acts(self.kafka)
            forslag = _known(proposals(counting(acts, self.register)), forslag_id)
            check_approval(forslag, operator.aktor, self.register, self.clock())
            utvalg = _read_utvalg(forslag)
            lest = await self.read(utvalg.kommuner)
            done = carried_out(acts, forslag, MERKINGER.get(forslag.handling, GJENKJORT), self.register)
            if forslag.handling in MERKINGER:
                ids = tuple(one for one in choose(lest.brev, utvalg, forslag.handling) if one not in done)
                check_selection(forslag, [*ids, *done])
                await hand.approve(forslag, GODKJENT)
                await hand.mark(forslag.handling, ids, _why(forslag), forslag.id)
                await hand.approve(forslag, UTFORT)
                return Resultat(forslag=forslag.id, merket=ids, utfort=True)
            plan = plan_redrive(lest.brev, utvalg)
            check_selection(forslag, [*(step.letter.id for step in plan.steg), *done])
            await hand.approve(forslag, GODKJENT)
            utfall = await hand.run(plan, Oppdrag(_why(forslag), forslag.utvalg, forslag.id), gang)
            if not utfall.igjen and not utfall.feilet:
                await hand.approve(forslag, UTFORT)
            return Resultat(plan, utfall, forslag.id, utfort=True)

    async def withdraw(self, forslag_id: Uuid, operator: Operator, begrunnelse: str) -> None:
        """Withdraw a proposal, so that it is never carried out.

        Raises:
            ApprovalError: There is none such.
            TransportError: Kafka does not answer, or refuses.
        """
        async with self._acting(operator) as hand:
            forslag = _known(await self.proposals(), forslag_id)
            await hand.write(TRUKKET, forslag.id, {}, begrunnelse)

    async def _reaches_many(self, ids: Iterable[Uuid], operator: Operator) -> bool:
        """Return whether these letters are more than one operator may reach alone, with those of the last day."""
        since = self.clock() - ALONE_FOR
        acts = await read_acts(self.kafka, since_ms=to_ms(since))
        return needs_approval(len({*ids, *done_alone(acts, operator.aktor, ACTS, since)}), self.register)

    @asynccontextmanager
    async def _acting(self, operator: Operator) -> AsyncGenerator[_Hand]:
        """Let one command at a time act in this data folder."""
        try:
            with self.operatorer.acting(operator), FileLock(self.folder / _LOCK, timeout=0, mode=0o600):
                async with KafkaPublisher(self.kafka, client_id=_CLIENT) as publisher:
                    writer = RevisjonWriter(publisher, self.clock, partial(find_head, self.kafka))
                    yield _Hand(self.kafka, publisher, writer, operator)
        except Timeout:
            raise GovernedActError(
                "en annen kommando arbeider med de døde brevene nå; vent til den er ferdig"
            ) from None


@dataclass(frozen=True, slots=True)
class _Hand:
    """What an operator acts with, while nobody else does."""

    kafka: KafkaSettings
    publisher: KafkaPublisher
    writer: RevisjonWriter
    operator: Operator

    async def write(
        self, handling: str, objekt: str, details: Mapping[str, str], begrunnelse: str | None = None
    ) -> None:
        operator = self.operator
        await self.writer.record(
            operator.aktor, handling, objekt, begrunnelse=begrunnelse, detaljer=details, signer=operator
        )

    async def propose(self, begrunnelse: str, details: Mapping[str, str]) -> Uuid:
        forslag = Uuid.new()
        await self.write(FORESLATT, forslag, details, begrunnelse)
        return forslag

    async def approve(self, forslag: Forslag, handling: str) -> None:
        await self.write(handling, forslag.id, {"digest": forslag.digest, "forslagsbevis": forslag.act.digest})

    async def mark(self, handling: str, ids: Iterable[Uuid], begrunnelse: str, forslag: Uuid | None = None) -> None:
        details = {} if forslag is None else {"forslag": str(forslag)}
        operator = self.operator
        await self.writer.record_all(
            operator.aktor,
            MERKINGER[handling],
            dict.fromkeys(ids, details),
            begrunnelse=begrunnelse,
            signer=operator,
        )

    async def run(self, plan: Plan, oppdrag: Oppdrag, gang: Gang | None) -> Utfall:
        how = gang or Gang()
        async with KafkaFetcher(self.kafka, client_id=_CLIENT) as fetcher:
            redriver = Redriver(
                fetch=fetcher, publisher=self.publisher, writer=self.writer, signer=self.operator, rate=how.rate
            )
            return await redriver.run(plan, oppdrag, stop=how.stop, progress=how.progress)


def _frozen(utvalg: Utvalg, lest: Lest) -> Utvalg:
    """Return the selection as a proposal has it: letters that come later are no part of it."""
    newest = max((letter.at_ms for sak in lest.brev.saker for letter in sak.brev), default=0)
    return utvalg.model_copy(update={"for_ms": newest + 1})


def _known(found: Mapping[Uuid, Forslag], forslag_id: Uuid) -> Forslag:
    forslag = found.get(forslag_id)
    if forslag is None or (forslag.handling != planning.HANDLING and forslag.handling not in MERKINGER):
        raise ApprovalError("det er ikke noe slikt forslag for døde brev; se `formidler dlq forslag`")
    return forslag


def _read_utvalg(forslag: Forslag) -> Utvalg:
    try:
        return Utvalg.model_validate_json(forslag.utvalg)
    except ValidationError:
        raise ApprovalError("forslagets utvalg kan ikke leses") from None


def _why(forslag: Forslag) -> str:
    return forslag.act.record.begrunnelse or ""
