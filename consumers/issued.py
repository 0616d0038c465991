"""A kvittering as it was issued, and what a søknad's chain of them says about its key. Values and rules, no IO.

Rules:

1. A melding is *undelivered* while it was dead-lettered, and neither answered by the fagsystem nor withdrawn since.
2. A key is dead while one of its meldinger is undelivered, or its søknad itself was withdrawn: what comes later must not go past.
   The søknad is the melding that the chain answers first.
3. What is redriven goes only if nothing before it is undelivered. "Before" is the order in which the chain answered first:
   that of the topic.
4. A record that nobody could read holds up what comes, but not for ever: once something after it was redriven and answered, an
   operator has decided that nothing is missing.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from schemas.errors import WithdrawnError
from schemas.kvittering import AVVIST, GRAD_INGEN, LEVERT, KvitteringClaims
from schemas.names import DigisosId, Kommunenummer, MeldingId, Sha256, Uuid

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True, slots=True)
class Issued:
    """A kvittering as it was signed. Its ``jws`` never changes."""

    kvittering_id: Uuid
    kommunenummer: Kommunenummer
    digisos_id: DigisosId
    nr: int
    melding_id: MeldingId | None
    sha256: Sha256
    status: str
    grad: str
    jws: str
    kode: str | None = None

    @classmethod
    def of(cls, claims: KvitteringClaims, jws: str) -> Self:
        """Return the kvittering with these claims."""
        return cls(
            claims.kvittering_id,
            claims.kommunenummer,
            claims.digisos_id,
            claims.nr,
            claims.melding_id,
            claims.sha256,
            claims.status,
            claims.grad,
            jws,
            claims.kode,
        )

    @property
    def is_withdrawn(self) -> bool:
        """Whether it says that the sender withdrew the melding before it was handed over."""
        return self.status == AVVIST and self.grad == GRAD_INGEN and self.kode == WithdrawnError.code

    @property
    def is_dead_letter(self) -> bool:
        """Whether it says that we gave up, and not that the fagsystem answered or the sender withdrew it."""
        return self.status == AVVIST and self.grad == GRAD_INGEN and not self.is_withdrawn

    @property
    def is_from_fagsystem(self) -> bool:
        """Whether it is the fagsystem's own answer."""
        return not self.is_withdrawn and not self.is_dead_letter

    @property
    def is_final(self) -> bool:
        """Whether the last word about the melding has been said."""
        return self.status != LEVERT and not self.is_dead_letter

    def says_the_same_as(self, other: Issued) -> bool:
        """Whether both give the same answer for the same melding, wherever they stand in a chain."""
        mine = (self.melding_id, self.status, self.grad, self.kode)
        return mine == (other.melding_id, other.status, other.grad, other.kode)

    def row(self) -> tuple[str | int | None, ...]:
        """Return the values of the columns."""
        return (
            self.kvittering_id,
            self.kommunenummer,
            self.digisos_id,
            self.nr,
            self.melding_id,
            self.sha256,
            self.status,
            self.grad,
            self.jws,
            self.kode,
        )


Sign = Callable[[int, Sha256 | None], tuple[KvitteringClaims, str]]
"""Makes a kvittering from its number in the chain and the digest of the former one."""

Unless = tuple[MeldingId, Callable[[Issued], bool]]
"""A melding, and what tells that it needs no further kvittering."""


def claims_of(jws: str) -> KvitteringClaims:
    """Return the claims of a JWS of our own, which the local store kept; the signature is not checked again."""
    payload = jws.split(".")[1]
    return KvitteringClaims.from_json(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))


def is_dead(chain: Sequence[Issued]) -> bool:
    """Return whether the key of a søknad is dead (rule 2).

    Args:
        chain: Its kvitteringer in order.
    """
    if all(each.is_from_fagsystem for each in chain):
        return False
    return bool(_undelivered(chain)) or _unreadable(chain) or _withdrawn_soknad(chain) is not None


def is_behind(chain: Sequence[Issued], melding_id: MeldingId, *, past: bool = False) -> bool:
    """Return whether a redriven melding must wait for another one (rule 3).

    Args:
        chain: The søknad's kvitteringer in order.
        melding_id: The melding; one that the chain does not know comes last.
        past: An operator has closed what died before it. A withdrawn søknad still holds it.
    """
    if (withdrawn := _withdrawn_soknad(chain)) is not None:
        return withdrawn != melding_id
    if past:
        return False
    first = _first(chain)
    mine = first.get(melding_id)
    return any(each != melding_id and (mine is None or first[each] < mine) for each in _undelivered(chain))


def _first(chain: Iterable[Issued]) -> dict[MeldingId, int]:
    """Return the number of each melding's first kvittering."""
    found: dict[MeldingId, int] = {}
    for each in chain:
        if each.melding_id is not None:
            found.setdefault(each.melding_id, each.nr)
    return found


def _undelivered(chain: Sequence[Issued]) -> set[MeldingId]:
    settled = {each.melding_id for each in chain if not each.is_dead_letter}
    return {
        each.melding_id
        for each in chain
        if each.melding_id is not None and each.is_dead_letter and each.melding_id not in settled
    }


def _unreadable(chain: Sequence[Issued]) -> bool:
    """Whether a record that nobody could read still holds up its key (rule 4)."""
    unreadable: dict[Sha256, int] = {}
    for each in chain:
        if each.melding_id is None:
            unreadable.setdefault(each.sha256, each.nr)
    if not unreadable:
        return False
    last = max(unreadable.values())
    first = _first(chain)
    answered = {each.melding_id for each in chain if each.melding_id is not None and each.is_from_fagsystem}
    return not any(first[each] > last for each in answered)


def _withdrawn_soknad(chain: Sequence[Issued]) -> MeldingId | None:
    """Return the søknad itself, if it was withdrawn."""
    soknad = next((each.melding_id for each in chain if each.melding_id is not None), None)
    withdrawn = any(each.is_withdrawn and each.melding_id == soknad for each in chain)
    return soknad if withdrawn else None
