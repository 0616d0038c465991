from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import padding

from crypto import algorithms, der
from crypto.algorithms import (
    KEY_TRANSPORT,
    OID_AES_256_CBC,
    OID_MGF1,
    OID_P_SPECIFIED,
    OID_RSA,
    OID_RSAES_OAEP,
    OID_SHA1,
    OID_SHA256,
    OID_SHA512,
)
from schemas.errors import UnsealError

NULL = der.NULL_TLV


def hash_(oid: bytes, null: bytes = b"") -> bytes:
    return der.context(0, der.sequence(oid, null))


def mask(oid: bytes, null: bytes = b"") -> bytes:
    return der.context(1, der.sequence(OID_MGF1, der.sequence(oid, null)))


def label(value: bytes) -> bytes:
    return der.context(2, der.sequence(OID_P_SPECIFIED, der.octet_string(value)))


def oaep(*parts: bytes) -> bytes:
    return der.sequence(OID_RSAES_OAEP, der.sequence(*parts))


def names(identifier: bytes) -> tuple[str, str] | None:
    found = algorithms.key_transport(der.read(identifier))
    if found is None:
        return None
    assert isinstance(found, padding.OAEP)
    return found._algorithm.name, found._mgf._algorithm.name


def test_ours_are_the_47_bytes_of_parameters_that_ks_writes() -> None:
    assert len(der.children(der.read(KEY_TRANSPORT))[1].content) == 47


@pytest.mark.parametrize(
    ("identifier", "expected"),
    [
        (KEY_TRANSPORT, ("sha256", "sha256")),
        (oaep(hash_(OID_SHA256), mask(OID_SHA256)), ("sha256", "sha256")),
        (oaep(hash_(OID_SHA256, NULL), mask(OID_SHA256)), ("sha256", "sha256")),
        (oaep(hash_(OID_SHA256), mask(OID_SHA256), label(b"")), ("sha256", "sha256")),
        (oaep(hash_(OID_SHA256, NULL)), ("sha256", "sha1")),
        (oaep(mask(OID_SHA256, NULL)), ("sha1", "sha256")),
        (oaep(hash_(OID_SHA512), mask(OID_SHA1)), ("sha512", "sha1")),
        (oaep(), ("sha1", "sha1")),
        (der.sequence(OID_RSAES_OAEP), ("sha1", "sha1")),
    ],
)
def test_oaep_is_understood_with_and_without_its_defaults(identifier: bytes, expected: tuple[str, str]) -> None:
    assert names(identifier) == expected


@pytest.mark.parametrize("parameters", [b"", NULL])
def test_pkcs1_v15_is_understood(parameters: bytes) -> None:
    found = algorithms.key_transport(der.read(der.sequence(OID_RSA, parameters)))

    assert isinstance(found, padding.PKCS1v15)


@pytest.mark.parametrize(
    "identifier",
    [
        oaep(label(b"label")),
        oaep(hash_(der.oid("1.2.3"))),
        oaep(der.context(1, der.sequence(der.oid("1.2.3"), der.sequence(OID_SHA1)))),
        oaep(der.context(3, der.sequence())),
        oaep(der.context(0, der.sequence(OID_SHA256), der.sequence(OID_SHA256))),
        oaep(der.context(0, der.tlv(0x31, OID_SHA256))),
        oaep(hash_(OID_SHA256, der.integer(0))),
        der.sequence(OID_RSAES_OAEP, NULL),
        der.sequence(der.oid("1.2.3")),
    ],
)
def test_what_we_cannot_unwrap_is_nothing(identifier: bytes) -> None:
    assert names(identifier) is None


@pytest.mark.parametrize("identifier", [der.sequence(), oaep(der.context(0)), oaep(der.tlv(0x80, b"x"))])
def test_what_is_malformed_is_refused(identifier: bytes) -> None:
    with pytest.raises(UnsealError):
        algorithms.key_transport(der.read(identifier))


def test_the_content_cipher_is_aes_256_cbc() -> None:
    iv = bytes(range(16))

    assert algorithms.content_iv(der.read(der.sequence(OID_AES_256_CBC, der.octet_string(iv)))) == iv


@pytest.mark.parametrize(
    "identifier",
    [
        der.sequence(der.oid("2.16.840.1.101.3.4.1.46"), der.octet_string(bytes(16))),
        der.sequence(der.oid("2.16.840.1.101.3.4.1.2"), der.octet_string(bytes(16))),
        der.sequence(OID_AES_256_CBC, der.octet_string(bytes(12))),
        der.sequence(OID_AES_256_CBC),
        der.sequence(OID_AES_256_CBC, NULL),
    ],
    ids=["AES-GCM", "AES-128", "short IV", "no IV", "NULL"],
)
def test_any_other_content_cipher_is_refused(identifier: bytes) -> None:
    with pytest.raises(UnsealError):
        algorithms.content_iv(der.read(identifier))
