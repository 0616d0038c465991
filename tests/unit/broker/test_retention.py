from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from broker.record import Incoming
from broker.retention import Cutoff, RetentionSettings, cutoffs, own_time
from broker.routing import KATALOG, STATUS, Retention, TopicSpec, central_topics, kommune_topics
from broker.settings import load_settings
from schemas.errors import ConfigurationError
from schemas.names import Kommunenummer

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
APPENDED = datetime(2026, 11, 20, 8, tzinfo=UTC)
OSLO = Kommunenummer("0301")


def record(*headers: tuple[str, bytes]) -> Incoming:
    return Incoming("fiks.0301.soknad.v1", 0, 7, int(APPENDED.timestamp() * 1000), b"k", b"v", headers)


def test_soknader_are_kept_for_ninety_days_and_kvitteringer_for_sixteen_months() -> None:
    found = {cutoff.topic: NOW - cutoff.before for cutoff in cutoffs(kommune_topics(OSLO), NOW)}
    assert found == {
        "fiks.0301.soknad.v1": timedelta(days=90),
        "fiks.0301.kvittering.v1": timedelta(days=496),
        "fiks.0301.hendelse.v1": timedelta(days=496),
    }


def test_compacted_topics_and_dead_letters_have_no_age() -> None:
    named = {cutoff.topic for cutoff in cutoffs([*kommune_topics(OSLO), *central_topics()], NOW)}
    assert named.isdisjoint({KATALOG, STATUS, "fiks.0301.soknad.v1.dlq"})


def test_a_topic_that_is_compacted_and_has_a_time_is_left_alone() -> None:
    both = TopicSpec("fiks.status.v1", 1, {"cleanup.policy": "compact,delete", "retention.ms": "1000"})
    assert cutoffs([both], NOW) == ()


def test_the_setting_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORMIDLER_OPPBEVARING_SOKNAD", "30d")
    retention = load_settings(RetentionSettings).retention()
    assert retention == Retention(soknad=timedelta(days=30))
    assert Cutoff("fiks.0301.soknad.v1", NOW - timedelta(days=30), NOW) in cutoffs(
        kommune_topics(OSLO, 2, retention), NOW
    )


def test_a_setting_that_is_no_duration_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORMIDLER_OPPBEVARING_SOKNAD", "lenge")
    with pytest.raises(ConfigurationError, match=r"FORMIDLER_OPPBEVARING_SOKNAD: .*varighet"):
        load_settings(RetentionSettings)


def test_a_record_from_virtual_time_is_as_old_as_it_says() -> None:
    assert own_time(record(("ce_time", b"2026-11-22T12:00:00.000Z")), NOW) == datetime(2026, 11, 22, 12, tzinfo=UTC)


def test_a_false_old_time_makes_no_record_old() -> None:
    assert own_time(record(("ce_time", b"1999-01-01T00:00:00.000Z")), NOW) == APPENDED


def test_a_time_that_lies_ahead_keeps_no_record_young() -> None:
    assert own_time(record(("ce_time", b"9998-01-01T00:00:00.000Z")), NOW) == APPENDED


@pytest.mark.parametrize("said", [b"", b"i gaar", b"2026-12-24T12:00:00", b"\xff", b"9999-12-31T23:59:59-23:59"])
def test_a_time_that_is_none_counts_for_nothing(said: bytes) -> None:
    assert own_time(record(("ce_time", said)), NOW) == APPENDED
    assert own_time(record(), NOW) == APPENDED
