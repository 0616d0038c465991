"""What a set-up does by itself beside its processes: delete from topics what is over age, also by virtual time.

On somebody else's cluster nothing of this is done: there an administrator runs ``formidler oppbevaring kjor``.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from broker.kafka.admin import KafkaAdmin
from broker.kafka.expiry import delete_expired
from broker.log import get_logger
from broker.retention import cutoffs
from schemas.errors import TransportError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from broker.clock import Clock
    from broker.kafka.settings import KafkaSettings
    from broker.routing import TopicSpec

EVERY: Final = timedelta(hours=1)
_LOOK_S: Final = 1.0
"""How often the clock is looked at: somebody may have moved it."""


async def keep_retention(
    kafka: KafkaSettings, topics: Callable[[], Iterable[TopicSpec]], clock: Clock, *, look_s: float = _LOOK_S
) -> None:
    """Delete what is over age now and once an hour by ``clock``, until cancelled; a failure is told and tried again next time.

    Args:
        kafka: An administrator's principal.
        topics: Returns the topics as they should be.
        clock: The set-up's time.
        look_s: How often it is looked at, in seconds.
    """
    last: datetime | None = None
    while True:
        now = clock()
        if last is None or now - last >= EVERY:
            last = now
            try:
                async with KafkaAdmin(kafka) as admin:
                    await delete_expired(kafka, admin, cutoffs(topics(), now))
            except TransportError as error:
                get_logger().warning("retention_not_kept", exc_info=error)
        await asyncio.sleep(look_s)
