"""Ids and numbers that are parsed once and typed ever after.

Each is a ``str`` with a form, so it goes into JSON, SQL and Kafka keys as it is. ``X(text)`` checks the form and raises
``InvalidNameError`` without repeating the text.

* A kommunenummer is four digits and a string, never an ``int``: Oslo is ``0301``.
* Ids are lower-case UUIDs, so that the same id is the same bytes everywhere.
* ``Fodselsnummer`` shows itself as ``***`` wherever it might be printed.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import TYPE_CHECKING, ClassVar, Final, Self
from uuid import UUID, uuid4

from pydantic_core import core_schema

from schemas.errors import InvalidNameError

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler


_ELEVEN_DIGITS: Final = re.compile(r"(?<![0-9])[0-9]{11}(?![0-9])", re.ASCII)
_UUID: Final = re.compile(
    r"(?<![0-9a-f])[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}(?![0-9a-f])", re.ASCII | re.IGNORECASE
)


class Name(str):
    """A string with a form. Subclasses set ``PATTERN`` and ``FORM``."""

    __slots__ = ()
    PATTERN: ClassVar[re.Pattern[str]]
    FORM: ClassVar[str]

    def __new__(cls, text: str) -> Self:
        """Check the form.

        Raises:
            InvalidNameError: The text has another form. The error does not repeat it.
        """
        if not cls.PATTERN.fullmatch(text):
            raise InvalidNameError(f"{cls.__name__} skal være {cls.FORM}")
        return super().__new__(cls, text)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        """Let pydantic models use the name as a field, a plain string in JSON."""
        _ = source, handler
        return core_schema.no_info_after_validator_function(
            cls._validate,
            core_schema.str_schema(),
            serialization=core_schema.plain_serializer_function_ser_schema(str),
        )

    @classmethod
    def _validate(cls, text: str) -> Self:
        try:
            return cls(text)
        except InvalidNameError as error:
            raise ValueError(str(error)) from error


class Kommunenummer(Name):
    """Four digits, as in Statistics Norway's standard for kommuneinndeling."""

    __slots__ = ()
    PATTERN = re.compile(r"[0-9]{4}", re.ASCII)
    FORM = "fire siffer"


class Enhetsnummer(Name):
    """Four digits: a NAV office (NORG), which is how a bydel is named."""

    __slots__ = ()
    PATTERN = re.compile(r"[0-9]{4}", re.ASCII)
    FORM = "fire siffer"


class Organisasjonsnummer(Name):
    """Nine digits, Brønnøysundregistrene."""

    __slots__ = ()
    PATTERN = re.compile(r"[0-9]{9}", re.ASCII)
    FORM = "ni siffer"


class NavEksternRefId(Name):
    """The sender's own id of a submission: 1 to 60 of ``0-9 a-z A-Z _ -`` (Fiks Digisos, send API v1).

    It travels in clear, so eleven digits in a row, which may be a fødselsnummer, are refused. Those inside of a UUID are not: one
    in 250 random UUIDs has them.
    """

    __slots__ = ()
    PATTERN = re.compile(r"[0-9a-zA-Z_\-]{1,60}", re.ASCII)
    FORM = "1 til 60 tegn av 0-9, a-z, A-Z, _ og -, uten elleve siffer på rad"

    def __new__(cls, text: str) -> Self:
        """Check the form.

        Raises:
            InvalidNameError: The text has another form. The error does not repeat it.
        """
        if _ELEVEN_DIGITS.search(_UUID.sub("-", text)):
            raise InvalidNameError(f"{cls.__name__} skal være {cls.FORM}")
        return super().__new__(cls, text)


class Uuid(Name):
    """A lower-case UUID with hyphens."""

    __slots__ = ()
    PATTERN = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII)
    FORM = "en UUID med små bokstaver"

    @classmethod
    def new(cls) -> Self:
        """Return a new random id."""
        return cls(str(uuid4()))

    @classmethod
    def of(cls, value: UUID) -> Self:
        """Return ``value`` as this name."""
        return cls(str(value))


class DigisosId(Uuid):
    """One søknad, for ever: the key of its records on every topic."""

    __slots__ = ()


class MeldingId(Uuid):
    """One message: a søknad or an ettersendelse, minted once at acceptance and kept through every retry."""

    __slots__ = ()


class DokumentlagerId(Uuid):
    """One sealed package in the dokumentlager."""

    __slots__ = ()


class NokkelId(Name):
    """A certificate's SHA-256 fingerprint, 64 lower-case hex digits."""

    __slots__ = ()
    PATTERN = re.compile(r"[0-9a-f]{64}", re.ASCII)
    FORM = "64 heksadesimale siffer"


class Sha256(Name):
    """A SHA-256 digest, 64 lower-case hex digits."""

    __slots__ = ()
    PATTERN = re.compile(r"[0-9a-f]{64}", re.ASCII)
    FORM = "64 heksadesimale siffer"

    @classmethod
    def of(cls, data: bytes) -> Self:
        """Return the digest of ``data``."""
        return cls(hashlib.sha256(data).hexdigest())


class Eier(Name):
    """Who owns a søknad, as HMAC-SHA-256 of the fødselsnummer under a central key: 64 lower-case hex digits."""

    __slots__ = ()
    PATTERN = re.compile(r"[0-9a-f]{64}", re.ASCII)
    FORM = "64 heksadesimale siffer"


MIN_EIER_KEY_BYTES: Final = 32
"""Least length of the central key under which owners are named."""


class Fodselsnummer(Name):
    """Eleven digits that name a person. ``repr`` hides them; only ``eier`` should ever leave memory."""

    __slots__ = ()
    PATTERN = re.compile(r"[0-9]{11}", re.ASCII)
    FORM = "elleve siffer"

    def __repr__(self) -> str:
        return "Fodselsnummer('***')"

    def eier(self, key: bytes) -> Eier:
        """Return the owner that may stand on a topic; ``key`` is the central HMAC key, at least 32 bytes."""
        return Eier(hmac.new(key, self.encode("ascii"), hashlib.sha256).hexdigest())
