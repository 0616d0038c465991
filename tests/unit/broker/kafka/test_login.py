from __future__ import annotations

from typing import Any

import pytest
from aiokafka import errors as aio

from broker.kafka import login
from broker.kafka.login import addresses, check_login
from broker.kafka.settings import KafkaSettings
from schemas.errors import AccessDeniedError, ConfigurationError


class Connection:
    def __init__(self) -> None:
        self.closed = False

    def close(self) -> None:
        self.closed = True


class Brokers:
    """Stands in for the network: what each host answers, and what was asked of it."""

    def __init__(self, **answers: Connection | Exception) -> None:
        self._answers = answers
        self.asked: list[tuple[str, int]] = []
        self.options: dict[str, Any] = {}

    async def connect(self, host: str, port: int, **options: Any) -> Connection:
        self.asked.append((host, port))
        self.options = options
        answer = self._answers[host]
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def settings() -> KafkaSettings:
    given = {"bootstrap": "a:1,b:2", "security_protocol": "SASL_PLAINTEXT", "username": "u", "password": "p"}
    return KafkaSettings.model_validate(given)


def use(monkeypatch: pytest.MonkeyPatch, **answers: Connection | Exception) -> Brokers:
    brokers = Brokers(**answers)
    monkeypatch.setattr(login, "create_conn", brokers.connect)
    return brokers


@pytest.mark.parametrize(
    ("bootstrap", "expected"),
    [
        ("kafka:9092", [("kafka", 9092)]),
        ("a:1, b:2", [("a", 1), ("b", 2)]),
        ("[::1]:9092", [("::1", 9092)]),
    ],
)
def test_addresses_are_hosts_and_ports(bootstrap: str, expected: list[tuple[str, int]]) -> None:
    assert addresses(bootstrap) == expected


@pytest.mark.parametrize("bootstrap", ["kafka", "kafka:", ":9092", "kafka:http", "a:1,", "kafka:-1"])
def test_an_address_of_another_form_is_refused(bootstrap: str) -> None:
    with pytest.raises(ConfigurationError, match="VERT:PORT"):
        addresses(bootstrap)


async def test_the_first_broker_that_takes_us_is_enough(
    settings: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = Connection()
    brokers = use(monkeypatch, a=connection)
    await check_login(settings)
    assert brokers.asked == [("a", 1)]
    assert connection.closed


async def test_we_log_in_as_who_we_are(settings: KafkaSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    brokers = use(monkeypatch, a=Connection())
    await check_login(settings)
    assert brokers.options["sasl_mechanism"] == "SCRAM-SHA-512"
    assert brokers.options["sasl_plain_username"] == "u"
    assert brokers.options["sasl_plain_password"] == "p"


async def test_without_sasl_there_is_no_mechanism(monkeypatch: pytest.MonkeyPatch) -> None:
    brokers = use(monkeypatch, a=Connection())
    await check_login(KafkaSettings(bootstrap="a:1"))
    assert brokers.options["sasl_mechanism"] is None


@pytest.mark.parametrize("silent", [OSError(), TimeoutError(), aio.KafkaConnectionError()])
async def test_a_broker_that_is_away_says_nothing_about_our_password(
    settings: KafkaSettings, monkeypatch: pytest.MonkeyPatch, silent: Exception
) -> None:
    brokers = use(monkeypatch, a=silent, b=Connection())
    await check_login(settings)
    assert brokers.asked == [("a", 1), ("b", 2)]


async def test_a_refused_password_is_told_as_that(settings: KafkaSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, a=TimeoutError(), b=aio.AuthenticationFailedError("x"))
    with pytest.raises(AccessDeniedError):
        await check_login(settings)


async def test_nobody_at_all_is_no_refusal(settings: KafkaSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    brokers = use(monkeypatch, a=OSError(), b=OSError())
    await check_login(settings)
    assert brokers.asked == [("a", 1), ("b", 2)]
