"""The signed content of a kvittering: what the issuer vouches for.

The claims are JSON in a compact JWS (``crypto.jws``), so that anyone with a JOSE library and the issuer's certificate can
verify one. ``forrige`` ties each kvittering to the issuer's former one for the same søknad: one chain for each søknad and
issuer, which cannot lose a link, or get one inserted, without it showing.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final, Self

from pydantic import AwareDatetime, Field, ValidationError, field_serializer

from schemas.errors import DecodeError
from schemas.model import WireModel
from schemas.names import DigisosId, Kommunenummer, MeldingId, Sha256, Uuid
from schemas.records import KANAL_KAFKA, KvitteringRecord

LEVERT: Final = "LEVERT"
MOTTATT: Final = "MOTTATT"
AVVIST: Final = "AVVIST"

GRAD_INGEN: Final = "INGEN"
GRAD_LEVERT: Final = "LEVERT"
GRAD_APNET: Final = "APNET"
GRAD_VALIDERT: Final = "VALIDERT"
GRAD_LAGRET: Final = "LAGRET"


class KvitteringClaims(WireModel):
    """One kvittering.

    Attributes:
        utsteder: Id of the connector or door that issues it.
        status: LEVERT, MOTTATT or AVVIST; an open list.
        grad: The issuer's assurance: how far the melding came. INGEN, LEVERT, APNET, VALIDERT or LAGRET.
        kode: Why, for AVVIST: an error's ``code`` or a fagsystem's reason code. Never free text.
        sha256: Digest of what was received: the sealed package, or the record's value when it could not be read.
        nr: 1 for the issuer's first kvittering of this søknad.
        forrige: SHA-256 of the issuer's former JWS of this søknad, None for the first.
    """

    kvittering_id: Uuid
    digisos_id: DigisosId
    melding_id: MeldingId | None
    kommunenummer: Kommunenummer
    utsteder: str
    status: str
    grad: str
    kode: str | None = None
    sha256: Sha256
    kanal: str = KANAL_KAFKA
    tidspunkt: AwareDatetime
    nr: int = Field(ge=1)
    forrige: Sha256 | None = None

    @field_serializer("tidspunkt", when_used="json")
    def _milliseconds(self, tidspunkt: datetime) -> str:
        return tidspunkt.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Parse the payload of a JWS.

        Raises:
            DecodeError: Not JSON, or a field is missing or of the wrong form.
        """
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            fields = ", ".join(
                str(e["loc"][0]) for e in error.errors(include_url=False, include_input=False) if e["loc"]
            )
            raise DecodeError(f"kvittering: ugyldige felt: {fields}") from None

    def to_json(self) -> bytes:
        """Return the payload to sign, UTF-8."""
        return self.model_dump_json(by_alias=True).encode()

    def record(self, jws: str) -> KvitteringRecord:
        """Return the record that carries ``jws``, with the clear fields repeated."""
        return KvitteringRecord(
            kvittering_id=self.kvittering_id,
            digisos_id=self.digisos_id,
            melding_id=self.melding_id,
            kommunenummer=self.kommunenummer,
            status=self.status,
            tidspunkt=self.tidspunkt,
            jws=jws,
        )
