"""The signed content of a kvittering: what the issuer vouches for.

The claims are JSON in a compact JWS (``crypto.jws``), so that anyone with a JOSE library and the issuer's certificate can
verify one. ``forrige`` ties each kvittering to the issuer's former one for the same søknad: one chain for each søknad and
issuer, which cannot lose a link, or get one inserted, without it showing.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final, Self

from pydantic import AfterValidator, AwareDatetime, Field, ValidationError, field_serializer

from schemas.errors import DecodeError
from schemas.model import WireModel
from schemas.names import DigisosId, Kommunenummer, MeldingId, Sha256, Uuid
from schemas.records import KANAL_KAFKA, KvitteringRecord

LEVERT: Final = "LEVERT"
MOTTATT: Final = "MOTTATT"
AVVIST: Final = "AVVIST"

GRAD_INGEN: Final = "INGEN"
GRAD_VALIDERT: Final = "VALIDERT"
GRAD_LAGRET: Final = "LAGRET"

MAX_NR: Final = 1_000_000
UNDERVEIS: Final = timedelta(hours=24)
"""How long one may be on its way from its signer to its topic: through an outage, and not through the end of a key."""
_KODE: Final = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,79}", re.ASCII)
_LONG_NUMBER: Final = re.compile(r"[0-9]{6}", re.ASCII)


def _check_kode(kode: str) -> str:
    if not _KODE.fullmatch(kode) or _LONG_NUMBER.search(kode):
        raise ValueError("en kode er 1 til 80 tegn uten mellomrom, og har aldri seks sifre på rad")
    return kode


Word = Annotated[str, Field(pattern=r"^[A-Z_]{1,40}$")]
"""A word of an open list; its form leaves no room for anything else."""


class KvitteringClaims(WireModel):
    """One kvittering.

    Attributes:
        utsteder: Id of the connector or door that issues it: at most 64 of a-z, 0-9 and hyphen.
        status: LEVERT, MOTTATT or AVVIST; an open list.
        grad: The issuer's assurance: how far the melding came. INGEN, LEVERT, APNET, VALIDERT or LAGRET.
        kode: Why, for AVVIST: an error's ``code`` or a fagsystem's reason code. Never free text, and never six
            digits in a row: a form that a name or a fødselsnummer does not fit into.
        sha256: Digest of what was received: the sealed package, or the record's value when it could not be read.
        nr: 1 for the issuer's first kvittering of this søknad.
        forrige: SHA-256 of the issuer's former JWS of this søknad, None for the first.
    """

    kvittering_id: Uuid
    digisos_id: DigisosId
    melding_id: MeldingId | None
    kommunenummer: Kommunenummer
    utsteder: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,64}$")]
    status: Word
    grad: Word
    kode: Annotated[str, AfterValidator(_check_kode)] | None = None
    sha256: Sha256
    kanal: Word = KANAL_KAFKA
    tidspunkt: AwareDatetime
    nr: int = Field(ge=1, le=MAX_NR)
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
