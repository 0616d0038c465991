"""How to reach Kafka, and as whom.

Read from ``FORMIDLER_KAFKA_*``, or from the variables that Nais gives an application that uses Aiven (mutual TLS). Read once,
in a composition root, and passed down as a value.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, Self, TypedDict

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator

from schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

SecurityProtocol = Literal["PLAINTEXT", "SASL_PLAINTEXT", "SASL_SSL", "SSL"]
PREFIX: Final = "FORMIDLER_KAFKA_"
MECHANISM: Final = "SCRAM-SHA-512"

_NAIS: Final = {
    "KAFKA_BROKERS": "bootstrap",
    "KAFKA_CA_PATH": "ca_path",
    "KAFKA_CERTIFICATE_PATH": "certificate_path",
    "KAFKA_PRIVATE_KEY_PATH": "private_key_path",
}


class Connection(TypedDict):
    """What aiokafka needs to connect, as keyword arguments."""

    bootstrap_servers: str
    security_protocol: str
    ssl_context: ssl.SSLContext | None
    sasl_mechanism: str
    sasl_plain_username: str | None
    sasl_plain_password: str | None


class KafkaSettings(BaseModel):
    """Where Kafka is and who we are. Frozen; the password does not show itself.

    Attributes:
        bootstrap: ``host:port``, several separated by commas.
        security_protocol: Kafka's own names.
        username: SCRAM-SHA-512 user, with the SASL protocols.
        password: Its password.
        ca_path: PEM of who issued the brokers' certificates; the machine's own list if not given.
        certificate_path: PEM of our client certificate, with SSL.
        private_key_path: PEM of its key.
        session_timeout_ms: How long a silent member keeps its partitions.
        request_timeout_ms: How long one request may take.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    bootstrap: str = Field(min_length=1)
    security_protocol: SecurityProtocol = "PLAINTEXT"
    username: str | None = None
    password: SecretStr | None = None
    ca_path: Path | None = None
    certificate_path: Path | None = None
    private_key_path: Path | None = None
    session_timeout_ms: int = Field(default=10_000, ge=6_000)
    request_timeout_ms: int = Field(default=20_000, ge=1_000)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.security_protocol.startswith("SASL") and not (self.username and self.password):
            raise ValueError("SASL trenger både brukernavn og passord")
        if (self.certificate_path is None) != (self.private_key_path is None):
            raise ValueError("klientsertifikat og privat nøkkel hører sammen")
        return self

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Return the settings that ``environment`` gives: ours first, then Nais'.

        Raises:
            ConfigurationError: A setting is missing or wrong; the text names the variable and never a value.
        """
        values: dict[str, str] = {field: environment[name] for name, field in _NAIS.items() if environment.get(name)}
        if "certificate_path" in values:
            values["security_protocol"] = "SSL"
        values |= {
            field: environment[PREFIX + field.upper()]
            for field in cls.model_fields
            if PREFIX + field.upper() in environment
        }
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            problems = "; ".join(
                f"{PREFIX}{'_'.join(map(str, one['loc'])).upper() or '*'}: {one['msg']}"
                for one in error.errors(include_input=False, include_url=False)
            )
            raise ConfigurationError(f"Kafka-oppsettet er ikke gyldig: {problems}") from None

    def environment(self) -> dict[str, str]:
        """Return the variables that give a child process these settings. They hold the password: never log them."""
        values = {
            field: value.get_secret_value() if isinstance(value, SecretStr) else str(value)
            for field in type(self).model_fields
            if (value := getattr(self, field)) is not None
        }
        return {PREFIX + field.upper(): value for field, value in values.items()}

    def as_user(self, username: str, password: str) -> KafkaSettings:
        """Return the same Kafka, seen by another user."""
        return self.model_copy(update={"username": username, "password": SecretStr(password)})

    def connection(self) -> Connection:
        """Return aiokafka's arguments.

        Raises:
            ConfigurationError: A certificate or key file cannot be read.
        """
        return {
            "bootstrap_servers": self.bootstrap,
            "security_protocol": self.security_protocol,
            "ssl_context": self._ssl_context(),
            "sasl_mechanism": MECHANISM,
            "sasl_plain_username": self.username,
            "sasl_plain_password": self.password.get_secret_value() if self.password else None,
        }

    def confluent(self) -> dict[str, str | int]:
        """Return confluent-kafka's configuration."""
        options: dict[str, str | int] = {
            "bootstrap.servers": self.bootstrap,
            "security.protocol": self.security_protocol,
            "reconnect.backoff.ms": 20,
            "reconnect.backoff.max.ms": 500,
            "log_level": 0,
        }
        if self.security_protocol.startswith("SASL"):
            options |= {"sasl.mechanisms": MECHANISM, "sasl.username": self.username or ""}
            options["sasl.password"] = self.password.get_secret_value() if self.password else ""
        for name, path in (
            ("ssl.ca.location", self.ca_path),
            ("ssl.certificate.location", self.certificate_path),
            ("ssl.key.location", self.private_key_path),
        ):
            if path is not None:
                options[name] = str(path)
        return options

    def _ssl_context(self) -> ssl.SSLContext | None:
        if self.security_protocol not in {"SSL", "SASL_SSL"}:
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca_path)
            if self.certificate_path is not None:
                context.load_cert_chain(self.certificate_path, self.private_key_path)
        except OSError as error:
            raise ConfigurationError("Kafka-oppsettet: en sertifikat- eller nøkkelfil kan ikke leses") from error
        return context
