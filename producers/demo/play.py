"""The day, step by step, from outside: what the portal, the attacker and the fagsystem's operators do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

from broker.clock import system_clock
from broker.supervisor.up import Running
from producers.demo.attacker import tamper
from producers.demo.fagsystem import Fagsystem
from producers.demo.journey import Journey
from producers.demo.plan import LATE_CONNECTOR, Day, Role
from producers.demo.portal import Portal

AT_ONCE: Final = 4
END_WITHIN_S: Final = 60.0
LOOK_EVERY_S: Final = 0.02


class DayPlay:
    """Plays one day.

    Args:
        day: The plan.
        journeys: One for each søknad of the plan, in its order; kept up to date while the day goes.
        up: The set-up that is played against.
        portal: The citizens' side.
        fagsystem: The simulated fagsystemer's controls.
        step: Told what is being done.
    """

    def __init__(
        self,
        day: Day,
        journeys: list[Journey],
        *,
        up: Running,
        portal: Portal,
        fagsystem: Fagsystem,
        step: Callable[[str], None],
    ) -> None:
        self._day = day
        self._journeys = journeys
        self._up = up
        self._portal = portal
        self._fagsystem = fagsystem
        self._step = step
        self.seen_while_down: list[str] = []
        self._followers: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        """Play the day to its end, or until nothing more can be waited for: the verdict tells which."""
        async with asyncio.TaskGroup() as followers:
            await self._fagsystem.take_down(self._day.down)
            for journey in self._of(Role.AVVISES):
                await self._fagsystem.refuse(journey.planned.ref)
            self._step("sender søknader; én blir endret underveis")
            async with asyncio.TaskGroup() as sides:
                sides.create_task(self._tamper_on_the_way(followers))
                sides.create_task(self._send_all(self._elsewhere(), followers))
            await self._send_again()
            self._step("venter på kommunene; fagsystemet i én kommune er nede")
            waiting = [j for j in self._journeys if j.planned.kommunenummer == self._day.down]
            others = [j for j in self._journeys if j not in waiting]
            await self._until(lambda: all(j.answered for j in others) and all(j.status for j in waiting))
            self.seen_while_down = [journey.status for journey in waiting]
            self._step("fagsystemet kommer opp igjen")
            await self._fagsystem.bring_up(self._day.down)
            await self._until(lambda: all(journey.ended for journey in self._journeys))
            for follower in self._followers:
                follower.cancel()

    def _of(self, role: Role) -> list[Journey]:
        return [journey for journey in self._journeys if journey.planned.role is role]

    def _elsewhere(self) -> list[Journey]:
        return [j for j in self._journeys if j.planned.kommunenummer != self._day.tampered]

    async def _tamper_on_the_way(self, followers: asyncio.TaskGroup) -> None:
        """Send one søknad while nobody reads its topic, change it there, and then let the connector and the others come."""
        await self._send_all(self._of(Role.ENDRES), followers)
        await tamper(self._up.kafka, self._day.tampered)
        elsewhere = self._elsewhere()
        rest = [j for j in self._journeys if j not in elsewhere and j.planned.role is not Role.ENDRES]
        async with asyncio.TaskGroup() as sides:
            sides.create_task(self._send_all(rest, followers))
            sides.create_task(self._up.start_named(f"konnektor-{LATE_CONNECTOR}"))

    async def _send_all(self, journeys: Iterable[Journey], followers: asyncio.TaskGroup) -> None:
        gate = asyncio.Semaphore(AT_ONCE)
        certificate = await self._portal.public_key(self._journeys[0].planned.person)

        async def send(journey: Journey) -> None:
            async with gate:
                journey.sent_at = system_clock()
                journey.digisos_id = (await self._portal.send(journey.planned, certificate)).digisos_id
            self._followers.append(followers.create_task(self._follow(journey)))

        async with asyncio.TaskGroup() as senders:
            for journey in journeys:
                senders.create_task(send(journey))

    async def _send_again(self) -> None:
        for journey in self._of(Role.DOBBEL):
            certificate = await self._portal.public_key(journey.planned.person)
            answer = await self._portal.send(journey.planned, certificate)
            journey.repeated = answer.digisos_id if answer.duplicate else None

    async def _follow(self, journey: Journey) -> None:
        if journey.digisos_id is None:
            raise RuntimeError("followed before it was sent")
        async for view in self._portal.follow(journey.digisos_id, journey.planned.person):
            journey.view = view
            if journey.ended:
                return

    async def _until(self, condition: Callable[[], bool]) -> None:
        """Wait for ``condition``, but not for ever: the verdict tells what did not come."""
        deadline = asyncio.get_running_loop().time() + END_WITHIN_S
        while not condition():
            if asyncio.get_running_loop().time() > deadline:
                self._step("noe ble ikke ferdig i tide")
                return
            await asyncio.sleep(LOOK_EVERY_S)
