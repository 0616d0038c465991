"""What a set-up does by itself beside its processes: delete from topics what is over age, also by virtual time.

On somebody else's cluster nothing of this is done: there an administrator runs ``formidler oppbevaring kjor``.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from broker.kafka.admin import KafkaAdmin
from broker.kafka.expiry import delete_expired
from broker.retention import cutoffs
from broker.rounds import rounds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from broker.clock import Clock
    from broker.kafka.settings import KafkaSettings
    from broker.routing import TopicSpec

EVERY: Final = timedelta(hours=1)


async def keep_house(kafka: KafkaSettings, topics: Callable[[], Iterable[TopicSpec]], clock: Clock) -> None:
    """Delete what is over age now and once an hour by ``clock``, until cancelled.

    Args:
        kafka: An administrator's principal.
        topics: Returns the topics as they should be.
        clock: The set-up's time.
    """

    async def delete(now: datetime) -> None:
        async with KafkaAdmin(kafka) as admin:
            await delete_expired(kafka, admin, cutoffs(topics(), now))

    await rounds("oppbevaring", delete, every=EVERY, clock=clock)
