"""One submission under way: fed by whoever has its bytes, made durable by ``accept``, and gone without a trace otherwise."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from broker.log import get_logger
from producers.intake import Submission
from producers.messages import accepted_messages
from producers.spill import Spill
from schemas.errors import CertificateError, OutcomeUnknownError, RefusedError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from producers.intake import Accepted, Innsending, Sealing
    from producers.library import Producer
    from producers.multipart import Event
    from producers.outbox import Message
    from schemas.names import DigisosId, Kommunenummer

T = TypeVar("T")


class Reception:
    """One submission under way. Made by ``Producer.receive``.

    Attributes:
        accepted: What became of it; None until ``accept`` has returned.
    """

    def __init__(self, producer: Producer, innsending: Innsending, sealing: Sealing, traceparent: str | None) -> None:
        self._producer = producer
        self._innsending = innsending
        self._sealing = sealing
        self._traceparent = traceparent
        self._spill = Spill(producer.dokumentlager)
        self._submission: Submission | None = None
        self._running: asyncio.Future[Any] | None = None
        self.accepted: Accepted | None = None

    async def feed(self, produce: Callable[[], Iterable[Event]], *, light: bool = False) -> None:
        """Take the next events.

        Args:
            produce: Returns them; called where the work is done, since parsing is part of it.
            light: It is little: only envelopes are worth a thread.

        Raises:
            RefusedError: A check failed.
            ContractError: A JSON document breaks its format.
            StoreError: The package cannot be written.
        """
        if not light:
            await self._in_thread(lambda: self._feed_all(produce()))
            return
        events = iter(await self._producer.in_turn(lambda: list(produce())))
        while await self._producer.in_turn(lambda: self._feed_until_envelope(events)):
            await self._in_thread(self._begun().unwrap)

    async def accept(self) -> DigisosId:
        """Make the submission durable and return its id.

        Raises:
            AlreadyAcceptedError: Its reference was taken meanwhile.
            RefusedError: It is not complete, or not what it should be.
            StoreError: It cannot be stored, and nothing of it is.
        """

        def finish() -> tuple[Accepted, Sequence[Message]]:
            accepted = self._begun().finish()
            return accepted, accepted_messages(accepted, self._traceparent)

        in_memory = self._spill.in_memory
        accepted, messages = await (self._producer.in_turn(finish) if in_memory else self._in_thread(finish))
        try:
            former = await self._producer.outbox.accept(accepted, messages, self._producer.kopier.keeper(accepted))
        except OutcomeUnknownError:
            raise  # it may be ours: what it refers to must stay, and a repeat finds out
        except StoreError:
            await self._forget(accepted)
            raise
        if former is not None:
            await self._forget(accepted)
            raise self._producer.already_accepted(former, self._innsending.nav_ekstern_ref_id, self._innsending.person)
        self.accepted = accepted
        return accepted.soknad.digisos_id

    async def close(self) -> None:
        """Wait for the thread that may still be at work, and leave nothing behind unless it was accepted."""
        if self._running is not None and not self._running.done():
            await asyncio.wait({self._running})
            self._running.exception()  # whoever wanted it is gone
        if self._submission is not None and self.accepted is None:
            await self._producer.in_thread(self._submission.abort)

    def _feed_all(self, events: Iterable[Event]) -> None:
        submission = self._begun()
        for event in events:
            if submission.feed(event):
                submission.unwrap()

    def _feed_until_envelope(self, events: Iterator[Event]) -> bool:
        """Feed until an envelope is to be opened; return False when there are no more events."""
        submission = self._begun()
        return any(submission.feed(event) for event in events)

    def _begun(self) -> Submission:
        """Return the submission, begun at the first bytes: sealing starts with an RSA operation, which belongs in a thread."""
        if self._submission is None:
            try:
                self._submission = Submission(self._innsending, self._sealing, self._spill)
            except CertificateError as error:
                raise no_certificate(self._innsending.kommunenummer, error) from error
        return self._submission

    async def _forget(self, accepted: Accepted) -> None:
        dokumentlager_id = accepted.soknad.dokumentlager_id
        if dokumentlager_id is not None:
            await self._in_thread(lambda: self._producer.dokumentlager.delete(dokumentlager_id))

    async def _in_thread(self, call: Callable[[], T]) -> T:
        # Shielded: the thread cannot be stopped half-way, and ``close`` must wait for it before it tidies up.
        running = asyncio.ensure_future(self._producer.in_thread(call))
        self._running = running
        return await asyncio.shield(running)


def no_certificate(kommunenummer: Kommunenummer, error: CertificateError) -> RefusedError:
    """Raise the alarm about a kommune that nothing can be sealed for, and return the answer to the sender."""
    get_logger().critical("recipient_certificate_unusable", kommunenummer=kommunenummer, exc_info=error)
    return RefusedError(
        503,
        "kommunen har ikke noe gyldig sertifikat; driften er varslet, prøv igjen senere",
        reason="sertifikat",
    )
