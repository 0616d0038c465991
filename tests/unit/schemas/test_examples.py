from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta, timezone
from random import Random
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.digisos_soker_json import TildeltNavKontor, check_first, parse_digisos_soker
from schemas.examples import (
    ETTERNAVN,
    FORNAVN,
    Kind,
    make_digisos_soker,
    make_soknad,
    make_vedlegg,
    synthetic_fodselsnummer,
    synthetic_navn,
)
from schemas.soknad_json import parse_soknad
from schemas.vedlegg_json import parse_vedlegg

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
KINDS: tuple[Kind, ...] = get_args(Kind)

seeds = st.integers(0, 2**32)


@given(seeds, st.sampled_from(KINDS))
def test_a_seed_gives_the_same_bytes_and_they_follow_the_format(seed: int, kind: Kind) -> None:
    data = make_soknad(Random(seed), kind=kind, now=NOW)

    assert data == make_soknad(Random(seed), kind=kind, now=NOW)
    assert json.loads(parse_soknad(data).to_json()) == json.loads(data)


@given(seeds)
def test_kinds_are_what_they_say(seed: int) -> None:
    kort, standard, nodhjelp = (parse_soknad(make_soknad(Random(seed), kind=kind)) for kind in KINDS)

    assert (kort.soknadstype(), standard.soknadstype(), nodhjelp.soknadstype()) == ("kort", "standard", "standard")
    assert (kort.hastegrad(), standard.hastegrad(), nodhjelp.hastegrad()) == ("VANLIG", "VANLIG", "NODHJELP")
    assert kort.data.situasjonendring
    assert standard.data.situasjonendring is None


@pytest.mark.parametrize(
    ("kind", "least", "most"), [("kort", 2000, 4000), ("standard", 6000, 9000), ("nodhjelp", 6000, 9000)]
)
def test_sizes_are_like_real_ones(kind: Kind, least: int, most: int) -> None:
    assert all(least < len(make_soknad(Random(seed), kind=kind)) < most for seed in range(50))


def test_what_is_given_is_used() -> None:
    soknad = parse_soknad(
        make_soknad(
            Random(1),
            fodselsnummer="01810000000",
            kommunenummer="4601",
            enhetsnummer="1202",
            navn="Kari Anne Prøvesteinvik",
            now=datetime(2026, 3, 1, 13, 0, 0, 250_000, tzinfo=timezone(timedelta(hours=1))),
        )
    )

    assert (soknad.person(), soknad.kommunenummer(), soknad.enhetsnummer()) == ("01810000000", "4601", "1202")
    assert soknad.data.personalia.navn.fornavn == "Kari Anne"
    assert soknad.data.personalia.navn.etternavn == "Prøvesteinvik"
    assert soknad.innsendingstidspunkt == "2026-03-01T12:00:00.250Z"


@given(seeds)
def test_synthetic_fodselsnummer_hit_no_real_person(seed: int) -> None:
    number = synthetic_fodselsnummer(Random(seed))

    assert re.fullmatch("[0-9]{11}", number)
    assert 81 <= int(number[2:4]) <= 92
    assert 1 <= int(number[:2]) <= 28
    # Skatteetaten's two sums, control digits included, are both divisible by 11.
    for weights in ((3, 7, 6, 1, 8, 9, 4, 5, 2, 1), (5, 4, 3, 2, 7, 6, 5, 4, 3, 2, 1)):
        assert sum(w * int(d) for w, d in zip(weights, number, strict=False)) % 11 == 0


def test_many_fodselsnummer_are_many() -> None:
    rng = Random(1)

    assert len({synthetic_fodselsnummer(rng) for _ in range(2000)}) > 1990


def test_names_are_distinct_and_long_enough_to_search_for() -> None:
    names = [*FORNAVN, *ETTERNAVN]

    assert len(set(names)) == len(names)
    assert all(len(name) >= 8 for name in names)
    assert not [(a, b) for a in names for b in names if a != b and a in b]
    assert synthetic_navn(Random(1)).split(" ")[1] in ETTERNAVN


def test_files_of_one_vedlegg_are_gathered_and_expected() -> None:
    files = [
        ("kontooversikt", "brukskonto", "side1.png", "aa"),
        ("kontooversikt", "brukskonto", "side2.png", None),
        ("faktura", "strom", "strom.pdf", "bb"),
    ]

    parsed = parse_vedlegg(make_vedlegg(files))

    assert parsed.vedlegg
    assert [(v.type, v.status, v.hendelse_type) for v in parsed.vedlegg] == [
        ("kontooversikt", "LastetOpp", "soknad"),
        ("faktura", "LastetOpp", "soknad"),
    ]
    assert parsed.expected_files() == (("side1.png", "aa"), ("side2.png", None), ("strom.pdf", "bb"))


def test_no_files_are_an_empty_vedlegg_json() -> None:
    assert make_vedlegg([]) == b'{"vedlegg":[]}'


def test_other_statuses_can_be_made() -> None:
    assert parse_vedlegg(make_vedlegg([("annet", "annet", "a", None)], status="VedleggKreves")).expected_files() == ()


def test_a_first_innsynsfil_is_valid_and_says_mottatt() -> None:
    document = parse_digisos_soker(make_digisos_soker(now=NOW))

    check_first(document)
    assert document.hendelser[0].hendelsestidspunkt == "2026-03-01T12:00:00.000Z"


def test_statuses_follow_each_other_up_to_now() -> None:
    document = parse_digisos_soker(
        make_digisos_soker(
            ["MOTTATT", "UNDER_BEHANDLING", "FERDIGBEHANDLET"], now=NOW, nav_kontor="0314", systemnavn="Prøvesystem"
        )
    )

    assert document.in_order() == document.hendelser
    assert document.latest_status() == "FERDIGBEHANDLET"
    assert document.hendelser[-1].hendelsestidspunkt == "2026-03-01T12:00:00.000Z"
    assert isinstance(document.hendelser[1], TildeltNavKontor)
    assert document.avsender.systemnavn == "Prøvesystem"
