"""Verifying a chain of kvitteringer from files and certificates alone, without Kafka, database or network.

For whoever has to prove, years later, what a kommune acknowledged. Nothing that a file says about itself is believed: the
certificates are the verifier's own, or chain to a root that the verifier trusts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from crypto.certificates import nokkel_id
from crypto.trust import Trust
from kvittering.chain import connect, verify_ledd
from schemas.errors import MeldingsformidlerError
from schemas.kvittering import AVVIST

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptography import x509

    from kvittering.facts import Ledd
    from schemas.names import Sha256

SIGNATUR: Final = "signatur"
ROT: Final = "rot"
KJEDE: Final = "kjede"
UTSTEDER: Final = "samme utsteder"
SOKNAD: Final = "samme søknad"
PAKKE: Final = "pakke"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was checked; ``detalj`` says why it does not hold, or what to know although it does."""

    navn: str
    holder: bool
    detalj: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found about one kvittering.

    Attributes:
        ledd: The kvittering; None when its signature does not hold, for then nothing in it is known.
        kontroller: Every check, in order.
    """

    ledd: Ledd | None
    kontroller: tuple[Check, ...]

    @property
    def holder(self) -> bool:
        """Whether everything holds."""
        return all(check.holder for check in self.kontroller)


@dataclass(frozen=True, slots=True)
class Report:
    """What was found about a whole chain, by number; those that cannot be read come first."""

    funn: tuple[Finding, ...]
    felles: tuple[Check, ...] = field(default=())

    @property
    def holder(self) -> bool:
        """Whether there is a chain, and everything in it holds."""
        return bool(self.funn) and all(one.holder for one in self.funn) and all(one.holder for one in self.felles)


def verify_chain(
    tokens: Sequence[str],
    certificates: Sequence[x509.Certificate],
    *,
    roots: Sequence[x509.Certificate] = (),
    package: Sha256 | None = None,
) -> Report:
    """Return what holds of a chain.

    Args:
        tokens: Compact JWSs in any order; the same one twice counts once.
        certificates: Those that may have signed.
        roots: When given, each signer's certificate must chain to one of them.
        package: When given, digest of the package that the kvitteringer should be about.
    """
    unread: list[Finding] = []
    links: list[Ledd] = []
    for token in dict.fromkeys(tokens):
        try:
            links.append(verify_ledd(token, certificates))
        except MeldingsformidlerError as error:
            unread.append(Finding(None, (Check(SIGNATUR, holder=False, detalj=str(error)),)))
    links.sort(key=lambda ledd: ledd.claims.nr)
    broken = _chain_problems(links)
    trust = Trust(roots=roots) if roots else None
    signers = {str(nokkel_id(one)): one for one in certificates}
    found = [
        Finding(
            ledd,
            (
                Check(SIGNATUR, holder=True),
                *_check_root(ledd, signers, trust),
                Check(KJEDE, holder=ledd.digest not in broken, detalj=broken.get(ledd.digest, "")),
                *_check_same(ledd, links[0]),
                *_check_package(ledd, links, package),
            ),
        )
        for ledd in links
    ]
    return Report((*unread, *found), _check_any_package(links, package))


def _chain_problems(links: Sequence[Ledd]) -> dict[str, str]:
    chains = connect(links)
    problems = {str(ledd.digest): "et tidligere ledd mangler" for ledd in chains.waiting}
    return problems | {str(digest): str(error) for digest, error in chains.broken.items()}


def _check_root(ledd: Ledd, signers: dict[str, x509.Certificate], trust: Trust | None) -> tuple[Check, ...]:
    if trust is None:
        return ()
    trusted = trust.accepts(signers[ledd.nokkel_id], (), ledd.claims.tidspunkt)
    return (Check(ROT, holder=trusted, detalj="" if trusted else "sertifikatet kjeder ikke til en oppgitt rot"),)


def _check_same(ledd: Ledd, first: Ledd) -> tuple[Check, ...]:
    one, other = ledd.claims, first.claims
    same_issuer = (one.utsteder, one.kommunenummer) == (other.utsteder, other.kommunenummer)
    same_soknad = one.digisos_id == other.digisos_id
    return (
        Check(UTSTEDER, holder=same_issuer, detalj="" if same_issuer else "en annen utsteder enn det første leddet"),
        Check(SOKNAD, holder=same_soknad, detalj="" if same_soknad else "en annen søknad enn det første leddet"),
    )


def _check_package(ledd: Ledd, links: Sequence[Ledd], package: Sha256 | None) -> tuple[Check, ...]:
    """Check the digest of every kvittering for a message that some kvittering says the package belongs to."""
    if package is None:
        return ()
    of_package = {one.claims.melding_id for one in links if one.claims.sha256 == package}
    claims = ledd.claims
    if claims.melding_id not in of_package:
        return ()
    if claims.sha256 == package:
        return (Check(PAKKE, holder=True),)
    if claims.status == AVVIST:
        return (Check(PAKKE, holder=True, detalj="avviste andre byte enn pakken"),)
    return (Check(PAKKE, holder=False, detalj="kvitterer for andre byte enn pakken"),)


def _check_any_package(links: Sequence[Ledd], package: Sha256 | None) -> tuple[Check, ...]:
    if package is None:
        return ()
    named = any(ledd.claims.sha256 == package and ledd.claims.status != AVVIST for ledd in links)
    return (Check(PAKKE, holder=named, detalj="" if named else "ingen kvittering er for denne pakken"),)
