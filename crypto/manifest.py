"""``META-INF/ASiCManifest.xml``: which files the signature covers, and their digests.

Written as KS' Java library writes it. Read in that layout and in the .NET library's, which differ in namespace, in the
file's case and in how they name SHA-256. A document type is refused before anything in it is read, so there are no
entities: no file or host is ever asked for, and nothing expands.

Source: ETSI TS 102 918 v1.2.1 (the namespace in use), ETSI EN 319 162-1; KS ``asic`` and ``fiks-asice-dotnet``.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn
from xml.parsers import expat
from xml.sax.saxutils import escape, quoteattr

from schemas.errors import UnsealError

if TYPE_CHECKING:
    from collections.abc import Iterable

NAMESPACE = "http://uri.etsi.org/02918/v1.2.1#"
DIGEST_NAMESPACE = "http://www.w3.org/2000/09/xmldsig#"
SHA256_URI = "http://www.w3.org/2001/04/xmlenc#sha256"

_NAMESPACES = frozenset({NAMESPACE, "http://uri.etsi.org/2918/v1.2.1#"})
_DIGESTS = {
    SHA256_URI: ("sha256", 32),
    "http://www.w3.org/2000/09/xmldsig#sha256": ("sha256", 32),  # .NET: no standard has it, the bytes are SHA-256
    "http://www.w3.org/2001/04/xmldsig-more#sha384": ("sha384", 48),
    "http://www.w3.org/2001/04/xmlenc#sha512": ("sha512", 64),
}
_MAX_ELEMENTS = 20_000


@dataclass(frozen=True, slots=True)
class Reference:
    """One signed file.

    Args:
        uri: The file's name, as written.
        mimetype: As the sender states it; may be empty.
        algorithm: ``hashlib`` name of the digest.
        digest: Its bytes.
    """

    uri: str
    mimetype: str
    algorithm: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an ASiCManifest says: where its signature stands, and what it covers."""

    signature_uri: str
    references: tuple[Reference, ...]


def write_manifest(manifest: Manifest) -> bytes:
    """Return the manifest as UTF-8 XML; every digest must be SHA-256. The first file is marked as the root file."""
    parts = [
        '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n',
        f'<asic:ASiCManifest xmlns:asic="{NAMESPACE}" xmlns:ds="{DIGEST_NAMESPACE}">',
        f'<asic:SigReference URI={quoteattr(manifest.signature_uri)} MimeType="application/x-pkcs7-signature"/>',
    ]
    for number, reference in enumerate(manifest.references):
        root = "" if number else ' Rootfile="true"'
        digest = base64.b64encode(reference.digest).decode("ascii")
        parts.append(
            f"<asic:DataObjectReference URI={quoteattr(reference.uri)} MimeType={quoteattr(reference.mimetype)}{root}>"
            f'<ds:DigestMethod Algorithm="{SHA256_URI}"/><ds:DigestValue>{digest}</ds:DigestValue>'
            "</asic:DataObjectReference>"
        )
    parts.append("</asic:ASiCManifest>")
    return "".join(parts).encode()


def write_oasis_manifest(files: Iterable[tuple[str, str]]) -> bytes:
    """Return ``META-INF/manifest.xml`` (OpenDocument) for names with mimetypes; KS' reader expects it, nothing trusts it."""
    entries = "".join(
        f"<manifest:file-entry manifest:media-type={quoteattr(mimetype)} manifest:full-path={quoteattr(name)}/>"
        for name, mimetype in files
    )
    return (
        '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
        '<manifest:manifest xmlns:manifest="urn:oasis:names:tc:opendocument:xmlns:manifest:1.0">'
        f'<manifest:file-entry manifest:media-type="{escape("application/vnd.etsi.asic-e+zip")}" manifest:full-path="/"/>'
        f"{entries}</manifest:manifest>"
    ).encode()


def read_manifest(data: bytes) -> Manifest:
    """Read a manifest whose signature has been verified over these very bytes.

    Raises:
        UnsealError: Not such a manifest, an unknown digest algorithm, or a document type.
    """
    reader = _Reader()
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    parser.StartDoctypeDeclHandler = _refuse
    try:
        parser.Parse(data, True)  # noqa: FBT003 - expat takes its arguments by position only
    except (expat.ExpatError, ValueError, LookupError):  # the last two: an encoding that Python cannot use here
        raise UnsealError from None
    return reader.manifest()


def _refuse(*_arguments: object) -> NoReturn:
    raise UnsealError


@dataclass(slots=True)
class _Reader:
    """Collects references as expat walks. Elements that we do not know are skipped, but not inside a reference's path."""

    path: list[str] = field(default_factory=list[str])
    signature_uri: str | None = None
    references: list[Reference] = field(default_factory=list[Reference])
    attributes: dict[str, str] = field(default_factory=dict[str, str])
    algorithm: str | None = None
    digest: str | None = None
    elements: int = 0

    def start(self, name: str, attributes: dict[str, str]) -> None:
        namespace, _, local = name.rpartition(" ")
        own = namespace in _NAMESPACES
        self.path.append(local if own or namespace == DIGEST_NAMESPACE else f"?{local}")
        self.elements += 1
        if self.elements > _MAX_ELEMENTS or (len(self.path) == 1 and not (own and local == "ASiCManifest")):
            raise UnsealError
        match self.path:
            case ["ASiCManifest", "SigReference"] if own and self.signature_uri is None:
                self.signature_uri = attributes.get("URI", "")
            case ["ASiCManifest", "SigReference"]:
                raise UnsealError
            case ["ASiCManifest", "DataObjectReference"]:
                self.attributes, self.algorithm, self.digest = attributes, None, None
            case ["ASiCManifest", "DataObjectReference", "DigestMethod"] if self.algorithm is None:
                self.algorithm = attributes.get("Algorithm", "")
            case ["ASiCManifest", "DataObjectReference", "DigestValue"] if self.digest is None:
                self.digest = ""
            case ["ASiCManifest", "DataObjectReference", "DigestMethod" | "DigestValue"]:
                raise UnsealError
            case _:
                pass

    def text(self, text: str) -> None:
        if self.path == ["ASiCManifest", "DataObjectReference", "DigestValue"] and self.digest is not None:
            self.digest += text

    def end(self, _name: str) -> None:
        if self.path == ["ASiCManifest", "DataObjectReference"]:
            self.references.append(self._reference())
        self.path.pop()

    def _reference(self) -> Reference:
        algorithm, size = _DIGESTS.get(self.algorithm or "", ("", -1))
        try:
            digest = base64.b64decode("".join((self.digest or "").split()), validate=True)
        except binascii.Error:
            raise UnsealError from None
        if len(digest) != size:
            raise UnsealError
        return Reference(self.attributes.get("URI", ""), self.attributes.get("MimeType", ""), algorithm, digest)

    def manifest(self) -> Manifest:
        if not self.signature_uri or not self.references:
            raise UnsealError
        return Manifest(self.signature_uri, tuple(self.references))
