"""CMS EnvelopedData: written as KS' libraries write it, read as every known producer writes it.

Written: one KeyTransRecipientInfo v0 with issuerAndSerialNumber, RSAES-OAEP with SHA-256 and explicit NULLs, AES-256-CBC.
BER with indefinite length for streams, DER where the length is known (``seal``).

Read: DER and BER, OAEP and PKCS#1 v1.5, several recipients in any order, several private keys.

1. There is one failure, ``UnsealError``. When a content key cannot be unwrapped, decryption goes on with a random one, so
   neither the error nor where it comes tells why (RFC 3218, implicit rejection).
2. AES-CBC has no tag: what a decryptor hands out is not authentic until a signature inside has been verified (``envelope``).
3. AES-GCM and AuthEnvelopedData are refused: the contract is AES-256-CBC, and no known receiver reads anything else.

Source: RFC 5652 section 6, RFC 3560, KS ``CMSKrypteringImpl``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC

from crypto import algorithms, der
from crypto.algorithms import BLOCK_BYTES, KEY_BYTES, OAEP_SHA256, PKCS1V15
from crypto.ber import OID_DATA, OID_ENVELOPED_DATA, EnvelopeScanner
from crypto.buffers import borrow, give_back
from crypto.certificates import issuer_and_serial, rsa_key
from crypto.content_key import ContentKey
from crypto.limits import DEFAULT_LIMITS, Limits
from schemas.errors import UnsealError

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.hazmat.primitives.ciphers import CipherContext

    from crypto.algorithms import Unwrapping
    from crypto.ber import EnvelopeHeader
    from crypto.keys import KeyRing

    Buffer: TypeAlias = bytes | bytearray | memoryview

SEGMENT_BYTES = 64 * 1024
_SEGMENT_HEAD_BYTES = 5
_SUBJECT_KEY_IDENTIFIER = 0x80
_SUBJECT_KEY_IDENTIFIER_IN_PIECES = 0xA0
_VERSION_0, _VERSION_2 = der.integer(0), der.integer(2)
_MAX_ATTEMPTS = 4  # private operations for one envelope: .NET needs two, and a row of hundreds would be an attack


@dataclass(frozen=True, slots=True)
class _Template:
    """Everything in an envelope that depends on the certificate alone."""

    public_key: rsa.RSAPublicKey
    recipients_head: bytes

    def recipients(self, content_key: bytes) -> bytes:
        """Return the RecipientInfos for a fresh content key."""
        return self.recipients_head + self.public_key.encrypt(content_key, OAEP_SHA256)


@lru_cache(maxsize=1024)
def _template(certificate: x509.Certificate) -> _Template:
    public_key = rsa_key(certificate)
    name = issuer_and_serial(certificate)
    wrapped = bytes(public_key.key_size // 8)
    recipients = der.set_of(der.sequence(_VERSION_0, name, algorithms.KEY_TRANSPORT, der.octet_string(wrapped)))
    return _Template(public_key, _VERSION_0 + recipients[: -len(wrapped)])


_ALGORITHM_HEAD = der.sequence(algorithms.OID_AES_256_CBC, der.octet_string(bytes(BLOCK_BYTES)))[:-BLOCK_BYTES]
_CONTENT_INFO_HEAD = bytes((der.SEQUENCE,)) + der.INDEFINITE + OID_ENVELOPED_DATA + b"\xa0\x80\x30\x80"
_CONTENT_HEAD = b"\x30\x80" + OID_DATA + _ALGORITHM_HEAD
STREAM_END = der.END_OF_CONTENTS * 5
"""What ends an envelope that ``stream_head`` began."""


def seal(plaintext: Buffer, recipient: x509.Certificate) -> bytes:
    """Return ``plaintext`` in an envelope that only ``recipient`` can open.

    Args:
        plaintext: Any bytes; the whole envelope is built in memory.
        recipient: RSA of at least 2048 bits. Judge it first with ``judge_recipient``.

    Returns:
        DER of a ContentInfo.

    Raises:
        CertificateError: The certificate's key is not RSA, or too small.

    Source: RFC 5652 section 6.
    """
    template = _template(recipient)
    key, iv = os.urandom(KEY_BYTES), os.urandom(BLOCK_BYTES)
    pad = BLOCK_BYTES - len(plaintext) % BLOCK_BYTES
    size = len(plaintext) + pad
    head = _definite_head(template.recipients(key), iv, size)
    buffer = borrow(len(head) + size + BLOCK_BYTES)  # update_into demands a spare block
    sealed = memoryview(buffer)
    sealed[: len(head)] = head
    encryptor = Cipher(AES(key), CBC(iv)).encryptor()
    at = len(head) + encryptor.update_into(plaintext, sealed[len(head) :])
    at += encryptor.update_into(bytes((pad,)) * pad, sealed[at:])
    finished = bytes(sealed[:at])
    give_back(buffer)
    return finished


def _definite_head(recipients: bytes, iv: bytes, size: int) -> bytes:
    """Return everything before the ciphertext; lengths are worked out from the inside."""
    content = OID_DATA + _ALGORITHM_HEAD + iv + b"\x80" + der.length(size)
    content = b"\x30" + der.length(len(content) + size) + content
    enveloped = recipients + content
    enveloped = b"\x30" + der.length(len(enveloped) + size) + enveloped
    explicit = b"\xa0" + der.length(len(enveloped) + size) + enveloped
    info = OID_ENVELOPED_DATA + explicit
    return b"\x30" + der.length(len(info) + size) + info


def stream_head(recipient: x509.Certificate, content_key: ContentKey) -> bytes:
    """Return what stands before the content in an envelope of unknown length; OCTET STRINGs and ``STREAM_END`` follow.

    Raises:
        CertificateError: The certificate's key is not RSA, or too small.
    """
    recipients = _template(recipient).recipients(content_key.key)
    return b"".join((_CONTENT_INFO_HEAD, recipients, _CONTENT_HEAD, content_key.iv, b"\xa0\x80"))


class CmsEncryptor:
    """Seals a stream of unknown length, in constant memory: BER, indefinite length, as KS' Java library writes it.

    ``update`` gathers small writes into segments of 64 KiB, so it often returns nothing. Used once.

    Args:
        recipient: RSA of at least 2048 bits. Judge it first with ``judge_recipient``.

    Attributes:
        content_key: Opens what is sealed here; made anew each time.

    Raises:
        CertificateError: The certificate's key is not RSA, or too small.
    """

    def __init__(self, recipient: x509.Certificate) -> None:
        self.content_key = ContentKey.new()
        self._head = stream_head(recipient, self.content_key)
        self._encryptor = Cipher(AES(self.content_key.key), CBC(self.content_key.iv)).encryptor()
        self._waiting = bytearray()
        self._size = 0

    def update(self, data: Buffer) -> bytes:
        """Take plaintext; return what of the envelope is finished, maybe nothing."""
        self._size += len(data)
        if len(self._waiting) + len(data) < SEGMENT_BYTES:
            self._waiting += data
            return b""
        first = (SEGMENT_BYTES - len(self._waiting)) % SEGMENT_BYTES  # what fills the segment that was begun
        whole = first + (len(data) - first) // SEGMENT_BYTES * SEGMENT_BYTES
        view = memoryview(data)
        segments = [view[at : at + SEGMENT_BYTES] for at in range(first, whole, SEGMENT_BYTES)]
        if self._waiting:
            segments.insert(0, memoryview(bytes(self._waiting) + view[:first]))
        self._waiting = bytearray(view[whole:])
        return self._segments(segments)

    def finalize(self) -> bytes:
        """Return the rest of the envelope."""
        pad = BLOCK_BYTES - self._size % BLOCK_BYTES
        self._waiting += bytes((pad,)) * pad
        return self._segments([memoryview(self._waiting)]) + STREAM_END

    def _segments(self, segments: list[memoryview]) -> bytes:
        """Encrypt whole blocks, each segment in an OCTET STRING of its own."""
        head, self._head = self._head, b""
        size = len(head) + sum(len(segment) + _SEGMENT_HEAD_BYTES for segment in segments)
        buffer = borrow(size + BLOCK_BYTES)
        out = memoryview(buffer)
        out[: len(head)] = head
        at = len(head)
        for segment in segments:
            tag = b"\x04" + der.length(len(segment))
            out[at : at + len(tag)] = tag
            at += len(tag)
            at += self._encryptor.update_into(segment, out[at:])
        finished = bytes(out[:at])
        give_back(buffer)
        return finished


def content_key(header: EnvelopeHeader, keys: KeyRing | ContentKey) -> ContentKey:
    """Unwrap the content key that is meant for one of ``keys``; or see that the one given is of this envelope.

    OAEP is tried before PKCS#1 v1.5, whatever their order, since only OAEP tells whether it succeeded. If nothing can be
    unwrapped the key is a random one, and decrypting with it fails later, like any other damage.

    Raises:
        UnsealError: Not for these keys, or another cipher or structure than the contract's. None of this is secret.
    """
    iv = algorithms.content_iv(header.algorithm)
    if isinstance(keys, ContentKey):
        if keys.iv != iv:
            raise UnsealError
        return keys
    wrapped = [found for recipient in header.recipients for found in _addressed(recipient, keys)]
    if not wrapped:
        raise UnsealError
    wrapped.sort(key=lambda found: found[1] is PKCS1V15)
    key = os.urandom(KEY_BYTES)
    for private_key, unwrapping, encrypted in wrapped[:_MAX_ATTEMPTS]:
        unwrapped = _unwrap(private_key, unwrapping, encrypted)
        if unwrapped is not None:
            key = unwrapped
            break
    return ContentKey(key, iv)


def _unwrap(private_key: rsa.RSAPrivateKey, unwrapping: Unwrapping, encrypted: bytes) -> bytes | None:
    try:
        unwrapped = private_key.decrypt(encrypted, unwrapping)
    except ValueError:
        return None
    return unwrapped if len(unwrapped) == KEY_BYTES else None


def _addressed(recipient: der.Node, keys: KeyRing) -> list[tuple[rsa.RSAPrivateKey, Unwrapping, bytes]]:
    """Return our keys that a RecipientInfo is for, with how its key is wrapped; none for recipients of other kinds."""
    if recipient.tag != der.SEQUENCE:
        return []
    parts = der.children(recipient)
    if [part.tag for part in parts[:1] + parts[2:]] != [der.INTEGER, der.SEQUENCE, der.OCTET_STRING]:
        raise UnsealError
    version, name, algorithm, encrypted = parts
    if name.tag == der.SEQUENCE:
        expected, private_keys = _VERSION_0, keys.find(name.raw)
    elif name.tag in (_SUBJECT_KEY_IDENTIFIER, _SUBJECT_KEY_IDENTIFIER_IN_PIECES):
        expected, private_keys = _VERSION_2, keys.find(der.octets(name))
    else:
        raise UnsealError
    if version.raw != expected:
        raise UnsealError
    unwrapping = algorithms.key_transport(algorithm)
    if unwrapping is None:
        return []
    return [(private_key, unwrapping, encrypted.content) for private_key in private_keys]


def check_version(scanner: EnvelopeScanner) -> None:
    """Check, at the end, that the version says what the structure has.

    Raises:
        UnsealError: It does not.

    Source: RFC 5652 section 6.1.
    """
    header = scanner.header
    if header is None:
        raise UnsealError
    plain = (
        not header.has_originator
        and not scanner.has_unprotected_attributes
        and all(
            recipient.tag == der.SEQUENCE and recipient.content.startswith(_VERSION_0)
            for recipient in header.recipients
        )
    )
    if (header.version == 0) is not plain:
        raise UnsealError


def strip_padding(tail: bytes) -> bytes | None:
    """Return the last block without its PKCS#7 padding, or None when that is broken."""
    pad = tail[-1] if len(tail) == BLOCK_BYTES else 0
    if not 1 <= pad <= BLOCK_BYTES or tail[-pad:] != bytes((pad,)) * pad:
        return None
    return tail[:-pad]


class CmsDecryptor:
    """Opens an envelope as its bytes come, in constant memory. Used once.

    What ``update`` returns is not authentic (rule 2), and only complete when ``finalize`` has returned.

    Args:
        keys: The receiver's keys.
        limits: ``max_header_bytes`` bounds what is kept in memory.
    """

    def __init__(self, keys: KeyRing, *, limits: Limits = DEFAULT_LIMITS) -> None:
        self._keys = keys
        self._scanner = EnvelopeScanner(limits.max_header_bytes)
        self._decryptor: CipherContext | None = None
        self._held: list[Buffer] = []
        self._tail = b""
        self._scratch = bytearray()

    def hold(self, data: Buffer) -> bool:
        """Take envelope bytes without decrypting; return whether all that ``unwrap`` needs has come.

        Raises:
            UnsealError: Not an envelope.
        """
        self._held += self._scanner.feed(data)
        return self._scanner.header is not None

    def wrapped_keys(self) -> frozenset[bytes]:
        """Return the encrypted content keys that are for us, once ``hold`` has returned True: what a changed copy shares.

        Raises:
            UnsealError: Not an envelope, or its recipients have another structure than the contract's.
        """
        if self._scanner.header is None:
            raise UnsealError
        return frozenset(key for one in self._scanner.header.recipients for _, _, key in _addressed(one, self._keys))

    def unwrap(self) -> None:
        """Do the private operation now. It is the slow part and holds no lock, so a caller may do it in a thread.

        Raises:
            UnsealError: Not for these keys, or another structure than the contract's.
        """
        self._cipher()

    def update(self, data: Buffer) -> bytes:
        """Take envelope bytes in any chunks; return the plaintext that they complete, but for the last block.

        Raises:
            UnsealError: Not for these keys, or not an envelope.
        """
        pieces: list[Buffer] = [*self._held, *self._scanner.feed(data)]
        self._held.clear()
        if not pieces:
            return b""
        ciphertext = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        decryptor = self._cipher()
        held = len(self._tail)
        if len(self._scratch) < held + len(ciphertext) + BLOCK_BYTES:
            self._scratch = bytearray(held + len(ciphertext) + BLOCK_BYTES)
        view = memoryview(self._scratch)
        view[:held] = self._tail
        count = held + decryptor.update_into(ciphertext, view[held:])
        keep = max(count - BLOCK_BYTES, 0)
        self._tail = bytes(view[keep:count])
        return bytes(view[:keep])

    def finalize(self) -> bytes:
        """Return the rest of the plaintext.

        Raises:
            UnsealError: The envelope was truncated, or altered so that its padding shows it.
        """
        self._scanner.finish()
        check_version(self._scanner)
        try:
            self._cipher().finalize()
        except ValueError:
            raise UnsealError from None
        rest = strip_padding(self._tail)
        if rest is None:
            raise UnsealError
        return rest

    def _cipher(self) -> CipherContext:
        if self._decryptor is None:
            header = self._scanner.header
            if header is None:
                raise UnsealError
            unwrapped = content_key(header, self._keys)
            self._decryptor = Cipher(AES(unwrapped.key), CBC(unwrapped.iv)).decryptor()
        return self._decryptor


def open_enveloped(sealed: Buffer, keys: KeyRing) -> bytes:
    """Return the content of an envelope that is in memory.

    The content is not authentic (rule 2): verify a signature in it before it is used.

    Raises:
        UnsealError: Not for these keys, or altered so that it shows.
    """
    decryptor = CmsDecryptor(keys)
    return decryptor.update(sealed) + decryptor.finalize()
