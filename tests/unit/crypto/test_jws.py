from __future__ import annotations

import base64
import hashlib
import json
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws as joserfc_jws
from joserfc.jwk import ECKey

from crypto import certificate_der, sign_jws, verify_jws
from schemas.errors import SignatureError

if TYPE_CHECKING:
    from conftest import Actors

PAYLOAD = b'{"status":"MOTTATT"}'


def sign(actors: Actors, payload: bytes = PAYLOAD) -> str:
    certificate, key = actors.ec_sender
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return sign_jws(payload, key, certificate)


def with_header(actors: Actors, **fields: object) -> str:
    """Sign a header of any kind, by the other library."""
    header = {**json.loads(decode(sign(actors).split(".")[0])), **fields}
    kept = {name: value for name, value in header.items() if value is not None}
    first = base64.urlsafe_b64encode(json.dumps(kept).encode()).rstrip(b"=").decode()
    return ".".join([first, *sign(actors).split(".")[1:]])


def decode(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "==")


@given(st.binary(max_size=500))
def test_what_is_signed_is_verified(actors: Actors, payload: bytes) -> None:
    assert verify_jws(sign(actors, payload), [actors.recipient[0], actors.ec_sender[0]]) == (
        payload,
        actors.ec_sender[0],
    )


def test_the_header_names_the_certificate(actors: Actors) -> None:
    header = json.loads(decode(sign(actors).split(".")[0]))

    assert header.keys() == {"alg", "typ", "x5t#S256"}
    assert (header["alg"], header["typ"]) == ("ES256", "kvittering+jws")
    assert decode(header["x5t#S256"]) == hashlib.sha256(certificate_der(actors.ec_sender[0])).digest()


def test_joserfc_verifies_ours(actors: Actors) -> None:
    public = actors.ec_sender[0].public_key()
    key = ECKey.import_key(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))

    assert joserfc_jws.deserialize_compact(sign(actors), key).payload == PAYLOAD


def test_ours_verifies_joserfcs(actors: Actors) -> None:
    certificate, private_key = actors.ec_sender
    key = ECKey.import_key(private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    header = json.loads(decode(sign(actors).split(".")[0]))
    reordered = dict(reversed(header.items()))

    assert verify_jws(joserfc_jws.serialize_compact(reordered, PAYLOAD, key), [certificate])[0] == PAYLOAD


@given(st.data(), st.sampled_from("ABCabc012-_."))
def test_any_changed_character_is_refused(actors: Actors, data: st.DataObject, letter: str) -> None:
    token = sign(actors)
    at = data.draw(st.integers(0, len(token) - 1))
    changed = token[:at] + letter + token[at + 1 :]

    if changed != token:
        with pytest.raises(SignatureError):
            verify_jws(changed, [actors.ec_sender[0]])


@pytest.mark.parametrize(
    "token", ["", "..", "a.b", "a.b.c.d", "æ.e30.x", "e30.e30.e30", "bnVsbA.e30.e30", "x" * 70_000]
)
def test_what_is_not_such_a_jws_is_refused(token: str, actors: Actors) -> None:
    with pytest.raises(SignatureError):
        verify_jws(token, [actors.ec_sender[0]])


@pytest.mark.parametrize(
    "fields",
    [
        {"alg": "none"},
        {"alg": "HS256"},
        {"typ": "JWT"},
        {"typ": None},
        {"crit": ["x"]},
        {"jwk": {}},
        {"x5t#S256": "AAAA"},
        {"x5t#S256": ["AAAA"]},
    ],
)
def test_other_headers_are_refused(fields: dict[str, object], actors: Actors) -> None:
    with pytest.raises(SignatureError):
        verify_jws(with_header(actors, **fields), [actors.ec_sender[0]])


def test_a_signature_of_one_kind_never_passes_for_another(actors: Actors) -> None:
    certificate, key = actors.ec_sender
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    other = sign_jws(PAYLOAD, key, certificate, typ="revisjon+jws")
    assert verify_jws(other, [certificate], typ="revisjon+jws") == (PAYLOAD, certificate)
    with pytest.raises(SignatureError):
        verify_jws(other, [certificate])
    with pytest.raises(SignatureError):
        verify_jws(sign(actors), [certificate], typ="revisjon+jws")


def test_an_unknown_certificate_and_one_of_another_kind_are_refused(actors: Actors) -> None:
    with pytest.raises(SignatureError):
        verify_jws(sign(actors), [actors.authority.certificate])
    with pytest.raises(SignatureError):
        verify_jws(sign(actors), [])


def test_only_the_certificates_own_p256_key_signs(actors: Actors) -> None:
    with pytest.raises(ValueError, match="P-256"):
        sign_jws(PAYLOAD, ec.generate_private_key(ec.SECP256R1()), actors.ec_sender[0])
    with pytest.raises(ValueError, match="P-256"):
        sign_jws(PAYLOAD, ec.generate_private_key(ec.SECP384R1()), actors.ec_sender[0])


def test_a_signature_has_one_spelling_so_that_a_kvittering_has_one_digest(actors: Actors) -> None:
    token = sign(actors)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    other = token[:-1] + alphabet[alphabet.index(token[-1]) + 1]  # differs in bits that decoding throws away

    assert decode(other.split(".")[2]) == decode(token.split(".")[2])
    with pytest.raises(SignatureError):
        verify_jws(other, [actors.ec_sender[0]])
    with pytest.raises(SignatureError):
        verify_jws(token + "==", [actors.ec_sender[0]])


@pytest.mark.parametrize("header", [b"[" * 380, b"[" * 45_000, b'{"alg":' * 40, b'{"a":"' + b"x" * 500 + b'"}'])
def test_a_header_is_refused_before_it_can_cost_anything(actors: Actors, header: bytes) -> None:
    first = base64.urlsafe_b64encode(header).rstrip(b"=").decode()
    with pytest.raises(SignatureError):
        verify_jws(".".join([first, *sign(actors).split(".")[1:]]), [actors.ec_sender[0]])
