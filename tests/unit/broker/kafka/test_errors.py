from __future__ import annotations

import pytest
from aiokafka import errors as aio
from confluent_kafka import KafkaError, KafkaException

from broker.kafka.errors import from_aiokafka, mapped
from schemas.errors import (
    AccessDeniedError,
    BrokerUnavailableError,
    PartitionLostError,
    RecordTooLargeError,
    TransportError,
)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (aio.TopicAuthorizationFailedError("t"), AccessDeniedError),
        (aio.GroupAuthorizationFailedError("g"), AccessDeniedError),
        (aio.AuthenticationFailedError("x"), AccessDeniedError),
        (aio.MessageSizeTooLargeError(), RecordTooLargeError),
        (aio.CommitFailedError(), PartitionLostError),
        (aio.IllegalStateError(), PartitionLostError),
        (aio.KafkaConnectionError(), BrokerUnavailableError),
        (aio.UnknownTopicOrPartitionError(), BrokerUnavailableError),
        (aio.OutOfOrderSequenceNumber(), BrokerUnavailableError),
        (aio.NotLeaderForPartitionError(), BrokerUnavailableError),
        (aio.InvalidTopicError(), TransportError),
        (aio.ConsumerStoppedError(), TransportError),
        (KafkaException(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)), AccessDeniedError),
        (KafkaException(KafkaError(KafkaError._TIMED_OUT)), BrokerUnavailableError),
        (KafkaException(KafkaError(KafkaError._TRANSPORT)), BrokerUnavailableError),
        (KafkaException(KafkaError(KafkaError.INVALID_CONFIG)), TransportError),
        (TimeoutError(), BrokerUnavailableError),
        (ConnectionResetError(), BrokerUnavailableError),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value.__name__,
)
def test_each_foreign_error_becomes_exactly_one_of_ours(theirs: Exception, ours: type[TransportError]) -> None:
    with pytest.raises(TransportError) as raised, mapped():
        raise theirs
    assert type(raised.value) is ours
    assert raised.value.__cause__ is theirs


def test_every_error_that_aiokafka_calls_retriable_is_retriable_here() -> None:
    for kind in aio.kafka_errors.values():
        assert not kind.retriable or from_aiokafka(kind()).retriable, kind


def test_what_the_client_said_is_not_repeated() -> None:
    assert "secret" not in str(from_aiokafka(aio.KafkaTimeoutError("secret")))


def test_errors_of_our_own_and_mistakes_pass_through() -> None:
    for error in (LookupError("own"), BrokerUnavailableError("own")):
        with pytest.raises(type(error)) as raised, mapped():
            raise error
        assert raised.value is error


def test_a_record_that_the_client_cannot_read_is_an_error_of_ours() -> None:
    with pytest.raises(TransportError) as caught, mapped():
        b"\xff".decode()
    assert not caught.value.retriable
