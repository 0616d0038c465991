from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from broker.operator_register import OperatorEntry, Register
from broker.record import DEAD_LETTER_HEADER, GJENKJORINGER_HEADER, Incoming, Outgoing
from broker.revisjon_records import SIGNATURE_TYPE, canonical
from broker.revisjonskontroll import Act
from broker.routing import dead_letter_topic, soknad_topic
from crypto.jws import sign_jws
from schemas.codec import encode
from schemas.names import (
    DigisosId,
    Kommunenummer,
    MeldingId,
    NavEksternRefId,
    NokkelId,
    Organisasjonsnummer,
    Sha256,
    Uuid,
)
from schemas.records import DeadLetterRecord, Forsok, Header, Opprinnelig, RevisjonRecord, SoknadRecord

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
OSLO = Kommunenummer("0301")


def uuid(nr: int) -> str:
    return str(UUID(int=nr, version=4))


KARI_KEY = ec.generate_private_key(ec.SECP256R1())
"""One for the run: the acts that count are signed."""


def self_signed(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "operator-kari")])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(NOW + timedelta(days=365))
        .sign(key, hashes.SHA256())
    )


KARI = OperatorEntry(
    navn="kari", sertifikat=self_signed(KARI_KEY).public_bytes(Encoding.PEM).decode(), innfort=NOW - timedelta(days=1)
)


@dataclass
class Mailbox:
    """Dead-letter topics in memory, with what was sent again from them."""

    records: list[Incoming] = field(default_factory=list)
    acts: list[Act] = field(default_factory=list)
    at_ms: int = 1_000_000

    def soknad(self, soknad: int = 1, melding: int = 1, **changes: Any) -> SoknadRecord:
        fields = {
            "melding_id": MeldingId(uuid(1000 + melding)),
            "digisos_id": DigisosId(uuid(soknad)),
            "kommunenummer": OSLO,
            "nav_ekstern_ref_id": NavEksternRefId(f"ref-{melding}"),
            "innsendt": NOW,
            "avsender": Organisasjonsnummer("889640782"),
            "nokkel_id": NokkelId("a" * 64),
            "sha256": Sha256("b" * 64),
            "storrelse": 3,
            "pakke": b"abc",
            "type": "SOKNAD" if melding == 1 else "ETTERSENDELSE",
        }
        return SoknadRecord(**(fields | changes))

    def die(
        self,
        soknad: int = 1,
        melding: int = 1,
        *,
        kode: str = "krypto.apning",
        trinn: str = "APNING",
        kommune: Kommunenummer = OSLO,
        runde: int = 0,
        fra: Uuid | None = None,
        tidspunkt: datetime = NOW,
        verdi: bytes | str | None = "soknad",
        emne: str | None = None,
        **changes: Any,
    ) -> Uuid:
        """Put a letter on the topic; return its id."""
        self.at_ms += 1000
        record = self.soknad(soknad, melding, kommunenummer=kommune, **changes)
        headers = [Header(navn="traceparent", verdi=b"00-aa")]
        if fra is not None:
            headers += [
                Header(navn=GJENKJORINGER_HEADER, verdi=str(runde).encode()),
                Header(navn=DEAD_LETTER_HEADER, verdi=fra.encode()),
            ]
        readable = verdi == "soknad"
        dead = DeadLetterRecord(
            dead_letter_id=Uuid(uuid(10_000 + len(self.records))),
            digisos_id=record.digisos_id,
            melding_id=record.melding_id if readable else None,
            kommunenummer=kommune,
            kode=kode,
            trinn=trinn,
            tidspunkt=tidspunkt,
            forsok=(Forsok(nr=1, tidspunkt=tidspunkt, kode=kode),),
            gjenkjoringer=runde,
            opprinnelig=Opprinnelig(
                topic=emne or soknad_topic(kommune),
                partisjon=0,
                offset=len(self.records),
                tidsstempel=NOW,
                nokkel=record.digisos_id.encode(),
                verdi=encode(record) if readable else verdi,  # type: ignore[arg-type]  # bytes or None here
                headere=tuple(headers),
            ),
        )
        self.records.append(
            Incoming(
                dead_letter_topic(kommune), 0, len(self.records), self.at_ms, record.digisos_id.encode(), encode(dead)
            )
        )
        return dead.dead_letter_id

    def register(self, rounds: int = 3, entry: OperatorEntry | None = KARI) -> Register:
        return Register(maks_runder=rounds, operatorer=() if entry is None else (entry,))

    def sign(self, payload: bytes) -> str:
        """Sign as operator-kari."""
        return sign_jws(payload, KARI_KEY, KARI.certificate, typ=SIGNATURE_TYPE)

    def act(self, handling: str, brev: str, aktor: str = "operator-kari", *, signed: bool = True) -> Act:
        self.at_ms += 1000
        record = RevisjonRecord(
            revisjon_id=Uuid(uuid(20_000 + len(self.acts))),
            aktor=aktor,
            handling=handling,
            objekt=brev,
            tidspunkt=NOW + timedelta(seconds=len(self.acts)),
        )
        if signed:
            record = record.model_copy(update={"signatur": self.sign(canonical(record))})
        act = Act(record, Sha256.of(encode(record)), self.at_ms, len(self.acts))
        self.acts.append(act)
        return act

    def later(self) -> int:
        self.at_ms += 1000
        return self.at_ms

    async def fetch(self, topic: str, partition: int, offset: int) -> Incoming:
        found = self.records[offset]
        assert (found.topic, found.partition) == (topic, partition)
        return found


@pytest.fixture
def mailbox() -> Mailbox:
    return Mailbox()


@pytest.fixture(scope="session")
def new_mailbox() -> Callable[[], Mailbox]:
    return Mailbox


def as_sent(outgoing: Outgoing) -> dict[str, bytes]:
    return dict(outgoing.headers)
