from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto import der
from crypto.ber import OID_DATA, OID_ENVELOPED_DATA, EnvelopeHeader, EnvelopeScanner
from schemas.errors import UnsealError

RECIPIENT = der.sequence(der.integer(0), der.sequence())
ALGORITHM = der.sequence(der.oid("1.2.3"), der.octet_string(bytes(16)))
CONTENT = bytes(range(256)) * 5


def level(tag: int, *parts: bytes, definite: bool) -> bytes:
    if definite:
        return der.tlv(tag, *parts)
    return bytes((tag,)) + der.INDEFINITE + b"".join(parts) + der.END_OF_CONTENTS


def make_enveloped(
    content: bytes | None = None,
    *,
    definite: bool = True,
    version: int = 0,
    originator: bytes = b"",
    unprotected: bytes = b"",
    oid: bytes = OID_ENVELOPED_DATA,
) -> bytes:
    content = der.tlv(0x80, CONTENT) if content is None else content
    info = level(0x30, OID_DATA, ALGORITHM, content, definite=definite)
    recipients = level(0x31, RECIPIENT, definite=definite)
    enveloped = level(0x30, der.integer(version), originator, recipients, info, unprotected, definite=definite)
    return level(0x30, oid, level(0xA0, enveloped, definite=definite), definite=definite)


def scan(data: bytes, chunk: int | None = None, limit: int = 65536) -> tuple[EnvelopeHeader, bytes]:
    scanner = EnvelopeScanner(limit)
    size = chunk or len(data) or 1
    content = b"".join(bytes(piece) for at in range(0, len(data), size) for piece in scanner.feed(data[at : at + size]))
    scanner.finish()
    assert scanner.header is not None
    return scanner.header, content


def pieces(definite: bool, depth: int = 0) -> bytes:  # noqa: FBT001 - a parameter of the shape under test
    inner = [der.octet_string(CONTENT[at : at + 300]) for at in range(0, len(CONTENT), 300)]
    nested = b"".join(inner)
    for _ in range(depth):
        nested = level(0x24, nested, definite=definite)
    return level(0xA0, nested, definite=definite)


@pytest.mark.parametrize("definite", [True, False])
@pytest.mark.parametrize("depth", [0, 1, 3])
@pytest.mark.parametrize("chunk", [1, 2, 7, 255, None])
def test_the_same_content_comes_out_of_every_form_and_chunking(definite: bool, depth: int, chunk: int | None) -> None:  # noqa: FBT001 - a parameter of the shape under test
    header, content = scan(make_enveloped(pieces(definite, depth), definite=definite), chunk)

    assert content == CONTENT
    assert [recipient.raw for recipient in header.recipients] == [RECIPIENT]
    assert header.algorithm.raw == ALGORITHM


def test_a_primitive_content_inside_indefinite_levels() -> None:
    assert scan(make_enveloped(definite=False), 3)[1] == CONTENT


@pytest.mark.parametrize("definite", [True, False])
def test_originator_and_unprotected_attributes_are_skipped_and_reported(definite: bool) -> None:  # noqa: FBT001 - a parameter of the shape under test
    data = make_enveloped(
        originator=der.context(0, der.context(0)),
        unprotected=der.context(1, der.sequence()),
        version=2,
        definite=definite,
    )
    scanner = EnvelopeScanner(65536)
    scanner.feed(data)
    scanner.finish()

    assert scanner.header is not None
    assert (scanner.header.version, scanner.header.has_originator) == (2, True)
    assert scanner.has_unprotected_attributes


@pytest.mark.parametrize("definite", [True, False])
def test_truncation_anywhere_is_refused(definite: bool) -> None:  # noqa: FBT001 - a parameter of the shape under test
    data = make_enveloped(pieces(definite), definite=definite)
    for end in range(len(data)):
        scanner = EnvelopeScanner(65536)
        scanner.feed(data[:end])
        with pytest.raises(UnsealError):
            scanner.finish()


@pytest.mark.parametrize("chunk", [1, None])
def test_something_after_the_end_is_refused(chunk: int | None) -> None:
    with pytest.raises(UnsealError):
        scan(make_enveloped() + b"\x00", chunk)


def test_a_broken_scanner_stays_broken() -> None:
    scanner = EnvelopeScanner(65536)
    for _ in range(2):
        with pytest.raises(UnsealError):
            scanner.feed(b"\x31\x00")
    with pytest.raises(UnsealError):
        scanner.finish()


@pytest.mark.parametrize(
    "oid", ["1.2.840.113549.1.9.16.1.23", "1.2.840.113549.1.7.2"], ids=["AuthEnvelopedData", "SignedData"]
)
def test_other_content_types_are_refused(oid: str) -> None:
    with pytest.raises(UnsealError):
        scan(make_enveloped(oid=der.oid(oid)))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        der.octet_string(CONTENT),
        der.tlv(0xA0, der.integer(1)),
        der.tlv(0xA0, der.octet_string(b"x"), b"\x00\x00"),
        b"\xa0\x05\x04\x10",
        b"\x80\x80" + CONTENT,
    ],
    ids=["none", "untagged", "not octets", "end mark in a definite length", "piece too long", "indefinite primitive"],
)
def test_content_of_another_form_is_refused(content: bytes) -> None:
    with pytest.raises(UnsealError):
        scan(make_enveloped(content))


def test_content_nested_too_deeply_is_refused() -> None:
    with pytest.raises(UnsealError):
        scan(make_enveloped(pieces(definite=True, depth=5)))


@pytest.mark.parametrize("version", [1, 5, 127])
def test_unknown_versions_are_refused(version: int) -> None:
    with pytest.raises(UnsealError):
        scan(make_enveloped(version=version))


def test_a_header_beyond_its_limit_is_refused_before_it_is_kept() -> None:
    assert scan(make_enveloped(), limit=200)
    with pytest.raises(UnsealError):
        scan(make_enveloped(), limit=60)
    with pytest.raises(UnsealError):
        EnvelopeScanner(65536).feed(
            b"\x30\x80" + der.oid("1.2.840.113549.1.7.3") + b"\xa0\x80\x30\x80\x02\x84\xff\xff\xff\xff"
        )


def test_nested_indefinite_headers_are_bounded() -> None:
    with pytest.raises(UnsealError):
        scan(make_enveloped(originator=b"\xa0\x80" + b"\x30\x80" * 40 + b"\x00\x00" * 41), 1)


@given(st.binary(max_size=80), st.integers(0, 60))
def test_any_bytes_are_scanned_or_refused(noise: bytes, at: int) -> None:
    data = make_enveloped()
    try:
        scan(data[:at] + noise + data[at + len(noise) :], 5)
    except UnsealError:
        return
