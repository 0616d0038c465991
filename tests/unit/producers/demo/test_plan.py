from __future__ import annotations

from datetime import UTC, datetime

import pytest

from broker.supervisor.bootstrap import DEFAULT_KOMMUNER
from producers.demo.plan import MARKER, Day, Role, plan_day
from schemas.errors import ConfigurationError
from schemas.names import Kommunenummer
from schemas.soknad_json import parse_soknad
from schemas.vedlegg_json import parse_vedlegg

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


def make_day(seed: int = 1, count: int = 30, kommuner: tuple[Kommunenummer, ...] = DEFAULT_KOMMUNER) -> Day:
    return plan_day(seed, count, kommuner, NOW)


def test_the_same_seed_gives_the_same_bytes() -> None:
    assert make_day(seed=7) == make_day(seed=7)


def test_another_seed_gives_other_people() -> None:
    assert {s.person for s in make_day(seed=1).soknader}.isdisjoint(s.person for s in make_day(seed=2).soknader)


def test_every_part_is_played_and_three_kinds_are_sent_to_every_kommune() -> None:
    day = make_day()
    assert {soknad.role for soknad in day.soknader} == set(Role)
    assert {soknad.kind for soknad in day.soknader} == {"kort", "standard", "vedlegg"}
    assert {soknad.kommunenummer for soknad in day.soknader} == set(DEFAULT_KOMMUNER)


def test_each_kommune_has_one_connector_and_two_kinds_serve() -> None:
    day = make_day()
    served = [number for connector in day.connectors.values() for number in connector.kommuner]
    assert sorted(served) == sorted(DEFAULT_KOMMUNER)
    assert {connector.type for connector in day.connectors.values()} == {"http", "filedrop"}


def test_what_is_sent_keeps_the_formats_rules_and_names_its_attachments() -> None:
    for soknad in make_day().soknader:
        assert parse_soknad(soknad.soknad_json).kommunenummer() == soknad.kommunenummer
        expected = {file.filnavn for file in parse_vedlegg(soknad.vedlegg_json).expected_files()}
        assert expected == {document.filnavn for document in soknad.documents[1:]}


def test_attachments_of_the_large_kind_are_several_mb() -> None:
    large = next(soknad for soknad in make_day().soknader if soknad.kind == "vedlegg")
    assert sum(len(document.data) for document in large.documents) > 3_000_000


def test_every_document_bears_the_marker() -> None:
    assert all(MARKER in document.data for soknad in make_day().soknader for document in soknad.documents)


def test_the_smallest_day_still_has_every_part() -> None:
    day = make_day(count=6, kommuner=DEFAULT_KOMMUNER[:3])
    assert {soknad.role for soknad in day.soknader} == set(Role)
    assert all(connector.kommuner for connector in day.connectors.values())


@pytest.mark.parametrize(("count", "kommuner"), [(5, DEFAULT_KOMMUNER), (30, DEFAULT_KOMMUNER[:2])])
def test_a_day_with_too_little_in_it_is_refused(count: int, kommuner: tuple[Kommunenummer, ...]) -> None:
    with pytest.raises(ConfigurationError, match="minst"):
        make_day(count=count, kommuner=kommuner)
