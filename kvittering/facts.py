"""What is known about one søknad, before anybody asks what it means.

A ``SoknadState`` is three lists, one for each source, each in its source's own order. That is all the memory there is: the
status, the history and every verdict are computed from it (``projection.project``). Two sources never touch the same
list, so the order in which their topics are read cannot matter.

Nothing here is from inside a søknad: a hendelse is its statuses and their times, and a number of documents.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Self, TypeAlias

from pydantic import AwareDatetime, ValidationError

from schemas.errors import StoreError
from schemas.kvittering import KvitteringClaims
from schemas.model import WireModel
from schemas.names import DigisosId, Eier, Kommunenummer, MeldingId, NavEksternRefId, NokkelId, Sha256
from schemas.records import TRANSPORT_AKSEPTERT, TRANSPORT_OMFORSEGLET, TransportRecord


class Ledd(WireModel):
    """A kvittering whose signature holds: one link of its issuer's chain.

    Attributes:
        claims: What the issuer signed.
        jws: The compact JWS, as it was received.
        nokkel_id: Fingerprint of the certificate that it is signed with.
    """

    claims: KvitteringClaims
    jws: str
    nokkel_id: NokkelId

    @cached_property
    def digest(self) -> Sha256:
        """SHA-256 of the JWS: what the next link names as ``forrige``."""
        return Sha256.of(self.jws.encode("ascii"))


@dataclass(frozen=True, slots=True)
class Melding:
    """A message that the sender has accepted: the søknad itself, or an ettersendelse to it.

    Attributes:
        kommunenummer: Where it was sent.
        sha256: Digest of its package as it was first sealed.
        akseptert: When the sender took it over.
        omforseglet: Digests of the same package sealed for other certificates of the same receiver.
    """

    melding_id: MeldingId
    kommunenummer: Kommunenummer
    nav_ekstern_ref_id: NavEksternRefId
    eier: Eier | None
    sha256: Sha256 | None
    akseptert: datetime
    omforseglet: frozenset[Sha256] = frozenset()

    def was_sent_as(self, sha256: Sha256) -> bool:
        """Return whether a package with this digest was sent: what a kvittering must name."""
        return sha256 == self.sha256 or sha256 in self.omforseglet


class Statusendring(WireModel):
    """A soknadsStatus of a digisos-soker.json: the status and when the fagsystem says it happened."""

    status: str
    tidspunkt: AwareDatetime


class Sakshendelse(WireModel):
    """A digisos-soker.json whose signature holds. It replaces every earlier one.

    Attributes:
        melding_id: Id of the update.
        kommunenummer: The kommune that sent it, as signed.
        avsender: Id of the connector.
        tidspunkt: When the connector took it over.
        statuser: Every soknadsStatus in it, by time.
        vist: What the citizen is shown, by the rules of ``hendelser.case_status``; None when the file does not say.
        dokumenter: How many documents came with it. They are kept sealed.
    """

    melding_id: MeldingId
    digisos_id: DigisosId
    kommunenummer: Kommunenummer
    avsender: str
    tidspunkt: AwareDatetime
    statuser: tuple[Statusendring, ...]
    vist: str | None
    dokumenter: int = 0

    def shown_since(self) -> datetime:
        """Return when the fagsystem says that the latest status began."""
        return self.statuser[-1].tidspunkt if self.statuser else self.tidspunkt


Fact: TypeAlias = TransportRecord | Ledd | Sakshendelse
"""One thing that is known about a søknad, from one of the three sources."""


class SoknadState(WireModel):
    """Everything known about one søknad, in the order of each source."""

    digisos_id: DigisosId
    transport: tuple[TransportRecord, ...] = ()
    kvitteringer: tuple[Ledd, ...] = ()
    hendelser: tuple[Sakshendelse, ...] = ()

    def meldinger(self) -> dict[MeldingId, Melding]:
        """Return the messages that are known from AKSEPTERT, in the order accepted: the first is the søknad itself.

        A message is what its first AKSEPTERT says; only a digest that it lacks may come with a later record. Each OMFORSEGLET
        adds a digest, whenever it comes.
        """
        found: dict[MeldingId, Melding] = {}
        resealed: dict[MeldingId, set[Sha256]] = {}
        for record in self.transport:
            if record.type == TRANSPORT_OMFORSEGLET:
                resealed.setdefault(record.melding_id, set()).update({record.sha256} if record.sha256 else ())
                continue
            known = found.get(record.melding_id)
            if known is None and record.type == TRANSPORT_AKSEPTERT:
                found[record.melding_id] = _accepted(record)
            elif known is not None and known.sha256 is None and record.sha256 is not None:
                found[record.melding_id] = replace(known, sha256=record.sha256)
        for melding_id in resealed.keys() & found.keys():
            found[melding_id] = replace(found[melding_id], omforseglet=frozenset(resealed[melding_id]))
        return found

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read what ``to_json`` wrote.

        Raises:
            StoreError: Something else wrote it, or a newer version did.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise StoreError(f"lagret tilstand kan ikke leses ({error.error_count()} feil)") from None

    def to_json(self) -> str:
        """Return the state as JSON, for the store."""
        return self.model_dump_json(by_alias=True, exclude_defaults=True)


def _accepted(record: TransportRecord) -> Melding:
    return Melding(
        melding_id=record.melding_id,
        kommunenummer=record.kommunenummer,
        nav_ekstern_ref_id=record.nav_ekstern_ref_id,
        eier=record.eier,
        sha256=record.sha256,
        akseptert=record.tidspunkt,
    )
