r"""What a submission must satisfy, as pure functions.

Rules:

1. An error names the file by its position (``fil nr 3``), never by its name: file names hold personal data.
2. The content decides the type, not the name and not what was declared; what was declared must agree.
3. Limits are the last value that is accepted.
4. What ``vedlegg.json`` says was uploaded must be here, byte for byte: attachments have been lost because nobody looked.

Source: KS SvarUt for file names (at most 226 characters, none of ``* : " \ / < > | ?``); NAV's upload service for the rest.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pydantic import Field, ValidationError

from crypto import filenames
from schemas.errors import InvalidDocumentError, RefusedError
from schemas.forsendelse import FILENAME as FORSENDELSE
from schemas.model import WireModel
from schemas.soknad_json import FILENAME as SOKNAD_JSON
from schemas.vedlegg_json import FILENAME as VEDLEGG_JSON

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from schemas.names import Fodselsnummer, Kommunenummer
    from schemas.soknad_json import SoknadJson
    from schemas.vedlegg_json import ExpectedFile

KIB: Final = 1024
MIB: Final = 1024 * KIB

PDF: Final = "application/pdf"
PNG: Final = "image/png"
JPEG: Final = "image/jpeg"

MAX_NAME_CHARS: Final = 226
RESERVED_NAMES: Final = frozenset({SOKNAD_JSON, VEDLEGG_JSON, FORSENDELSE})
"""Files of our own in each package; those of the package format itself are in ``crypto.filenames``."""

ENCRYPTION: Final = "kryptering"
"""The reason of a refusal that depends on an envelope."""
UNREADABLE: Final = (
    "en kryptert fil kan ikke dekrypteres med nøkkelen fra dokumentlager-public-key, eller innholdet er ikke det metadata "
    "og vedleggJson sier (storrelse, mimetype, sha512)"
)
"""All that is ever told of what is inside of encrypted files: not which of them, and not what is wrong."""

HEAD_BYTES: Final = 16
"""How much of a file ``detect_type`` wants to see."""

_MAGIC: Final = (
    (b"%PDF-", PDF),
    (b"\x89PNG\r\n\x1a\n", PNG),
    (b"\xff\xd8\xff", JPEG),
)
_LEADING: Final = b"\xef\xbb\xbf\r\n\t "
_ALIASES: Final = {"image/jpg": JPEG, "image/pjpeg": JPEG, "application/x-pdf": PDF}


@dataclass(frozen=True, slots=True)
class IntakeLimits:
    """How much a submission may hold; each is the last value that is accepted.

    Attributes:
        max_file_bytes: One file, in clear.
        max_total_bytes: All files together, in clear.
        max_files: The citizen's attachments and the portal's three PDFs.
        max_json_bytes: ``soknad.json`` or ``vedlegg.json``.
        max_metadata_bytes: The JSON that stands before each file.
    """

    max_file_bytes: int = 10 * MIB
    max_total_bytes: int = 150 * MIB
    max_files: int = 33
    max_json_bytes: int = MIB
    max_metadata_bytes: int = 16 * KIB

    @property
    def max_parts(self) -> int:
        """How many multipart parts are read: three JSON documents, two for each file, and one file too many to name it."""
        return 3 + 2 * (self.max_files + 1)

    @property
    def max_body_bytes(self) -> int:
        """How many bytes a request's body may have: what is above, envelopes and headers included."""
        each = self.max_metadata_bytes + 64 * KIB
        return self.max_total_bytes + self.max_total_bytes // 50 + 3 * self.max_json_bytes + self.max_files * each


class FilMetadata(WireModel):
    """What stands before each file: ``filnavn, mimetype, storrelse``, all required. JSON, UTF-8."""

    filnavn: str = Field(repr=False)
    mimetype: str = Field(repr=False)
    storrelse: int = Field(ge=0, strict=True)


def parse_metadata(data: bytes, nr: int) -> FilMetadata:
    """Read the metadata of file number ``nr``.

    Raises:
        RefusedError: 400, not JSON or a field is missing or of the wrong form; the text names the field.
    """
    try:
        return FilMetadata.model_validate_json(data)
    except ValidationError as error:
        fields = {str(one["loc"][0]) for one in error.errors(include_url=False, include_input=False) if one["loc"]}
    what = f"feltet {', '.join(sorted(fields))} mangler eller har feil form" if fields else "er ikke et JSON-objekt"
    raise RefusedError(400, f"metadata for fil nr {nr}: {what}", reason="metadata")


def check_name(name: str, nr: int) -> str:
    """Return the file's name as it is compared with others: NFC, case folded.

    Raises:
        RefusedError: 400, the name cannot be used at the receiver.
    """
    problem = _name_problem(name) or filenames.problem(name)
    if problem is not None:
        raise RefusedError(400, f"fil nr {nr}: {problem}", reason="filnavn")
    return filenames.same(name)


def _name_problem(name: str) -> str | None:
    """Return what SvarUt adds to the rules of the package format."""
    if len(name) > MAX_NAME_CHARS:
        return f"filnavnet er lengre enn {MAX_NAME_CHARS} tegn"
    if "/" in name:
        return "filnavnet har tegn som ikke er tillatt"
    if name.startswith(".") or ".." in name:
        return "filnavnet starter med punktum, eller har to punktum etter hverandre"
    if filenames.same(name) in RESERVED_NAMES:
        return "filnavnet er et som pakken selv bruker"
    return None


def declared_type(mimetype: str, nr: int) -> str:
    """Return the declared type without parameters, in lower case.

    Raises:
        RefusedError: 415, not PDF, PNG or JPEG; or the first file is not PDF.
    """
    plain = mimetype.partition(";")[0].strip().lower()
    plain = _ALIASES.get(plain, plain)
    if plain not in {PDF, PNG, JPEG}:
        raise RefusedError(415, f"fil nr {nr}: mimetype skal være {PDF}, {PNG} eller {JPEG}", reason="mimetype")
    if nr == 1 and plain != PDF:
        raise RefusedError(415, f"fil nr 1 skal være søknaden som PDF, med mimetype {PDF}", reason="mimetype")
    return plain


def detect_type(head: bytes) -> str | None:
    """Return the type that a file's first ``HEAD_BYTES`` show, or None for any other.

    White space and a byte order mark before ``%PDF-`` are tolerated, as readers do; nothing else is.
    """
    for magic, mimetype in _MAGIC:
        if head.startswith(magic) or (mimetype == PDF and head.lstrip(_LEADING).startswith(magic)):
            return mimetype
    return None


def check_type(head: bytes, declared: str, nr: int) -> None:
    """Check that the content is what was declared.

    Raises:
        RefusedError: 415.
    """
    found = detect_type(head)
    if found is None:
        raise RefusedError(415, f"fil nr {nr}: innholdet er ikke PDF, PNG eller JPEG", reason="innhold")
    if found != declared:
        raise RefusedError(415, f"fil nr {nr}: innholdet er {found}, men mimetype sier noe annet", reason="innhold")


def check_soknad(soknad: SoknadJson, kommunenummer: Kommunenummer, person: Fodselsnummer) -> None:
    """Check that the søknad belongs to the path and to the token.

    Raises:
        RefusedError: 400 another kommune; 403 another person.
        InvalidDocumentError: ``mottaker.kommunenummer`` has another form than four digits.
    """
    named = soknad.kommunenummer()
    if named is not None and named != kommunenummer:
        raise RefusedError(
            400, "soknadJson: mottaker.kommunenummer er en annen kommune enn adressen det sendes til", reason="kommune"
        )
    if soknad.person() != person:
        raise RefusedError(
            403, "access_token gjelder en annen person enn data.personalia.personIdentifikator", reason="person"
        )


def expected_digests(files: Iterable[ExpectedFile]) -> dict[str, str | None]:
    """Return the SHA-512 that each file in ``vedlegg.json`` must have, by name in NFC; None where it gives none.

    Raises:
        InvalidDocumentError: The same name with two digests.
    """
    digests: dict[str, str | None] = {}
    for nr, file in enumerate(files, 1):
        name = unicodedata.normalize("NFC", file.filnavn)
        former = digests.get(name)
        if former and file.sha512 and former != file.sha512:
            raise InvalidDocumentError(VEDLEGG_JSON, "vedlegg.filer", f"fil nr {nr} står to ganger med ulik sha512")
        digests[name] = former or file.sha512
    return digests


@dataclass(frozen=True, slots=True)
class Delivered:
    """A file that came.

    Attributes:
        nr: Its position among the files, from 1.
        sha512: Of its content in clear, hex.
        encrypted: Whether it came CMS-encrypted, so that nothing may be told of what is in it.
        as_stated: Whether it could be decrypted, and is of the size and type that was stated. Always true of a file in clear.
    """

    nr: int
    sha512: str
    encrypted: bool = False
    as_stated: bool = True


def check_complete(expected: Mapping[str, str | None], delivered: Mapping[str, Delivered]) -> None:
    """Check that every file of ``vedlegg.json`` was delivered, byte for byte.

    What is wrong with a name or a file in clear is told first, and by its number, whatever is in the encrypted files. What is
    wrong inside of an encrypted file, which ``UNREADABLE`` is for, is told last, and in one way.

    Args:
        expected: As ``expected_digests``.
        delivered: Each file that came, by name in NFC.

    Raises:
        RefusedError: 400, one is missing or other than it should be.
    """
    for place, name in enumerate(expected, 1):
        if name not in delivered:
            raise RefusedError(
                400, f"vedleggJson: fil nr {place} med status LastetOpp er ikke med i sendingen", reason="mangler"
            )
    differing = [delivered[name] for name, sha512 in expected.items() if sha512 and sha512 != delivered[name].sha512]
    for file in differing:
        if not file.encrypted:
            raise RefusedError(
                400, f"fil nr {file.nr}: innholdet har en annen sha512 enn vedleggJson sier", reason="sha512"
            )
    if differing or not all(file.as_stated for file in delivered.values()):
        raise RefusedError(400, UNREADABLE, reason=ENCRYPTION)
