"""The border to the Kafka clients: their errors become ours here, and nowhere else.

Every call of aiokafka or confluent-kafka happens inside ``with mapped():``. What the clients say in words is dropped, since it
may quote what was sent; topic and group names are ours and may stay.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from aiokafka import errors as aio
from confluent_kafka import KafkaError as ConfluentError
from confluent_kafka import KafkaException

from schemas.errors import (
    AccessDeniedError,
    BrokerUnavailableError,
    PartitionLostError,
    RecordTooLargeError,
    TransportError,
)

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

_DENIED: Final = (
    aio.TopicAuthorizationFailedError,
    aio.GroupAuthorizationFailedError,
    aio.ClusterAuthorizationFailedError,
    aio.AuthenticationFailedError,
    aio.AuthenticationMethodNotSupported,
    aio.SaslAuthenticationFailed,
    aio.UnsupportedSaslMechanismError,
)
_TOO_LARGE: Final = (aio.MessageSizeTooLargeError, aio.RecordListTooLargeError, aio.RecordTooLargeError)
_LOST: Final = (
    aio.CommitFailedError,
    aio.IllegalStateError,
    aio.IllegalGenerationError,
    aio.UnknownMemberIdError,
    aio.RebalanceInProgressError,
)
# A new producer gets past these; the record may or may not have been written.
_AGAIN: Final = (
    aio.KafkaConnectionError,
    aio.KafkaTimeoutError,
    aio.UnknownTopicOrPartitionError,
    aio.OutOfOrderSequenceNumber,
    aio.InvalidProducerEpoch,
    aio.UnknownProducerId,
    aio.ProducerFenced,
    aio.ProducerClosed,
)
_CONFLUENT: Final[Mapping[int, type[TransportError]]] = {
    ConfluentError.TOPIC_AUTHORIZATION_FAILED: AccessDeniedError,
    ConfluentError.GROUP_AUTHORIZATION_FAILED: AccessDeniedError,
    ConfluentError.CLUSTER_AUTHORIZATION_FAILED: AccessDeniedError,
    ConfluentError.SASL_AUTHENTICATION_FAILED: AccessDeniedError,
    ConfluentError._AUTHENTICATION: AccessDeniedError,  # noqa: SLF001  # librdkafka's own codes begin with an underscore
    ConfluentError.MSG_SIZE_TOO_LARGE: RecordTooLargeError,
}


def from_aiokafka(error: Exception) -> TransportError:
    """Return the error of ours that ``error`` of aiokafka is."""
    name = type(error).__name__
    if isinstance(error, _DENIED):
        return AccessDeniedError(f"Kafka gir ikke tilgang ({name})")
    if isinstance(error, _TOO_LARGE):
        return RecordTooLargeError("meldingen er større enn emnet tar imot")
    if isinstance(error, _LOST):
        return PartitionLostError(f"partisjonen er ikke lenger vår ({name})")
    if isinstance(error, _AGAIN) or getattr(error, "retriable", False):
        return BrokerUnavailableError(f"Kafka svarer ikke som ventet ({name})")
    return TransportError(f"Kafka avviste forespørselen ({name})")


def from_confluent(error: ConfluentError) -> TransportError:
    """Return the error of ours that ``error`` of confluent-kafka is."""
    if (known := _CONFLUENT.get(error.code())) is not None:
        return known(f"Kafka gir ikke tilgang eller avviste forespørselen ({error.name()})")
    if (
        error.retriable() or error.code() < 0
    ):  # negative codes are librdkafka's own: no answer, time-outs, no connection
        return BrokerUnavailableError(f"Kafka svarer ikke som ventet ({error.name()})")
    return TransportError(f"Kafka avviste forespørselen ({error.name()})")


@contextlib.contextmanager
def mapped() -> Generator[None]:
    """Run the body; raise the clients' errors as ours, ``from`` theirs.

    Raises:
        AccessDeniedError: A right is missing, or the credentials are refused.
        RecordTooLargeError: A record is larger than its topic takes.
        PartitionLostError: A partition is another member's.
        BrokerUnavailableError: No answer, or not yet.
        TransportError: Any other refusal.
    """
    try:
        yield
    except (aio.KafkaError, aio.ConsumerStoppedError) as error:
        raise from_aiokafka(error) from error
    except KafkaException as error:
        raise from_confluent(error.args[0]) from error
    except UnicodeDecodeError as error:  # a header's name that broker.kafka.lenient could not mend; it quotes the bytes
        raise TransportError("Kafka ga en melding som klienten ikke kan lese") from error
    except (TimeoutError, OSError) as error:
        raise BrokerUnavailableError(f"Kafka svarer ikke ({type(error).__name__})") from error
