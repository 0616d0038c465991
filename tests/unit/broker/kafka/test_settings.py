from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from broker.kafka.login import addresses
from broker.kafka.settings import KafkaSettings
from schemas.errors import ConfigurationError

SCRAM = {
    "FORMIDLER_KAFKA_BOOTSTRAP": "localhost:9092",
    "FORMIDLER_KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
    "FORMIDLER_KAFKA_USERNAME": "producers",
    "FORMIDLER_KAFKA_PASSWORD": "hemmelig",
    "PATH": "/bin",
}


def test_our_own_variables_are_read() -> None:
    settings = KafkaSettings.from_environment(SCRAM)
    assert settings.bootstrap == "localhost:9092"
    assert settings.connection()["sasl_plain_password"] == "hemmelig"
    assert settings.confluent()["sasl.password"] == "hemmelig"
    assert settings.confluent()["sasl.mechanisms"] == "SCRAM-SHA-512"


def test_a_child_process_gets_the_same_settings() -> None:
    settings = KafkaSettings.from_environment(SCRAM)
    assert KafkaSettings.from_environment(settings.environment()) == settings


def test_the_password_does_not_show_itself() -> None:
    settings = KafkaSettings.from_environment(SCRAM)
    assert "hemmelig" not in f"{settings!r} {settings} {settings.model_dump()}"


def test_variables_of_nais_mean_mutual_tls() -> None:
    settings = KafkaSettings.from_environment(
        {
            "KAFKA_BROKERS": "a.aivencloud.com:1,b.aivencloud.com:2",
            "KAFKA_CA_PATH": "/ca.pem",
            "KAFKA_CERTIFICATE_PATH": "/c.pem",
            "KAFKA_PRIVATE_KEY_PATH": "/k.pem",
        }
    )
    assert settings.security_protocol == "SSL"
    assert (settings.ca_path, settings.private_key_path) == (Path("/ca.pem"), Path("/k.pem"))
    assert settings.confluent()["ssl.key.location"] == "/k.pem"


def test_our_own_variables_win_over_those_of_nais() -> None:
    assert KafkaSettings.from_environment(SCRAM | {"KAFKA_BROKERS": "other:1"}).bootstrap == "localhost:9092"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"FORMIDLER_KAFKA_BOOTSTRAP": ""}, "FORMIDLER_KAFKA_BOOTSTRAP"),
        ({"FORMIDLER_KAFKA_SECURITY_PROTOCOL": "sasl"}, "FORMIDLER_KAFKA_SECURITY_PROTOCOL"),
        ({"FORMIDLER_KAFKA_PASSWORD": ""}, "passord"),
        ({"FORMIDLER_KAFKA_SESSION_TIMEOUT_MS": "hemmelig-tall"}, "FORMIDLER_KAFKA_SESSION_TIMEOUT_MS"),
        ({"FORMIDLER_KAFKA_CERTIFICATE_PATH": "/c.pem"}, "hører sammen"),
    ],
)
def test_what_is_wrong_is_named_and_no_value_is_repeated(change: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named) as raised:
        KafkaSettings.from_environment(SCRAM | change)
    assert "hemmelig" not in str(raised.value)


def test_nothing_at_all_asks_for_an_address() -> None:
    with pytest.raises(ConfigurationError, match="FORMIDLER_KAFKA_BOOTSTRAP"):
        KafkaSettings.from_environment({})


def test_only_the_tls_protocols_have_a_tls_context() -> None:
    assert KafkaSettings.from_environment(SCRAM).connection()["ssl_context"] is None
    tls = KafkaSettings.from_environment(SCRAM | {"FORMIDLER_KAFKA_SECURITY_PROTOCOL": "SASL_SSL"})
    context = tls.connection()["ssl_context"]
    assert context is not None
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


def test_a_certificate_file_that_is_missing_is_a_matter_of_configuration(tmp_path: Path) -> None:
    settings = KafkaSettings(bootstrap="x:1", security_protocol="SSL", ca_path=tmp_path / "none.pem")
    with pytest.raises(ConfigurationError, match="kan ikke leses"):
        settings.connection()


def test_addresses_are_told_apart() -> None:
    assert addresses("a:1, b.c:22,[::1]:3") == [("a", 1), ("b.c", 22), ("::1", 3)]
    for wrong in ("a", "a:", ":1", "a:b"):
        with pytest.raises(ConfigurationError):
            addresses(wrong)
