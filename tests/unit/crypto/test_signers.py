from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.hazmat.primitives.serialization.pkcs7 import PKCS7Options, PKCS7SignatureBuilder

from crypto import sign_detached
from crypto.signers import SignerReport, explain_signature, read_signers
from schemas.errors import UnsealError

if TYPE_CHECKING:
    from conftest import Actors

CONTENT = b"<ASiCManifest/>"


def make_report(actors: Actors, *, known: bool = True, same_bytes: bool | None = True) -> SignerReport:
    return SignerReport(actors.signer.certificate if known else None, "SHA-256", "ECDSA", actors.now, same_bytes)


@pytest.mark.parametrize("kind", ["rsa", "ec"])
def test_our_own_signature_is_read_as_it_was_made(actors: Actors, kind: str) -> None:
    signer = actors.rsa_signer if kind == "rsa" else actors.signer
    certificates, (report,) = read_signers(sign_detached(CONTENT, signer, actors.now), CONTENT)
    assert set(certificates) == {signer.certificate, actors.authority.certificate}
    assert report.certificate == signer.certificate
    assert report.digest == "SHA-256"
    assert ("ECDSA" in report.signature) is (kind == "ec")
    assert report.signing_time == actors.now
    assert report.same_bytes is True


def test_a_signature_over_other_bytes_says_so(actors: Actors) -> None:
    _, (report,) = read_signers(sign_detached(CONTENT, actors.signer, actors.now), CONTENT + b" ")
    assert report.same_bytes is False


def test_a_signature_without_signed_attributes_says_neither_time_nor_digest(actors: Actors) -> None:
    certificate, key = actors.rsa_sender
    builder = PKCS7SignatureBuilder().set_data(CONTENT).add_signer(certificate, key, hashes.SHA256())  # type: ignore[arg-type]  # an RSA key, which Actors does not tell
    options = [PKCS7Options.DetachedSignature, PKCS7Options.Binary, PKCS7Options.NoAttributes]
    _, (report,) = read_signers(builder.sign(Encoding.DER, options), CONTENT)
    assert report.certificate == certificate
    assert report.signing_time is None
    assert report.same_bytes is None


def test_a_certificate_that_is_left_out_is_not_guessed(actors: Actors) -> None:
    certificate, key = actors.rsa_sender
    builder = PKCS7SignatureBuilder().set_data(CONTENT).add_signer(certificate, key, hashes.SHA256())  # type: ignore[arg-type]  # an RSA key, which Actors does not tell
    options = [PKCS7Options.DetachedSignature, PKCS7Options.Binary, PKCS7Options.NoCerts]
    certificates, (report,) = read_signers(builder.sign(Encoding.DER, options), CONTENT)
    assert certificates == ()
    assert report.certificate is None
    assert report.same_bytes is True


@pytest.mark.parametrize("length", [0, 1, 40, 200])
def test_what_cannot_be_read_is_refused(actors: Actors, length: int) -> None:
    signature = sign_detached(CONTENT, actors.signer, actors.now)
    with pytest.raises((UnsealError, IndexError, ValueError)):
        read_signers(signature[:length], CONTENT)


def test_each_reason_is_explained_before_the_next(actors: Actors) -> None:
    whole = make_report(actors)
    assert "ingen underskriver" in explain_signature([])
    assert "ikke med i signaturen" in explain_signature([whole, make_report(actors, known=False, same_bytes=False)])
    assert "endret etter signering" in explain_signature([whole, make_report(actors, same_bytes=False)])
    assert "signaturverdien" in explain_signature([whole])
