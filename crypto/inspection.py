"""What an envelope says about itself, for people who debug one. Nothing here decides anything: ``cms`` and ``envelope`` do.

1. Reads more than is accepted, so that it can be named: other ciphers, other content types, other recipients.
2. Needs only the first bytes. What it cannot read it leaves out; it raises nothing for an envelope's content.
3. Trying a key tells whether it fits, which a receiver must never tell a sender. Only a key's owner may be answered.

Source: RFC 5652 sections 3 and 6, RFC 5083, RFC 4514.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from crypto import der
from crypto.algorithms import KEY_BYTES, PKCS1V15, key_transport
from crypto.ber import EnvelopeScanner
from crypto.cms import check_version
from schemas.errors import UnsealError

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptography.hazmat.primitives.asymmetric import rsa

    from crypto.algorithms import Unwrapping

T = TypeVar("T")

PREFIX_BYTES: Final = 64 * 1024
"""How much of a file ``describe_envelope`` wants."""

ENVELOPED: Final = "EnvelopedData"

_NAMES: Final = {
    "1.2.840.113549.1.7.1": "Data",
    "1.2.840.113549.1.7.2": "SignedData",
    "1.2.840.113549.1.7.3": ENVELOPED,
    "1.2.840.113549.1.7.6": "EncryptedData",
    "1.2.840.113549.1.9.16.1.23": "AuthEnvelopedData",
    "1.2.840.113549.1.1.1": "RSA PKCS#1 v1.5",
    "1.2.840.113549.1.1.7": "RSAES-OAEP",
    "1.2.840.113549.1.1.8": "MGF1",
    "1.2.840.113549.1.1.5": "RSA med SHA-1",
    "1.2.840.113549.1.1.11": "RSA med SHA-256",
    "1.2.840.113549.1.1.12": "RSA med SHA-384",
    "1.2.840.113549.1.1.13": "RSA med SHA-512",
    "1.2.840.10045.4.3.2": "ECDSA med SHA-256",
    "1.2.840.10045.4.3.3": "ECDSA med SHA-384",
    "1.2.840.10045.4.3.4": "ECDSA med SHA-512",
    "1.2.840.113549.3.7": "3DES-CBC",
    "2.16.840.1.101.3.4.1.2": "AES-128-CBC",
    "2.16.840.1.101.3.4.1.6": "AES-128-GCM",
    "2.16.840.1.101.3.4.1.22": "AES-192-CBC",
    "2.16.840.1.101.3.4.1.26": "AES-192-GCM",
    "2.16.840.1.101.3.4.1.42": "AES-256-CBC",
    "2.16.840.1.101.3.4.1.46": "AES-256-GCM",
    "1.3.14.3.2.26": "SHA-1",
    "2.16.840.1.101.3.4.2.1": "SHA-256",
    "2.16.840.1.101.3.4.2.2": "SHA-384",
    "2.16.840.1.101.3.4.2.3": "SHA-512",
}
_DN: Final = {
    "2.5.4.3": "CN",
    "2.5.4.5": "serialNumber",
    "2.5.4.6": "C",
    "2.5.4.7": "L",
    "2.5.4.8": "ST",
    "2.5.4.10": "O",
    "2.5.4.11": "OU",
    "2.5.4.97": "organizationIdentifier",
    "0.9.2342.19200300.100.1.25": "DC",
}
_WITH_RECIPIENTS: Final = frozenset({ENVELOPED, "AuthEnvelopedData"})
_OTHER_RECIPIENTS: Final = {0xA1: "nøkkelavtale (KeyAgree)", 0xA2: "delt nøkkel (KEK)", 0xA3: "passord", 0xA4: "annet"}
_BMP_STRING: Final = 0x1E
_LATIN_STRINGS: Final = (0x14, 0x16)
_CONTEXT_0_CONSTRUCTED, _CONTEXT_1_CONSTRUCTED = 0xA0, 0xA1
_LONG_FORM = 0x80


@dataclass(frozen=True, slots=True)
class Recipient:
    """One RecipientInfo.

    Args:
        issuer: Issuer of the recipient's certificate, RFC 4514; None when a key identifier names the recipient.
        serial: Its serial number; None as above.
        key_identifier: subjectKeyIdentifier; None when issuer and serial name the recipient.
        transport: How the content key is wrapped, for people.
        unwrapping: The same, for ``unwraps``; None for ways that we do not read.
        encrypted: The wrapped content key.
    """

    issuer: str | None
    serial: int | None
    key_identifier: bytes | None
    transport: str
    unwrapping: Unwrapping | None
    encrypted: bytes


@dataclass(frozen=True, slots=True)
class Envelope:
    """What the first bytes of a CMS file say.

    Args:
        content_type: ``EnvelopedData``, or the name or OID of something else.
        encoding: ``BER`` (indefinite length or a content in pieces) or ``DER``.
        version: CMSVersion; None when the type has no recipients.
        content_cipher: Name or OID; None as above.
        recipients: In their order.
    """

    content_type: str
    encoding: str
    version: int | None = None
    content_cipher: str | None = None
    recipients: tuple[Recipient, ...] = ()


def describe_envelope(prefix: bytes) -> Envelope | None:
    """Return what the first ``PREFIX_BYTES`` of a file say, or None when they are not the beginning of CMS."""
    try:
        return _describe(prefix)
    except (UnsealError, IndexError, ValueError):
        return None


def foreign_form(prefix: bytes) -> str | None:
    """Return what a file that is not binary CMS seems to be, and what to do about it, in Norwegian; None if nobody knows."""
    start = prefix.lstrip()[:64]
    forms: tuple[tuple[bytes, str], ...] = (
        (b"-----BEGIN", "PEM; gjør den binær med: openssl cms -cmsout -inform PEM -outform DER -in FIL -out UT"),
        (b"MIME-Version", "S/MIME; gjør den binær med: openssl cms -cmsout -inform SMIME -outform DER -in FIL -out UT"),
        (b"MI", "base64; gjør den binær med: openssl base64 -d -A -in FIL -out UT"),
        (b"PK\x03\x04", "et zip-arkiv i klartekst: pakken er ikke forseglet"),
        (b"%PDF-", "en PDF i klartekst: den er ikke forseglet"),
        (b"{", "JSON i klartekst: den er ikke forseglet"),
    )
    return next((text for magic, text in forms if start.startswith(magic)), None)


def unwraps(recipient: Recipient, private_key: rsa.RSAPrivateKey) -> bool | None:
    """Return whether a key opens a recipient's content key, as far as that can be known (rule 3).

    Returns:
        True or False for OAEP. For PKCS#1 v1.5, False, or None when it may: there a wrong key can look right.
    """
    if recipient.unwrapping is None:
        return False
    try:
        fits = len(private_key.decrypt(recipient.encrypted, recipient.unwrapping)) == KEY_BYTES
    except ValueError:
        return False
    return None if fits and recipient.unwrapping is PKCS1V15 else fits


class StructureProbe:
    """Finds out where a file stops being an EnvelopedData, in constant memory. ``problem`` is None while nothing is wrong.

    Args:
        max_header_bytes: As in ``Limits``.
    """

    def __init__(self, max_header_bytes: int) -> None:
        self._scanner = EnvelopeScanner(max_header_bytes)
        self._at = 0
        self.problem: str | None = None

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        before, self._at = self._at, self._at + len(data)
        if self.problem is None:
            try:
                self._scanner.feed(data)
            except UnsealError:
                self.problem = f"strukturen brytes mellom byte {before} og {self._at}"

    def finish(self) -> None:
        """Say that the file has ended."""
        if self.problem is not None:
            return
        try:
            self._scanner.finish()
        except UnsealError:
            self.problem = f"strukturen er ikke ferdig etter {self._at} byte: filen er trolig avkortet"
            return
        try:
            check_version(self._scanner)
        except UnsealError:
            self.problem = "versjonsnummeret stemmer ikke med det som står i strukturen"


def dotted(oid: bytes) -> str:
    """Return an OBJECT IDENTIFIER's content octets as ``1.2.840…``."""
    arcs: list[int] = []
    value = 0
    for octet in oid:
        value = value << 7 | octet & 0x7F
        if not octet & _LONG_FORM:
            arcs.append(value)
            value = 0
    first = min(arcs[0] // 40, 2)
    return ".".join(str(arc) for arc in (first, arcs[0] - 40 * first, *arcs[1:]))


def algorithm_name(identifier: der.Node) -> str:
    """Return the name of an AlgorithmIdentifier, or its OID; for RSAES-OAEP with its digests."""
    oid, *parameters = der.children(identifier, at_least=1)
    name = _name(oid)
    if name != "RSAES-OAEP":
        return name
    digest = mask = "SHA-1"
    for part in der.children(parameters[0]) if parameters else []:
        inner = der.children(part, at_least=1)[0]
        if part.tag == _CONTEXT_0_CONSTRUCTED:
            digest = algorithm_name(inner)
        elif part.tag == _CONTEXT_1_CONSTRUCTED:
            mask = algorithm_name(der.children(inner, at_least=2)[1])
    return f"{name} ({digest}, MGF1 med {mask})"


def name_text(name: bytes) -> str:
    """Return a DER Name as text in the order of RFC 4514, with the names that virksomhetssertifikater use."""
    relative: list[str] = []
    for part in der.children(der.read(name)):
        values: list[str] = []
        for attribute in der.children(part):
            oid, value = der.children(attribute, at_least=2)[:2]
            key = dotted(oid.content)
            values.append(f"{_DN.get(key, key)}={_escaped(_string(value))}")
        relative.append("+".join(values))
    return ",".join(reversed(relative))


def _string(node: der.Node) -> str:
    if node.tag == _BMP_STRING:
        return node.content.decode("utf-16-be", "replace")
    return node.content.decode("latin-1" if node.tag in _LATIN_STRINGS else "utf-8", "replace")


def _escaped(text: str) -> str:
    return "".join(f"\\{letter}" if letter in ',+"\\<>;=' else letter for letter in text)


def _name(oid: der.Node) -> str:
    key = dotted(oid.content)
    return _NAMES.get(key, key)


class _Cursor:
    """Walks into a structure whose end has not come yet."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0
        self.indefinite = False

    def peek(self) -> int:
        return self._data[self.at]

    def enter(self, tag: int) -> None:
        """Go past a head with this tag."""
        if self.peek() != tag:
            raise UnsealError
        content, end = _head(self._data, self.at)
        self.indefinite |= end is None
        self.at = content

    def element(self) -> der.Node:
        """Go past a whole TLV and return it."""
        end = _end(self._data, self.at, der.MAX_DEPTH)
        node = der.read(self._data[self.at : end])
        self.at = end
        return node


def _head(data: bytes, at: int) -> tuple[int, int | None]:
    """Return where the content of the TLV at ``at`` begins, and where it ends (None: indefinite)."""
    first = data[at + 1]
    if first < _LONG_FORM:
        return at + 2, at + 2 + first
    if first == _LONG_FORM:
        return at + 2, None
    size = first & 0x7F
    begin = at + 2 + size
    return begin, begin + int.from_bytes(data[at + 2 : begin], "big")


def _end(data: bytes, at: int, depth: int) -> int:
    """Return where the TLV at ``at`` ends."""
    content, end = _head(data, at)
    if end is None:
        if not depth:
            raise UnsealError
        while data[content : content + 2] != der.END_OF_CONTENTS:
            content = _end(data, content, depth - 1)
        end = content + 2
    if end > len(data):
        raise UnsealError
    return end


def _describe(prefix: bytes) -> Envelope:
    cursor = _Cursor(prefix)
    cursor.enter(der.SEQUENCE)
    content_type = cursor.element()
    if content_type.tag != der.OBJECT_IDENTIFIER:
        raise UnsealError
    name = _name(content_type)
    if name not in _WITH_RECIPIENTS:
        return Envelope(name, "BER" if cursor.indefinite else "DER")
    cursor.enter(_CONTEXT_0_CONSTRUCTED)
    cursor.enter(der.SEQUENCE)
    version = int.from_bytes(cursor.element().content, "big")
    if cursor.peek() == _CONTEXT_0_CONSTRUCTED:
        cursor.element()  # originatorInfo
    recipients = tuple(_recipient(node) for node in der.children(cursor.element()))
    cursor.enter(der.SEQUENCE)
    cursor.element()  # contentType
    cipher = algorithm_name(cursor.element())
    in_pieces = cursor.peek() == _CONTEXT_0_CONSTRUCTED
    return Envelope(name, "BER" if cursor.indefinite or in_pieces else "DER", version, cipher, recipients)


def _recipient(node: der.Node) -> Recipient:
    if node.tag != der.SEQUENCE:
        return Recipient(None, None, None, _OTHER_RECIPIENTS.get(node.tag, "ukjent"), None, b"")
    _, name, algorithm, encrypted = der.children(node, at_least=4)[:4]
    transport, unwrapping = _attempt(algorithm_name, algorithm) or "ukjent", _attempt(key_transport, algorithm)
    if name.tag != der.SEQUENCE:
        return Recipient(None, None, der.octets(name), transport, unwrapping, encrypted.content)
    issuer, serial = der.children(name, at_least=2)[:2]
    number = int.from_bytes(serial.content, "big", signed=True)
    return Recipient(name_text(issuer.raw), number, None, transport, unwrapping, encrypted.content)


def _attempt(read: Callable[[der.Node], T], node: der.Node) -> T | None:
    try:
        return read(node)
    except (UnsealError, IndexError, ValueError):
        return None
