"""``forsendelse.json``: what the sender signs about a package, beside the files in it.

A ciphertext says nothing about where it belongs. This file does, under the sender's signature: the opener compares it
with the clear fields of the record that carried the package, so that a package moved to another søknad, type or kommune
is refused, and so is one whose office, reference or urgency was changed on the way (``crypto.envelope.check_forsendelse``).
"""

from __future__ import annotations

from typing import Self

from pydantic import AwareDatetime, ValidationError

from schemas.errors import InvalidDocumentError
from schemas.model import WireModel
from schemas.names import DigisosId, Enhetsnummer, Kommunenummer, MeldingId, NavEksternRefId

FILENAME = "forsendelse.json"


class Forsendelse(WireModel):
    """The identity of one package, and what the fagsystem acts on before it is opened. JSON, UTF-8.

    Attributes:
        digisos_id: The søknad.
        melding_id: The message.
        kommunenummer: The receiver.
        type: As the record's.
        opprettet: When it was made, aware.
        enhetsnummer: The NAV office, if it is known. Older senders do not write this and what follows.
        nav_ekstern_ref_id: The sender's own id.
        hastegrad: As the record's.
    """

    digisos_id: DigisosId
    melding_id: MeldingId
    kommunenummer: Kommunenummer
    type: str
    opprettet: AwareDatetime
    enhetsnummer: Enhetsnummer | None = None
    nav_ekstern_ref_id: NavEksternRefId | None = None
    hastegrad: str | None = None

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Parse the file's bytes; unknown fields pass.

        Raises:
            InvalidDocumentError: Not JSON, or a field is missing or of the wrong form. The value is not repeated.
        """
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            path = ".".join(str(part) for part in first["loc"])
            raise InvalidDocumentError(FILENAME, path, first["type"]) from None

    def to_json(self) -> bytes:
        """Return the file's bytes, UTF-8; what is not known is left out."""
        return self.model_dump_json(by_alias=True, exclude_none=True).encode()
