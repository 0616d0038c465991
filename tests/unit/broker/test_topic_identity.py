from __future__ import annotations

import pytest

from broker.topic_identity import ACCEPT_COMMAND, TopicIdentity, Verdict, explain, judge

TOPIC = "fiks.0301.soknad.v1"
KNOWN = TopicIdentity("Zx1", 2)


@pytest.mark.parametrize(
    ("expected", "seen", "agreed", "verdict"),
    [
        (KNOWN, KNOWN, 2, Verdict.SAME),
        (KNOWN, KNOWN, None, Verdict.SAME),
        (None, KNOWN, None, Verdict.NEW),
        (None, KNOWN, 2, Verdict.NEW),
        (None, None, 2, Verdict.MISSING),
        (KNOWN, None, 2, Verdict.MISSING),
        (KNOWN, TopicIdentity("Ny", 2), 2, Verdict.RECREATED),
        (KNOWN, TopicIdentity("Ny", 3), 2, Verdict.RECREATED),  # all is gone: the worse of the two is told
        (KNOWN, TopicIdentity("Zx1", 3), None, Verdict.REPARTITIONED),
        (KNOWN, TopicIdentity("Zx1", 2), 4, Verdict.REPARTITIONED),  # the katalog says something else
        (None, TopicIdentity("Zx1", 3), 2, Verdict.REPARTITIONED),
    ],
)
def test_a_topic_is_judged_by_its_id_and_its_partitions(
    expected: TopicIdentity | None, seen: TopicIdentity | None, agreed: int | None, verdict: Verdict
) -> None:
    assert judge(expected, seen, agreed=agreed) is verdict


@pytest.mark.parametrize(("before", "after"), [(None, "Ny"), ("Zx1", None), (None, None)])
def test_a_cluster_that_gives_no_ids_is_judged_by_partitions_alone(before: str | None, after: str | None) -> None:
    assert judge(TopicIdentity(before, 2), TopicIdentity(after, 2)) is Verdict.SAME
    assert judge(TopicIdentity(before, 2), TopicIdentity(after, 3)) is Verdict.REPARTITIONED


def test_only_what_is_as_it_was_may_go_on() -> None:
    assert {verdict for verdict in Verdict if verdict.harmless} == {Verdict.SAME, Verdict.NEW}


@pytest.mark.parametrize("verdict", [Verdict.RECREATED, Verdict.REPARTITIONED])
def test_what_a_person_must_decide_names_the_topic_and_the_command(verdict: Verdict) -> None:
    text = explain(verdict, TOPIC, KNOWN, TopicIdentity("Ny", 3))
    assert TOPIC in text
    assert f"{ACCEPT_COMMAND} {TOPIC}" in text


def test_another_number_of_partitions_is_told_with_both_numbers() -> None:
    assert "3 partisjoner, ikke 2" in explain(Verdict.REPARTITIONED, TOPIC, KNOWN, TopicIdentity("Zx1", 3))


def test_a_missing_topic_is_told_as_missing() -> None:
    assert "finnes ikke" in explain(Verdict.MISSING, TOPIC, KNOWN, None)
