"""What needs no Kafka of the readers; the rest is in tests/integration."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError, TopicAuthorizationFailedError

from broker.kafka.settings import KafkaSettings
from broker.kafka.subscriber import _start


class LosesCancellations:
    """A client that ends with an error of its own, or well, when it is cancelled."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error
        self.began = asyncio.Event()
        self.stopped = False

    async def start(self) -> None:
        self.began.set()
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error

    async def stop(self) -> None:
        self.stopped = True


@pytest.mark.parametrize("error", [None, KafkaConnectionError(), TopicAuthorizationFailedError()])
async def test_a_cancellation_that_the_client_loses_is_raised_again(error: Exception | None) -> None:
    client: Any = LosesCancellations(error)
    task = asyncio.create_task(_start(client, KafkaSettings(bootstrap="localhost:1")))
    await client.began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(asyncio.shield(asyncio.gather(task)), 10)
    assert client.stopped
