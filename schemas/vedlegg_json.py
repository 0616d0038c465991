"""``vedlegg.json``: which attachments belong to a søknad, and which files each of them is.

Nothing in it is required. Types, tilleggsinfo and statuses are open: new ones come regularly, and none of them may stop
anything.

Source: NAV's format vedlegg.json 1.2.0.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from schemas.documents import Document, parse_document

FILENAME: Final = "vedlegg.json"

STATUS_LASTET_OPP: Final = "LastetOpp"
STATUS_KREVES: Final = "VedleggKreves"
STATUS_ALLEREDE_SENDT: Final = "VedleggAlleredeSendt"

HENDELSETYPER: Final = ("dokumentasjonEtterspurt", "dokumentasjonkrav", "soknad", "bruker")


class ExpectedFile(NamedTuple):
    """A file that must come with the søknad."""

    filnavn: str
    sha512: str | None
    """SHA-512 of the plaintext file in lower-case hex, where the sender gave it."""


class Fil(Document):
    """One file."""

    filnavn: str | None = None
    sha512: str | None = None


class Vedlegg(Document):
    """One attachment: files that belong together, such as the pages of an account statement."""

    type: str | None = None
    tilleggsinfo: str | None = None
    status: str | None = None
    filer: tuple[Fil, ...] | None = None
    hendelse_type: str | None = None
    hendelse_referanse: str | None = None
    klage_id: str | None = None


class VedleggJson(Document):
    """The whole document."""

    vedlegg: tuple[Vedlegg, ...] | None = None

    def expected_files(self) -> tuple[ExpectedFile, ...]:
        """Return the files that the document says were uploaded, in its order.

        Only rows with the status ``LastetOpp`` count. A file without a name cannot be looked for, and is left out.
        """
        return tuple(
            ExpectedFile(fil.filnavn, fil.sha512.lower() if fil.sha512 else None)
            for vedlegg in self.vedlegg or ()
            if vedlegg.status == STATUS_LASTET_OPP
            for fil in vedlegg.filer or ()
            if fil.filnavn
        )


def parse_vedlegg(data: bytes) -> VedleggJson:
    """Read ``vedlegg.json``, UTF-8.

    Raises:
        InvalidDocumentError: It breaks the format. The error has the path and never the value.
    """
    return parse_document(VedleggJson, data, FILENAME)
