"""Why a client could not connect: aiokafka says "unable to bootstrap" for a wrong password too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiokafka.conn import create_conn
from aiokafka.errors import KafkaError

from broker.kafka.errors import from_aiokafka
from schemas.errors import AccessDeniedError, ConfigurationError

if TYPE_CHECKING:
    from broker.kafka.settings import KafkaSettings


async def check_login(settings: KafkaSettings) -> None:
    """Return if some broker takes our credentials, or none answers at all.

    Raises:
        AccessDeniedError: A broker refuses them.
        ConfigurationError: An address is not ``host:port``.
    """
    options = settings.connection()
    for host, port in addresses(settings.bootstrap):
        try:
            connection = await create_conn(
                host,
                port,
                request_timeout_ms=settings.request_timeout_ms,
                ssl_context=options["ssl_context"],
                security_protocol=options["security_protocol"],
                sasl_mechanism=options["sasl_mechanism"] if settings.security_protocol.startswith("SASL") else None,
                sasl_plain_username=options["sasl_plain_username"],
                sasl_plain_password=options["sasl_plain_password"],
            )
        except (OSError, TimeoutError):
            continue
        except KafkaError as error:
            ours = from_aiokafka(error)
            if isinstance(ours, AccessDeniedError):
                raise ours from error
            continue
        connection.close()
        return


def addresses(bootstrap: str) -> list[tuple[str, int]]:
    """Return the hosts and ports of ``host:port,host:port``.

    Raises:
        ConfigurationError: One of them has another form.
    """
    found: list[tuple[str, int]] = []
    for one in bootstrap.split(","):
        host, _, port = one.strip().rpartition(":")
        if not host or not port.isdecimal():
            raise ConfigurationError("Kafka-adressen skal være VERT:PORT, flere med komma mellom")
        found.append((host.strip("[]"), int(port)))
    return found
