"""Kvitteringer as evidence: is each one real, does it continue its chain, and does it speak of what was sent?

Three questions, in this order, and what happens when the answer is no:

1. *Is it real?* (``read_ledd``, from the record and the katalog alone.) It decodes; it is signed by a certificate that the
   katalog holds for the topic's kommune, valid when the kvittering was issued; its signed claims are the record's clear
   fields, and name the topic's kommune and the connector that the katalog says owns the certificate: nobody chooses what
   chain to write in. Otherwise: dead letter, nothing changes.
2. *Does it continue the chain?* (``connect``.) There is one chain for each søknad, kommune and issuer: number 1 has no
   ``forrige``, number n+1 names the digest of number n. The same bytes again are a repeat, which is no event at all. The
   same number with other bytes is a fork, and a wrong ``forrige`` is a break: dead letter, and the chain stands as it
   was. A number too high is a gap: it waits, since a repeat may still bring what is missing.
3. *Does it speak of what was sent?* (``judge``.) The message is known from AKSEPTERT; the kommune is the one it was sent
   to; the digest is the package's. Not known yet: it waits. An AVVIST may name another digest, for that is how a package
   that was altered on the way is reported; it must say so of a known message, or of none when the record could not be
   read. Otherwise: dead letter. The chain goes on through such a link, since its issuer did write it.

Number 2 before number 3 matters: a link that waits for its søknad already has its place in the chain.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from crypto.certificates import judge_validity, nokkel_id
from crypto.jws import verify_jws
from kvittering.facts import Ledd
from schemas.codec import decode
from schemas.errors import CertificateError, ChainError, KvitteringError, MismatchError, SignatureError
from schemas.kvittering import AVVIST, KvitteringClaims
from schemas.names import Kommunenummer, Sha256
from schemas.records import KvitteringRecord

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cryptography import x509

    from kvittering.facts import Melding
    from schemas.errors import MeldingsformidlerError
    from schemas.names import MeldingId

VENTER_SOKNAD: Final = "venter.soknad"
"""The søknad or message is not known yet: its AKSEPTERT has not come."""
VENTER_KJEDE: Final = "venter.kjede"
"""An earlier link of the issuer's chain is missing."""


@dataclass(frozen=True, slots=True)
class Konnektor:
    """Who may sign in a kommune's name, by the katalog.

    Attributes:
        navn: The connector's id; None when the kommune has none.
        certificates: Those that it signs with.
    """

    navn: str | None = None
    certificates: Sequence[x509.Certificate] = ()


def read_ledd(value: bytes, *, kommunenummer: Kommunenummer, konnektor: Konnektor) -> Ledd:
    """Return the kvittering in a record, if it is real (question 1).

    Args:
        value: The record's value, Avro in the Confluent wire format.
        kommunenummer: Whose topic it was read from.
        konnektor: Who may sign in this kommune's name.

    Raises:
        UnknownSchemaError: Not a kvittering record.
        DecodeError: The record or the signed claims cannot be read.
        SignatureError: Not signed by that connector, with a certificate that was valid at the time, in its own name.
        MismatchError: The clear fields are not what was signed, or it is another kommune's.
    """
    record = decode(KvitteringRecord, value)
    ledd = verify_ledd(record.jws, konnektor.certificates)
    if ledd.claims.utsteder != konnektor.navn:
        raise SignatureError("kvitteringens utsteder er ikke konnektoren som eier sertifikatet")
    if ledd.claims.record(record.jws) != record:
        raise MismatchError("kvitteringens klare felt er ikke det som er signert")
    if ledd.claims.kommunenummer != kommunenummer:
        raise MismatchError("kvitteringen gjelder en annen kommune enn emnet den kom på")
    return ledd


def verify_ledd(jws: str, certificates: Sequence[x509.Certificate]) -> Ledd:
    """Return the kvittering in ``jws``, if one of ``certificates`` signed it while it was valid.

    Raises:
        SignatureError: None of them did.
        DecodeError: It is signed, but is not a kvittering.
    """
    payload, certificate = verify_jws(jws, certificates)
    claims = KvitteringClaims.from_json(payload)
    try:
        judge_validity(certificate, claims.tidspunkt)
    except CertificateError:
        raise SignatureError("sertifikatet var ikke gyldig da kvitteringen ble utstedt") from None
    return Ledd(claims=claims, jws=jws, nokkel_id=nokkel_id(certificate))


@dataclass(frozen=True, slots=True)
class Head:
    """The last link of a chain."""

    nr: int
    digest: Sha256


@dataclass(frozen=True, slots=True)
class Chains:
    """Links told apart by whether they have their place (question 2).

    Attributes:
        heads: The last link of each chain, by kommune and issuer.
        linked: Links with a place, in the order they came.
        waiting: Links behind a gap.
        broken: Links that never get a place, and why.
    """

    heads: Mapping[tuple[Kommunenummer, str], Head]
    linked: tuple[Ledd, ...]
    waiting: tuple[Ledd, ...]
    broken: Mapping[Sha256, KvitteringError]


def connect(links: Sequence[Ledd]) -> Chains:
    """Return what place each of ``links`` has; they are given in the order they came.

    Of several that claim one place, the first to come has it. The same bytes again are a repeat, and count once.
    """
    links = tuple({ledd.digest: ledd for ledd in links}.values())
    by_issuer: dict[tuple[Kommunenummer, str], dict[int, list[Ledd]]] = {}
    for ledd in links:
        by_nr = by_issuer.setdefault((ledd.claims.kommunenummer, ledd.claims.utsteder), {})
        by_nr.setdefault(ledd.claims.nr, []).append(ledd)
    heads: dict[tuple[Kommunenummer, str], Head] = {}
    placed: set[Sha256] = set()
    broken: dict[Sha256, KvitteringError] = {}
    for issuer, by_nr in by_issuer.items():
        head = _walk(by_nr, placed, broken)
        if head is not None:
            heads[issuer] = head
    return Chains(
        heads=heads,
        linked=tuple(ledd for ledd in links if ledd.digest in placed),
        waiting=tuple(ledd for ledd in links if ledd.digest not in placed and ledd.digest not in broken),
        broken=broken,
    )


def _walk(by_nr: Mapping[int, list[Ledd]], placed: set[Sha256], broken: dict[Sha256, KvitteringError]) -> Head | None:
    """Follow one chain from its first link as far as it goes; return its head."""
    head: Head | None = None
    nr = 1
    while nr in by_nr:
        forrige = head.digest if head else None
        found: Ledd | None = None
        for ledd in by_nr[nr]:
            if found is not None and ledd.claims.forrige == forrige:
                broken[ledd.digest] = ChainError(f"kjeden deler seg: en annen kvittering har nr {nr}")
            elif ledd.claims.forrige != forrige:
                broken[ledd.digest] = ChainError(f"kvittering nr {nr} viser ikke til den forrige")
            else:
                found = ledd
        if found is None:
            break
        placed.add(found.digest)
        head = Head(nr, found.digest)
        nr += 1
    return head


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What came of each fact.

    Attributes:
        holds: Kvitteringer that count, in the order they came.
        waits: Facts that may count later, by id, and what they wait for.
        refused: Facts that never count, by id, and why.
    """

    holds: tuple[Ledd, ...]
    waits: Mapping[str, str] = field(default_factory=dict[str, str])
    refused: Mapping[str, MeldingsformidlerError] = field(default_factory=dict[str, "MeldingsformidlerError"])


def judge(links: Sequence[Ledd], meldinger: Mapping[MeldingId, Melding]) -> Verdicts:
    """Return which kvitteringer count (questions 2 and 3).

    Args:
        links: Every real kvittering of one søknad, in the order they came.
        meldinger: The søknad's messages that are known from AKSEPTERT, the søknad itself first.
    """
    chains = connect(links)
    waits = {str(ledd.digest): VENTER_KJEDE for ledd in chains.waiting}
    refused: dict[str, MeldingsformidlerError] = {str(digest): error for digest, error in chains.broken.items()}
    holds: list[Ledd] = []
    for ledd in chains.linked:
        melding = _melding(ledd.claims, meldinger)
        if melding is None or (melding.sha256 is None and ledd.claims.status != AVVIST):
            waits[ledd.digest] = VENTER_SOKNAD
        elif (error := _mismatch(ledd.claims, melding)) is not None:
            refused[ledd.digest] = error
        else:
            holds.append(ledd)
    return Verdicts(tuple(holds), waits, refused)


def _melding(claims: KvitteringClaims, meldinger: Mapping[MeldingId, Melding]) -> Melding | None:
    if claims.melding_id is None:
        return next(iter(meldinger.values()), None)
    return meldinger.get(claims.melding_id)


def _mismatch(claims: KvitteringClaims, melding: Melding) -> MismatchError | None:
    if claims.kommunenummer != melding.kommunenummer:
        return MismatchError("kvitteringen er fra en annen kommune enn den søknaden gikk til")
    if claims.status == AVVIST:
        return None
    if claims.melding_id is None:
        return MismatchError("bare en AVVIST kan mangle meldingId")
    if claims.sha256 != melding.sha256:
        return MismatchError("kvitteringen gjelder en annen pakke enn den som ble sendt")
    return None
