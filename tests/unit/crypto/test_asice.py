"""Every row of what a reader must refuse, and of what it must accept, has a test here with the row's name."""

from __future__ import annotations

import hashlib
import io
import zipfile
import zlib
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.hazmat.primitives.serialization.pkcs7 import PKCS7Options, PKCS7SignatureBuilder

from crypto import AsiceWriter, Authority, Limits, Signer, Trust, seal
from crypto.asice import ASIC_MIMETYPE, AsiceReader
from crypto.signed import SHA1_WARNING, sign_detached
from schemas.errors import PackError, UnsealError
from schemas.names import Organisasjonsnummer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from conftest import Actors, Archive

    Make = Callable[..., Archive]
    Open = Callable[..., Mapping[str, bytes]]

NET_NAMESPACE = "http://uri.etsi.org/2918/v1.2.1#"
NET_DIGEST = "http://www.w3.org/2000/09/xmldsig#sha256"


def sign_without_attributes(signer: Signer, digest: hashes.HashAlgorithm) -> Callable[[bytes], bytes]:
    """Sign with cryptography's own PKCS#7, a second implementation."""

    def sign(content: bytes) -> bytes:
        builder = PKCS7SignatureBuilder().set_data(content)
        builder = builder.add_signer(signer.certificate, signer.private_key, digest)  # type: ignore[arg-type]  # SHA-1 too
        options = [PKCS7Options.DetachedSignature, PKCS7Options.NoAttributes, PKCS7Options.Binary]
        return builder.sign(Encoding.DER, options)

    return sign


def rewrite(archive: bytes, name: str, content: bytes) -> bytes:
    """Return the archive with one file's bytes replaced, everything in the zip being consistent."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as before, zipfile.ZipFile(out, "w") as after:
        after.comment = before.comment
        for entry in before.infolist():
            data = content if entry.filename == name else before.read(entry)
            after.writestr(zipfile.ZipInfo(entry.filename), data, entry.compress_type)
    return out.getvalue()


def test_an_archive_built_by_hand_opens(archive: Make, open_archive: Open) -> None:
    made = archive()

    assert open_archive(made.build()) == made.files


# --- refuse


def test_refuse_payload_changed_after_signing(archive: Make, open_archive: Open) -> None:
    changed = rewrite(archive().build(), "soknad.json", b'{"soknad": 2}')

    with pytest.raises(UnsealError):
        open_archive(changed)


def test_refuse_digest_mismatch(archive: Make, open_archive: Open) -> None:
    files = dict(archive().files)

    with pytest.raises(UnsealError):
        open_archive(archive(listed={**files, "soknad.json": b"something else"}).build())


@pytest.mark.parametrize("missing", ["with_manifest", "with_signature"])
def test_refuse_no_manifest_or_no_signature_at_all(missing: str, archive: Make, open_archive: Open) -> None:
    with pytest.raises(UnsealError):
        open_archive(archive(**{missing: False}).build())


def test_refuse_signature_over_other_bytes(archive: Make, open_archive: Open, actors: Actors) -> None:
    def sign_other(manifest: bytes) -> bytes:
        return sign_detached(manifest + b" ", actors.signer, actors.now)

    with pytest.raises(UnsealError):
        open_archive(archive(sign=sign_other).build())


def test_refuse_signature_over_other_bytes_without_attributes(
    archive: Make, open_archive: Open, actors: Actors
) -> None:
    sign = sign_without_attributes(actors.rsa_signer, hashes.SHA256())

    with pytest.raises(UnsealError):
        open_archive(archive(sign=lambda manifest: sign(manifest + b" ")).build())


def test_refuse_sig_reference_to_an_absent_file(archive: Make, open_archive: Open) -> None:
    with pytest.raises(UnsealError):
        open_archive(archive(signature_reference="META-INF/signature-2.p7s").build())


def test_refuse_a_payload_file_that_the_manifest_does_not_list(archive: Make, open_archive: Open) -> None:
    with pytest.raises(UnsealError):
        open_archive(archive(extra={"mer.txt": b"unsigned"}).build())


def test_refuse_a_listed_file_that_is_not_there(archive: Make, open_archive: Open) -> None:
    files = dict(archive().files)

    with pytest.raises(UnsealError):
        open_archive(archive(listed={**files, "mer.txt": b"absent"}).build())


@pytest.mark.parametrize(
    "name",
    ["META-INF/signatures.xml", "META-INF/MANIFEST.MF", "META-INF/signature-2.p7s", "meta-inf/x", "META-INF/a/b.txt"],
)
def test_refuse_an_unknown_file_under_meta_inf(name: str, archive: Make, open_archive: Open) -> None:
    with pytest.raises(UnsealError):
        open_archive(archive(extra={name: b"?"}).build())


def test_refuse_signer_that_does_not_chain_to_a_trusted_root(archive: Make, open_archive: Open, actors: Actors) -> None:
    stranger = Authority.create(actors.now - timedelta(days=1))

    with pytest.raises(UnsealError):
        open_archive(archive().build(), trust=Trust(roots=[stranger.certificate]))


def test_refuse_signer_that_is_not_pinned(archive: Make, open_archive: Open, actors: Actors) -> None:
    with pytest.raises(UnsealError):
        open_archive(archive().build(), trust=Trust(pinned=[actors.rsa_sender[0]]))


@pytest.mark.parametrize(
    ("name", "uri"),
    [
        ("sha1", "http://www.w3.org/2000/09/xmldsig#sha1"),
        ("md5", "http://www.w3.org/2001/04/xmldsig-more#md5"),
        ("sha256", "urn:unknown"),
    ],
)
def test_refuse_unknown_digest_algorithm(name: str, uri: str, archive: Make, open_archive: Open) -> None:
    with pytest.raises(UnsealError):
        open_archive(archive(digest_name=name, digest_uri=uri).build())


# --- accept


@pytest.mark.parametrize("key", ["rsa", "ec"])
def test_accept_sha256_signature(key: str, archive: Make, open_archive: Open, actors: Actors) -> None:
    signer = actors.rsa_signer if key == "rsa" else actors.signer
    made = archive(sign=lambda manifest: sign_detached(manifest, signer, actors.now))

    assert open_archive(made.build()) == made.files


def test_accept_no_oasis_manifest(archive: Make, open_archive: Open) -> None:
    made = archive(oasis=False)

    assert open_archive(made.build()) == made.files


def test_accept_mimetype_deflated(archive: Make, open_archive: Open) -> None:
    made = archive(mimetype_method=zipfile.ZIP_DEFLATED)

    assert open_archive(made.build()) == made.files


def test_accept_mimetype_missing(archive: Make, open_archive: Open) -> None:
    made = archive(mimetype=None)

    assert open_archive(made.build()) == made.files


def test_accept_no_zip_comment(archive: Make, open_archive: Open) -> None:
    made = archive(comment=b"")

    assert open_archive(made.build()) == made.files


def test_accept_the_net_layout(archive: Make, open_archive: Open) -> None:
    made = archive(
        manifest_name="META-INF/asicmanifest.xml",
        namespace=NET_NAMESPACE,
        digest_uri=NET_DIGEST,
        mimetype_method=zipfile.ZIP_DEFLATED,
        comment=b"",
        oasis=False,
    )

    assert open_archive(made.build()) == made.files


@pytest.mark.parametrize(
    ("name", "uri"),
    [
        ("sha384", "http://www.w3.org/2001/04/xmldsig-more#sha384"),
        ("sha512", "http://www.w3.org/2001/04/xmlenc#sha512"),
    ],
)
def test_accept_longer_digests(name: str, uri: str, archive: Make, open_archive: Open) -> None:
    made = archive(digest_name=name, digest_uri=uri)

    assert open_archive(made.build()) == made.files


def test_accept_signature_without_signed_attributes(archive: Make, open_archive: Open, actors: Actors) -> None:
    made = archive(sign=sign_without_attributes(actors.rsa_signer, hashes.SHA256()))

    assert open_archive(made.build()) == made.files


def test_accept_pinned_signer_of_an_unknown_issuer(archive: Make, open_archive: Open, actors: Actors) -> None:
    made = archive()

    assert open_archive(made.build(), trust=Trust(pinned=[actors.ec_sender[0]])) == made.files


# --- SHA-1, which KS' Java client still writes


def test_a_sha1_signature_is_refused_unless_a_setting_names_the_sender(
    archive: Make, open_archive: Open, actors: Actors, sha1_signature: Callable[[bytes], bytes]
) -> None:
    other = frozenset({Organisasjonsnummer("123456789")})
    sealed = archive(sign=sha1_signature).build()

    for trust in (actors.trust, Trust(roots=actors.trust.roots, allow_sha1_from=other)):
        with pytest.raises(UnsealError):
            open_archive(sealed, trust=trust)


def test_a_sha1_signature_of_a_named_sender_is_accepted_and_reported(
    archive: Make, open_sealed: Callable[..., object], actors: Actors, sha1_signature: Callable[[bytes], bytes]
) -> None:
    trust = Trust(roots=actors.trust.roots, allow_sha1_from=frozenset({Organisasjonsnummer("889640782")}))
    sealed = seal(archive(sign=sha1_signature).build(), actors.recipient[0])

    opened = open_sealed(sealed, trust=trust, require_forsendelse=False)

    assert opened.warnings == (SHA1_WARNING,)  # type: ignore[attr-defined]  # the fixture's type is loose


# --- limits


@pytest.mark.parametrize(
    "limits",
    [
        Limits(max_files=1),
        Limits(max_file_bytes=7000),
        Limits(max_total_bytes=8000),
        Limits(max_manifest_bytes=200),
        Limits(max_directory_bytes=200),
    ],
)
def test_what_is_beyond_a_limit_is_refused(limits: Limits, archive: Make, open_archive: Open) -> None:
    assert open_archive(archive().build())
    with pytest.raises(UnsealError):
        open_archive(archive().build(), limits=limits)


def test_what_is_exactly_at_the_limits_is_accepted(archive: Make, open_archive: Open) -> None:
    made = archive()
    sizes = [len(content) for content in made.files.values()]
    limits = Limits(max_files=len(sizes), max_file_bytes=max(sizes), max_total_bytes=sum(sizes))

    assert open_archive(made.build(), limits=limits) == made.files


def test_a_zip_bomb_is_refused_by_the_bytes_that_come(archive: Make, open_archive: Open) -> None:
    bomb = archive(files={"bombe.txt": bytes(20_000_000)}).build()

    assert len(bomb) < 50_000
    with pytest.raises(UnsealError):
        open_archive(bomb, limits=Limits(max_file_bytes=1_000_000))


def test_the_second_pass_computes_the_digest_again(archive: Make, actors: Actors) -> None:
    """A change that the checksum would not show, since whoever makes one can make the other fit."""
    data = io.BytesIO(archive(files={"a.txt": b"signed"}).build())
    reader = AsiceReader(data, len(data.getvalue()), trust=actors.trust, now=actors.now, limits=Limits())
    (listed,) = reader._listed.values()
    packer = zlib.compressobj(wbits=-15)
    other = packer.compress(b"forged") + packer.flush()
    entry = replace(listed.entry, crc=zlib.crc32(b"forged"), packed_size=len(other))
    data.seek(entry.data_at)
    data.write(other)
    reader._listed["a.txt"] = replace(listed, entry=entry)

    with pytest.raises(UnsealError):
        list(reader.read("a.txt"))


# --- names


@pytest.mark.parametrize(
    "name",
    [
        "../utenfor.txt",
        "a/../../utenfor.txt",
        "/etc/passwd",
        "C:/x.txt",
        "a\\b.txt",
        "a\x01b.txt",
        "a//b.txt",
        "tom/",
        "x\u202etxt.exe",
        "CON",
        "mimetype2/../mimetype",
    ],
)
def test_a_dangerous_name_is_refused_although_it_is_signed(name: str, archive: Make, open_archive: Open) -> None:
    listed = {name: b"x"}
    manifest = archive(files=listed).manifest_bytes().replace(b"\x01", b"&#1;")

    with pytest.raises(UnsealError):
        open_archive(archive(files=listed, manifest=manifest).build())


@pytest.mark.parametrize(
    ("first", "second"), [("a.txt", "A.TXT"), ("\u00e5.txt", "a\u030a.txt"), ("stra\u00dfe", "STRASSE")]
)
def test_names_that_some_file_system_takes_for_one_are_refused(
    first: str, second: str, archive: Make, open_archive: Open
) -> None:
    with pytest.raises(UnsealError):
        open_archive(archive(files={first: b"1", second: b"2"}).build())


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_the_same_name_twice_is_refused(archive: Make, open_archive: Open) -> None:
    made = archive()
    made.extra = {"soknad.json": made.files["soknad.json"]}

    with pytest.raises(UnsealError):
        open_archive(made.build())


def test_a_file_listed_twice_is_refused(archive: Make, open_archive: Open) -> None:
    manifest = archive().manifest_bytes()
    reference = manifest[manifest.index(b"<DataObj") : manifest.index(b"</DataObj")] + b"</DataObjectReference>"
    doubled = manifest.replace(b"</ASiCManifest>", reference + b"</ASiCManifest>")

    with pytest.raises(UnsealError):
        open_archive(archive(manifest=doubled).build())


def test_a_name_may_be_an_encoded_uri_in_the_manifest(archive: Make, open_archive: Open) -> None:
    made = archive(files={"hus leie.pdf": b"x"})
    made.manifest = made.manifest_bytes().replace(b"hus leie", b"hus%20leie")

    assert open_archive(made.build()) == made.files


def test_mimetype_must_come_first_and_say_asic(archive: Make, open_archive: Open) -> None:
    with pytest.raises(UnsealError):
        open_archive(archive(mimetype=b"application/zip").build())
    with pytest.raises(UnsealError):
        open_archive(archive(mimetype=None, extra={"mimetype": ASIC_MIMETYPE}).build())


# --- the writer


def write(actors: Actors, files: Mapping[str, bytes], mimetype: str = "application/json") -> bytes:
    out: list[bytes] = []
    writer = AsiceWriter(out.append, signer=actors.signer, now=actors.now)
    for name, content in files.items():
        with writer.add(name, mimetype) as entry:
            entry.write(content)
    writer.finish()
    return b"".join(out)


def test_the_writer_has_the_layout_of_ks_java(actors: Actors) -> None:
    with zipfile.ZipFile(io.BytesIO(write(actors, {"soknad.json": b"{}", "a.pdf": b"%PDF"}))) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        signature = names[4]
        first = archive.infolist()[0]

        assert names == [
            "mimetype",
            "soknad.json",
            "a.pdf",
            "META-INF/ASiCManifest.xml",
            signature,
            "META-INF/manifest.xml",
        ]
        assert signature.startswith("META-INF/signature-")
        assert archive.comment == first.comment == b"mimetype=application/vnd.etsi.asic-e+zip"
        assert (first.compress_type, archive.read(first)) == (zipfile.ZIP_STORED, ASIC_MIMETYPE)
        manifest = archive.read("META-INF/ASiCManifest.xml").decode()
        assert 'xmlns:asic="http://uri.etsi.org/02918/v1.2.1#"' in manifest
        assert manifest.count('Rootfile="true"') == 1
        assert manifest.count("http://www.w3.org/2001/04/xmlenc#sha256") == 2
        assert f'URI="{signature}"' in manifest


def test_mimetype_has_its_size_in_front_because_java_reads_no_stored_entry_otherwise(actors: Actors) -> None:
    header = write(actors, {"a": b"x"})[:38]

    assert header[6] & 8 == 0
    assert int.from_bytes(header[22:26], "little") == len(ASIC_MIMETYPE)
    assert header[30:38] == b"mimetype"


def test_what_is_compressed_already_is_not_compressed_again(actors: Actors) -> None:
    content = bytes(100_000)

    assert len(write(actors, {"a.pdf": content}, "application/pdf")) > len(content)
    assert len(write(actors, {"a.json": content})) < 10_000


@pytest.mark.parametrize("name", ["", "../a", "mimetype", "META-INF/x", "meta-inf/X", "a:b", "x" * 256])
def test_the_writer_refuses_names_that_a_reader_would_refuse(name: str, actors: Actors) -> None:
    writer = AsiceWriter(lambda _: None, signer=actors.signer, now=actors.now)

    with pytest.raises(PackError):
        writer.add(name, "text/plain")


def test_the_writer_refuses_a_name_twice_without_repeating_it(actors: Actors) -> None:
    writer = AsiceWriter(lambda _: None, signer=actors.signer, now=actors.now)
    with writer.add("Ola Nordmann.pdf", "application/pdf"):
        pass

    with pytest.raises(PackError) as caught:
        writer.add("OLA NORDMANN.pdf", "application/pdf")
    assert "nordmann" not in str(caught.value).lower()


def test_an_empty_package_is_refused(actors: Actors) -> None:
    with pytest.raises(PackError):
        AsiceWriter(lambda _: None, signer=actors.signer, now=actors.now).finish()


def test_one_file_at_a_time(actors: Actors) -> None:
    writer = AsiceWriter(lambda _: None, signer=actors.signer, now=actors.now)
    writer.add("a", "text/plain")

    with pytest.raises(RuntimeError):
        writer.add("b", "text/plain")
    with pytest.raises(RuntimeError):
        writer.finish()


def test_a_file_that_failed_half_way_is_never_signed(actors: Actors) -> None:
    writer = AsiceWriter(lambda _: None, signer=actors.signer, now=actors.now)
    entry = writer.add("a", "text/plain")
    entry.write(b"half")
    entry.__exit__(OSError, OSError("connection lost"), None)

    with pytest.raises(RuntimeError):
        writer.finish()


def test_nothing_is_added_after_the_end(actors: Actors) -> None:
    writer = AsiceWriter(lambda _: None, signer=actors.signer, now=actors.now)
    with writer.add("a", "text/plain"):
        pass
    writer.finish()

    with pytest.raises(RuntimeError):
        writer.add("b", "text/plain")
    with pytest.raises(RuntimeError):
        writer.finish()


def test_files_keep_their_mimetype_size_and_digest(actors: Actors, open_sealed: Callable[..., object]) -> None:
    content = b'{"a": "\xc3\xa5"}'
    sealed = seal(write(actors, {"vedlegg/søknad & bilag.json": content}), actors.recipient[0])

    (file,) = open_sealed(sealed, require_forsendelse=False).files  # type: ignore[attr-defined]  # loose fixture type

    assert file.name == "vedlegg/søknad & bilag.json"
    assert (file.mimetype, file.size) == ("application/json", len(content))
    assert file.sha256 == hashlib.sha256(content).hexdigest()


def test_the_signers_chain_travels_with_the_signature(actors: Actors, open_archive: Open) -> None:
    intermediate = x509.load_der_x509_certificate(actors.authority.certificate.public_bytes(Encoding.DER))
    signed = write(actors, {"a": b"x"})

    assert open_archive(signed, trust=Trust(roots=[intermediate])) == {"a": b"x"}
