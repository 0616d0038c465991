"""What a session tells of its work: one canonical line for each attempt, the metrics beside it, and what an operator must know.

An answer whose publication fails for a reason that does not pass by itself is repeated for ever, since nothing may be lost. Until
it succeeds it is *stuck*: counted in a metric, and a reason for the kommune not to be ready.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from broker.delivery_messages import DeadLetter, Deliver, Failed, PublishKvittering, Withdraw
from broker.log import get_logger
from consumers import metrics

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from broker.delivery_messages import Event, Retry, Ticket
    from consumers.job import Job
    from schemas.errors import MeldingsformidlerError
    from schemas.names import Kommunenummer


Work = Deliver | Withdraw | DeadLetter | PublishKvittering

_DONE: Final[Mapping[type, str]] = {DeadLetter: "soknad_dead_lettered", Withdraw: "soknad_withdrawn"}


class DeliveryLog:
    """Works for one session.

    Args:
        kommunenummer: The kommune.
    """

    def __init__(self, kommunenummer: Kommunenummer) -> None:
        self.log = get_logger().bind(kommunenummer=kommunenummer)
        self._stuck: set[Ticket] = set()
        self._up = metrics.FAGSYSTEM_UP.labels(kommunenummer=kommunenummer)
        self._open = metrics.OPEN_RECORDS.labels(kommunenummer=kommunenummer)
        self._stuck_gauge = metrics.STUCK_ANSWERS.labels(kommunenummer=kommunenummer)
        self._up.set(1)
        self._stuck_gauge.set(0)

    @property
    def stuck(self) -> int:
        """How many answers cannot be published, for a reason that does not pass by itself."""
        return len(self._stuck)

    def opened(self, records: int) -> None:
        """Tell how many records are read and not done."""
        self._open.set(records)

    def went_down(self, wait_s: float, error: MeldingsformidlerError) -> None:
        """Tell that the fagsystem is unavailable."""
        self._up.set(0)
        self.log.warning("fagsystem_went_down", vent_s=round(wait_s, 1), exc_info=error)

    def came_back(self) -> None:
        """Tell that the fagsystem answers again."""
        self._up.set(1)
        self.log.info("fagsystem_came_back")

    def postponed(self, retry: Retry, wait_s: float) -> None:
        """Tell when a record is tried again."""
        self.log.info(
            "delivery_postponed",
            partition=retry.ticket.partition,
            offset=retry.ticket.offset,
            kode=retry.error.code,
            forsok=retry.attempts,
            vent_s=round(wait_s, 1),
        )

    def gone(self, partitions: Iterable[int]) -> None:
        """Forget what belongs to another process now."""
        numbers = set(partitions)
        self._stuck = {ticket for ticket in self._stuck if ticket.partition not in numbers}
        self._stuck_gauge.set(len(self._stuck))

    def tell(self, job: Job, command: Work, event: Event, duration_s: float) -> None:
        """Write the canonical line of one attempt, and count it. Publishing has no line of its own unless it fails."""
        failed = event.error if isinstance(event, Failed) else None
        if job.is_ours():
            self._judge_stuck(command, failed)
        if isinstance(command, PublishKvittering) and failed is None:
            return
        if isinstance(command, Deliver):
            metrics.DELIVERY_SECONDS.observe(duration_s)
            metrics.DELIVERIES.labels(resultat="FEILET" if failed else job.resultat).inc()
        if isinstance(command, DeadLetter) and failed is None:
            metrics.DEAD_LETTERS.labels(kode=command.error.code).inc()
        self._write(job, command, failed, duration_s)

    def _judge_stuck(self, command: Work, failed: MeldingsformidlerError | None) -> None:
        if isinstance(command, Deliver):
            return
        if failed is not None and not failed.retriable:
            self._stuck.add(command.ticket)
        else:
            self._stuck.discard(command.ticket)
        self._stuck_gauge.set(len(self._stuck))

    def _write(self, job: Job, command: Work, failed: MeldingsformidlerError | None, duration_s: float) -> None:
        record = job.record
        done = _DONE.get(type(command), "soknad_delivered")
        level = self.log.warning if failed or isinstance(command, DeadLetter) else self.log.info
        level(
            "delivery_failed" if failed else done,
            digisos_id=job.digisos_id,
            melding_id=job.melding_id,
            type=record.type if record else None,
            hastegrad=record.hastegrad if record else None,
            partition=job.incoming.partition,
            offset=job.incoming.offset,
            resultat="FEILET" if failed else job.resultat,
            kode=failed.code if failed else command.error.code if isinstance(command, DeadLetter) else None,
            forsok=command.attempt if isinstance(command, Deliver) else None,
            storrelse=record.storrelse if record else len(job.incoming.value),
            trace_id=job.traceparent.split("-")[1],
            varighet_ms=round(duration_s * 1000, 1),
        )
