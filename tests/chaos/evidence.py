"""Kvitteringer as the checker believes them: its own reading of the JWS, of the certificates and of the chains.

Shares no code with the product beyond the Avro schemas.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils

from schemas.codec import decode
from schemas.errors import MeldingsformidlerError
from schemas.records import KvitteringRecord

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from witness import Raw


@dataclass(frozen=True)
class Link:
    """One kvittering whose signature holds."""

    jws: str
    claims: dict[str, Any]
    partition: int
    offset: int

    @property
    def digest(self) -> str:
        """SHA-256 in hex of the JWS as it was signed."""
        return hashlib.sha256(self.jws.encode("ascii")).hexdigest()


def read_link(raw: Raw, pems: Iterable[str], root: str) -> tuple[Link | None, str]:
    """Return the kvittering in a record, or None and what is wrong with it.

    Args:
        raw: The record.
        pems: Certificates that may have signed it.
        root: The CA's certificate, or several behind one another.
    """
    try:
        record = decode(KvitteringRecord, raw.value)
    except MeldingsformidlerError as error:
        return None, f"kan ikke leses ({error.code})"
    problem = _check_jws(record.jws, pems, root)
    if problem:
        return None, problem
    claims: dict[str, Any] = json.loads(_decode(record.jws.split(".")[1]))
    clear = record.model_dump(by_alias=True, mode="json")
    same = ("kvitteringId", "digisosId", "meldingId", "kommunenummer", "status")
    if any(clear[name] != claims.get(name) for name in same):
        return None, "sier noe annet i klartekst enn det som er signert"
    if claims["kommunenummer"] != raw.topic.split(".")[1] or raw.key != claims["digisosId"].encode("ascii"):
        return None, "ligger ikke der den hører hjemme"
    return Link(record.jws, claims, raw.partition, raw.offset), ""


def _check_jws(jws: str, pems: Iterable[str], root: str) -> str:
    """Return what is wrong with the signature, or nothing."""
    head, _, rest = jws.partition(".")
    body, _, signature = rest.partition(".")
    header = json.loads(_decode(head))
    if set(header) != {"alg", "typ", "x5t#S256"} or (header["alg"], header["typ"]) != ("ES256", "kvittering+jws"):
        return "har et hode som ikke er en kvitterings"
    certificate = next((one for one in map(_load, pems) if _thumbprint(one) == header["x5t#S256"]), None)
    if certificate is None:
        return "er signert av en annen enn kommunens konnektor"
    return _check_signature(certificate, root, f"{head}.{body}".encode("ascii"), _decode(signature))


def _check_signature(certificate: x509.Certificate, root: str, signed: bytes, signature: bytes) -> str:
    key = certificate.public_key()
    half = len(signature) // 2
    numbers = (int.from_bytes(signature[:half], "big"), int.from_bytes(signature[half:], "big"))
    try:
        _check_issued(certificate, root)
        if not isinstance(key, ec.EllipticCurvePublicKey):
            return "er signert med feil slags nøkkel"
        key.verify(utils.encode_dss_signature(*numbers), signed, ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, ValueError):
        return "har en signatur som ikke stemmer"
    return ""


def _check_issued(certificate: x509.Certificate, roots: str) -> None:
    """Raise ``ValueError`` or ``InvalidSignature`` unless one of ``roots`` has issued ``certificate``."""
    for root in x509.load_pem_x509_certificates(roots.encode("ascii")):
        if root.subject == certificate.issuer and _has_issued(root, certificate):
            return
    raise ValueError


def _has_issued(root: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(root)
    except (InvalidSignature, ValueError):
        return False
    return True


def check_chain(links: Iterable[Link]) -> list[str]:
    """Return what is wrong with one søknad's kvitteringer, given as they lie on the topic."""
    problems: list[str] = []
    by_issuer: Mapping[str, dict[str, Link]] = defaultdict(dict)
    for link in links:
        by_issuer[str(link.claims["utsteder"])].setdefault(link.digest, link)
    for issuer, chain in by_issuer.items():
        former: Link | None = None
        for number, link in enumerate(sorted(chain.values(), key=lambda one: int(one.claims["nr"])), 1):
            if link.claims["nr"] != number:
                what = "deler seg ved" if link.claims["nr"] < number else "mangler"
                problems.append(f"kjeden fra {issuer} {what} nr {min(number, link.claims['nr'])}")
                break
            if link.claims.get("forrige") != (former.digest if former else None):
                problems.append(f"kjeden fra {issuer}: nr {number} viser ikke til den forrige")
            if former is not None and (link.partition, link.offset) < (former.partition, former.offset):
                problems.append(f"kjeden fra {issuer}: nr {number} lå på emnet før den forrige")
            former = link
    return problems


def _load(pem: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem.encode("ascii"))


def _thumbprint(certificate: x509.Certificate) -> str:
    der = certificate.public_bytes(serialization.Encoding.DER)
    return base64.urlsafe_b64encode(hashlib.sha256(der).digest()).rstrip(b"=").decode("ascii")


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
