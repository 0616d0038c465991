"""Kvitteringer as evidence: is each one real, does it continue its chain, and does it speak of what was sent?

Three questions, in this order; the rules that answer them, what a kvittering is that breaks one, and what becomes of it:

=== ============================================================ ========================================================
 .  Rule                                                         Otherwise
=== ============================================================ ========================================================
1a  It decodes by our schema, under its søknad's key.            Dead letter ``kontrakt.*``.
1b  Signed by a certificate that the katalog holds for the       *Wrong signer*: dead letter ``kvittering.signatur``. Nobody
    topic's kommune, valid when it says that it was issued, in   chooses what chain to write in.
    the name of the connector that owns the certificate.
1c  The certificate had not ended ``UNDERVEIS`` before Kafka     *Stolen key*: as 1b, unless the same kvittering came in
    appended it, and was not revoked by then.                    time before: then it is a repeat.
1d  The signed claims are the record's clear fields.             *Altered*: dead letter ``kontrakt.avvik``.
1e  It names the kommune of the topic that it lies on.           *Wrong kommune*: dead letter ``kontrakt.avvik``.
2a  Its bytes are new.                                           *Duplicate*: no event at all.
2b  Its number in its chain is not taken.                        *Fork*: dead letter ``kvittering.kjede``; the first stands.
2c  It names the digest of the number before; the first none.    *Break*: dead letter ``kvittering.kjede``.
2d  The number before is there.                                  *Out of order*: it waits (``venter.kjede``), for a repeat may
                                                                 bring what is missing.
3a  Its message is known from AKSEPTERT, with a digest.          *Unknown søknad*: it waits (``venter.soknad``).
3b  Its kommune is the one that the message was sent to.         *Wrong kommune*: dead letter ``kontrakt.avvik``.
3c  Its digest is the package's, or it is an AVVIST: that is     *Wrong digest*: dead letter ``kontrakt.avvik``, and the chain
    how a package is reported that was altered on the way.       goes on through it, since its issuer did write it.
3d  Only an AVVIST may lack a message: the record was            Dead letter ``kontrakt.avvik``.
    unreadable.
4   No more than ``projection.MAX_WAITING`` of one issuer wait.  Dead letter ``kvittering.kjede``.
=== ============================================================ ========================================================

* There is one chain for each søknad, kommune and issuer. Question 2 comes before 3: a link that waits for its søknad already has
  its place in the chain.
* 1b to 1e depend on the record and the katalog alone (``read_ledd``, ``late_signature``), 2 is ``connect``, 3 is ``judge``.
* A kvittering's own time may lie before Kafka's by any length and still count: it waited in an outage, or is repeated. Only its
  certificate is held against Kafka's time, since whoever has an ended key can write any time into what it signs. It may lie after
  Kafka's too: clocks differ, and a set-up's time may have been moved, which Kafka's never is. Then too the certificate must be
  valid at the time that is stated, so nobody gains by it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Final

from crypto.certificates import judge_validity, nokkel_id
from crypto.jws import verify_jws
from kvittering.facts import Ledd
from schemas.codec import decode
from schemas.errors import CertificateError, ChainError, KvitteringError, MismatchError, SignatureError
from schemas.kvittering import AVVIST, UNDERVEIS, KvitteringClaims
from schemas.names import Kommunenummer, NokkelId, Sha256
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
        tilbakekalt: When each certificate was revoked that was, by its fingerprint.
        tidligere: Whose each certificate is that is a former connector's, by its fingerprint: what that one signed stays valid
            when the kommune changes its vendor, also when everything is read again.
    """

    navn: str | None = None
    certificates: Sequence[x509.Certificate] = ()
    tilbakekalt: Mapping[NokkelId, datetime] = field(default_factory=dict["NokkelId", "datetime"])
    tidligere: Mapping[NokkelId, str] = field(default_factory=dict["NokkelId", "str"])

    def owner(self, certificate: NokkelId) -> str | None:
        """Return in whose name one of ``certificates`` signs."""
        return self.tidligere.get(certificate, self.navn)

    def in_time(self, tidspunkt: datetime, lagret: datetime) -> tuple[x509.Certificate, ...]:
        """Return the certificates that something may be signed with that says ``tidspunkt`` and came at ``lagret``."""
        return tuple(one for one in self.certificates if self.too_late(one, tidspunkt, lagret) is None)

    def too_late(self, certificate: x509.Certificate, tidspunkt: datetime, lagret: datetime) -> str | None:
        """Return why a certificate cannot have signed this any more (rule 1c), or None when it can.

        Args:
            certificate: One of ``certificates``.
            tidspunkt: When the signer says that it was signed.
            lagret: When Kafka appended it.
        """
        if lagret - UNDERVEIS >= certificate.not_valid_after_utc:
            return "sertifikatet var utløpt lenge før dette kom på emnet"
        revoked = self.tilbakekalt.get(nokkel_id(certificate))
        # Its own time counts too: in a set-up whose time was moved, Kafka's stays behind.
        if revoked is not None and max(lagret, tidspunkt) >= revoked:
            return "sertifikatet var trukket tilbake da dette kom på emnet"
        return None


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
    if ledd.claims.utsteder != konnektor.owner(ledd.nokkel_id):
        raise SignatureError("kvitteringens utsteder er ikke konnektoren som eier sertifikatet")
    if ledd.claims.record(record.jws) != record:
        raise MismatchError("kvitteringens klare felt er ikke det som er signert")
    if ledd.claims.kommunenummer != kommunenummer:
        raise MismatchError("kvitteringen gjelder en annen kommune enn emnet den kom på")
    return ledd


def late_signature(ledd: Ledd, konnektor: Konnektor, lagret: datetime) -> SignatureError | None:
    """Return why a real kvittering came too late for the certificate that signed it (rule 1c); None when it came in time.

    Args:
        ledd: Of ``read_ledd``, by the same ``konnektor``.
        konnektor: Who may sign.
        lagret: When Kafka appended the record.
    """
    for certificate in konnektor.certificates:
        if nokkel_id(certificate) == ledd.nokkel_id:
            why = konnektor.too_late(certificate, ledd.claims.tidspunkt, lagret)
            return None if why is None else SignatureError(f"kvittering: {why}")
    return SignatureError("kvitteringens sertifikat er ikke konnektorens")


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
    if not melding.was_sent_as(claims.sha256):
        return MismatchError("kvitteringen gjelder en annen pakke enn den som ble sendt")
    return None
