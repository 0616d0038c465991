from __future__ import annotations

import pytest

from consumers.issued import Issued, is_behind, is_dead
from schemas.errors import WithdrawnError
from schemas.kvittering import AVVIST, GRAD_INGEN, GRAD_LAGRET, GRAD_VALIDERT, LEVERT, MOTTATT
from schemas.names import DigisosId, Kommunenummer, MeldingId, Sha256, Uuid

NUMBER = Kommunenummer("4601")
CASE = DigisosId.new()
A, B, C = (MeldingId(f"0000000{n}-0000-4000-8000-000000000000") for n in (1, 2, 3))

DEAD = (AVVIST, GRAD_INGEN, "krypto.apning")
WITHDRAWN = (AVVIST, GRAD_INGEN, WithdrawnError.code)
REFUSED = (AVVIST, GRAD_VALIDERT, "demo.nei")
STORED = (MOTTATT, GRAD_LAGRET, None)
TAKEN = (LEVERT, GRAD_VALIDERT, None)


def chain(*links: tuple[MeldingId | None, tuple[str, str, str | None]]) -> list[Issued]:
    return [
        Issued(Uuid.new(), NUMBER, CASE, nr, melding, Sha256.of(b"x"), status, grad, f"jws{nr}", kode)
        for nr, (melding, (status, grad, kode)) in enumerate(links, 1)
    ]


@pytest.mark.parametrize(
    ("said", "dead", "withdrawn", "fagsystem", "final"),
    [
        (DEAD, True, False, False, False),
        (WITHDRAWN, False, True, False, True),
        (REFUSED, False, False, True, True),
        (TAKEN, False, False, True, False),
        (STORED, False, False, True, True),
    ],
)
def test_what_a_kvittering_says_about_its_melding(
    said: tuple[str, str, str | None],
    dead: bool,  # noqa: FBT001 - a table
    withdrawn: bool,  # noqa: FBT001 - a table
    fagsystem: bool,  # noqa: FBT001 - a table
    final: bool,  # noqa: FBT001 - a table
) -> None:
    (one,) = chain((A, said))
    assert (one.is_dead_letter, one.is_withdrawn, one.is_from_fagsystem, one.is_final) == (
        dead,
        withdrawn,
        fagsystem,
        final,
    )


@pytest.mark.parametrize(
    ("links", "dead"),
    [
        ([], False),
        ([(A, STORED)], False),
        ([(A, REFUSED)], False),
        ([(A, DEAD)], True),
        ([(A, DEAD), (B, DEAD), (A, STORED)], True),
        ([(A, DEAD), (B, DEAD), (A, STORED), (B, STORED)], False),
        ([(A, DEAD), (B, DEAD), (A, STORED), (B, WITHDRAWN)], False),
        ([(A, STORED), (A, DEAD)], False),  # a tampered copy of something delivered
        ([(A, STORED), (B, WITHDRAWN)], False),
        ([(A, WITHDRAWN)], True),
        ([(A, DEAD), (A, WITHDRAWN)], True),
        ([(None, DEAD)], True),
        ([(A, TAKEN), (None, DEAD), (A, STORED)], True),  # a later answer to what came before it
        ([(A, STORED), (None, DEAD), (B, DEAD), (B, STORED)], False),
        ([(A, STORED), (None, DEAD), (B, DEAD), (None, DEAD), (B, STORED)], False),  # the same record again
    ],
)
def test_when_a_key_is_dead(links: list[tuple[MeldingId | None, tuple[str, str, str | None]]], dead: bool) -> None:  # noqa: FBT001 - a table
    assert is_dead(chain(*links)) is dead


@pytest.mark.parametrize(
    ("links", "melding", "behind"),
    [
        ([(A, DEAD)], A, False),
        ([(A, DEAD), (B, DEAD)], A, False),
        ([(A, DEAD), (B, DEAD)], B, True),
        ([(A, DEAD), (B, DEAD), (A, DEAD)], B, True),
        ([(A, DEAD), (B, DEAD), (A, STORED)], B, False),
        ([(A, DEAD), (B, DEAD), (C, DEAD), (A, STORED)], C, True),
        ([(A, DEAD), (B, DEAD), (C, DEAD), (A, STORED), (B, WITHDRAWN)], C, False),
        ([(A, DEAD)], C, True),  # one that the chain does not know comes last
        ([(A, STORED)], C, False),
        ([(None, DEAD), (B, DEAD)], B, False),  # nobody knows what was there; who redrives B decides
        ([(A, WITHDRAWN), (B, DEAD)], B, True),
        ([(A, WITHDRAWN)], A, False),
    ],
)
def test_what_is_redriven_waits_for_what_came_before_it(
    links: list[tuple[MeldingId | None, tuple[str, str, str | None]]],
    melding: MeldingId,
    behind: bool,  # noqa: FBT001 - a table
) -> None:
    assert is_behind(chain(*links), melding) is behind


def test_what_an_operator_has_closed_holds_nobody_but_a_withdrawn_soknad_does() -> None:
    assert not is_behind(chain((A, DEAD), (B, DEAD)), B, past=True)
    assert is_behind(chain((A, WITHDRAWN), (B, DEAD)), B, past=True)
