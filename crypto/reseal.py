"""Giving a package another recipient, without decrypting it: a new RecipientInfo around the same encrypted content.

Who has the content key may do it, which is the sender that made it. The sealed bytes and their digest are others than before;
what is inside, its signature included, is the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC

from crypto import algorithms, der
from crypto.algorithms import BLOCK_BYTES
from crypto.ber import EnvelopeScanner
from crypto.cms import SEGMENT_BYTES, STREAM_END, check_version, stream_head, strip_padding
from crypto.limits import DEFAULT_LIMITS, Limits
from schemas.errors import UnsealError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cryptography import x509

    from crypto.content_key import ContentKey


def reseal(
    chunks: Iterable[bytes], content_key: ContentKey, recipient: x509.Certificate, *, limits: Limits = DEFAULT_LIMITS
) -> Iterator[bytes]:
    """Return a package for ``recipient`` alone, in pieces and in constant memory: BER as ``CmsEncryptor`` writes it.

    Args:
        chunks: A whole package, in any pieces. Check its digest meanwhile: what is altered here is only found by who opens it.
        content_key: The package's.
        recipient: RSA of at least 2048 bits. Judge it first with ``judge_recipient``.
        limits: ``max_header_bytes`` bounds what is kept of the old envelope's head.

    Raises:
        UnsealError: Not a whole envelope, or this is plainly not its key.
        CertificateError: The certificate's key is not RSA, or too small.
    """
    scanner = EnvelopeScanner(limits.max_header_bytes)
    waiting = bytearray()
    begun = False
    last = content_key.iv
    for chunk in chunks:
        for piece in scanner.feed(chunk):
            waiting += piece
        if not begun and scanner.header is not None:
            if algorithms.content_iv(scanner.header.algorithm) != content_key.iv:
                raise UnsealError
            begun = True
            yield stream_head(recipient, content_key)
        whole = len(waiting) - len(waiting) % SEGMENT_BYTES
        if begun and whole:
            last = (last + waiting[max(whole - 2 * BLOCK_BYTES, 0) : whole])[-2 * BLOCK_BYTES :]
            yield _segments(waiting, whole)
            del waiting[:whole]
    scanner.finish()
    check_version(scanner)
    last = (last + waiting[-2 * BLOCK_BYTES :])[-2 * BLOCK_BYTES :]
    _check_padding(last, content_key)
    yield _segments(waiting, len(waiting)) + STREAM_END


def _segments(content: bytearray, size: int) -> bytes:
    """Return ``size`` octets as OCTET STRINGs of one segment each."""
    return b"".join(der.octet_string(bytes(content[at : at + SEGMENT_BYTES])) for at in range(0, size, SEGMENT_BYTES))


def _check_padding(last: bytes, content_key: ContentKey) -> None:
    """Decrypt the last block: with the wrong key its padding is right once in 255 times, so a mistake seldom gets further."""
    if len(last) != 2 * BLOCK_BYTES:
        raise UnsealError
    decryptor = Cipher(AES(content_key.key), CBC(last[:BLOCK_BYTES])).decryptor()
    if strip_padding(decryptor.update(last[BLOCK_BYTES:])) is None:
        raise UnsealError
