from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto.manifest import Manifest, Reference, read_manifest, write_manifest, write_oasis_manifest
from schemas.errors import UnsealError

DIGEST = hashlib.sha256(b"x").digest()
VALUE = "LXEWQrcmsEQBYnyp+6wy9chTD7GQPMTbAiWHF5IaSIE="
TEXT = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff"), min_size=1, max_size=20
)


def make(
    *,
    namespace: str = "http://uri.etsi.org/02918/v1.2.1#",
    uri: str = "http://www.w3.org/2001/04/xmlenc#sha256",
    value: str = VALUE,
    head: str = "",
    reference: str = '<SigReference URI="s"/>',
    root: str = "ASiCManifest",
    inner: str | None = None,
) -> bytes:
    parts = f'<d:DigestMethod Algorithm="{uri}"/><d:DigestValue>{value}</d:DigestValue>' if inner is None else inner
    return (
        f'{head}<{root} xmlns="{namespace}" xmlns:d="http://www.w3.org/2000/09/xmldsig#">{reference}'
        f'<DataObjectReference URI="a" MimeType="text/plain">{parts}</DataObjectReference></{root}>'
    ).encode()


def refuse(data: bytes) -> None:
    with pytest.raises(UnsealError):
        read_manifest(data)


def test_a_manifest_is_read() -> None:
    assert read_manifest(make(value=VALUE)) == Manifest("s", (Reference("a", "text/plain", "sha256", DIGEST),))


@given(st.lists(st.tuples(TEXT, TEXT, st.binary(min_size=32, max_size=32)), min_size=1, max_size=5), TEXT)
def test_what_is_written_is_read(files: list[tuple[str, str, bytes]], signature: str) -> None:
    references = tuple(Reference(name, mimetype, "sha256", digest) for name, mimetype, digest in files)

    assert read_manifest(write_manifest(Manifest(signature, references))) == Manifest(signature, references)


def test_white_space_in_a_digest_is_nothing() -> None:
    assert read_manifest(make(value=f"\n  {VALUE[:20]}\n  {VALUE[20:]}\n")).references[0].digest == DIGEST


def test_the_net_namespace_and_digest_name_are_read() -> None:
    net = make(namespace="http://uri.etsi.org/2918/v1.2.1#", uri="http://www.w3.org/2000/09/xmldsig#sha256")

    assert read_manifest(net).references[0].algorithm == "sha256"


@pytest.mark.parametrize(
    "head",
    [
        "<!DOCTYPE x>",
        '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/hostname">]>',
        '<!DOCTYPE x SYSTEM "http://localhost:1/x.dtd">',
        '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]>',
    ],
    ids=["empty", "external entity", "external subset", "billion laughs"],
)
def test_a_document_type_is_refused_whatever_it_holds(head: str) -> None:
    refuse(make(head=head))


def test_a_document_type_hidden_by_another_encoding_is_refused() -> None:
    text = make(head="<!DOCTYPE x>").decode()
    refuse(('<?xml version="1.0" encoding="UTF-16"?>' + text).encode("utf-16"))
    assert read_manifest(('<?xml version="1.0" encoding="UTF-16"?>' + make().decode()).encode("utf-16"))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not xml",
        make()[:-5],
        make() + b"<x/>",
        make(namespace="urn:other"),
        make(root="Manifest"),
        make(reference=""),
        make(reference='<SigReference URI=""/>'),
        make(reference='<SigReference URI="s"/><SigReference URI="s"/>'),
        make(uri="http://www.w3.org/2000/09/xmldsig#sha1"),
        make(uri=""),
        make(value=""),
        make(value="AAAA"),
        make(value="!" + VALUE[1:]),
        make(value="æ" + VALUE[1:]),
        make(uri="http://www.w3.org/2001/04/xmlenc#sha512"),
        make(inner=""),
        make(inner=f"<d:DigestValue>{VALUE}</d:DigestValue>"),
        make(inner='<d:DigestMethod Algorithm="http://www.w3.org/2001/04/xmlenc#sha256"/>'),
        make(
            inner='<d:DigestMethod Algorithm="http://www.w3.org/2001/04/xmlenc#sha256"/>'
            f"<d:DigestValue>{VALUE}</d:DigestValue><d:DigestValue>{VALUE}</d:DigestValue>"
        ),
        b'<?xml version="1.0" encoding="x-unknown"?>' + make(),
        b'<ASiCManifest xmlns="http://uri.etsi.org/02918/v1.2.1#"><SigReference URI="s"/></ASiCManifest>',
        make(reference='<SigReference URI="s"/>' + "<x/>" * 20_001),
    ],
)
def test_what_is_not_a_whole_manifest_is_refused(data: bytes) -> None:
    refuse(data)


def test_a_digest_inside_something_unknown_does_not_count() -> None:
    inner = f'<y xmlns="urn:y"><d:DigestValue>{VALUE}</d:DigestValue></y>'
    refuse(make(inner=f'<d:DigestMethod Algorithm="http://www.w3.org/2001/04/xmlenc#sha256"/>{inner}'))


def test_the_oasis_manifest_lists_every_file_escaped() -> None:
    text = write_oasis_manifest([("a&b.txt", "text/plain"), ("å.pdf", "application/pdf")]).decode()

    assert 'manifest:full-path="a&amp;b.txt"' in text
    assert text.count("manifest:file-entry") == 3
