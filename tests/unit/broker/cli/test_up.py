from __future__ import annotations

from pathlib import Path

import pytest

from broker.cli.up import external_kafka, open_layout
from broker.supervisor.bootstrap import DEFAULT_KOMMUNER
from schemas.errors import ConfigurationError, InvalidNameError


def silent(_: str) -> None:
    return None


def test_the_first_up_makes_a_set_up_and_the_next_finds_it(tmp_path: Path) -> None:
    first = open_layout(tmp_path / "data", "0301, 4601", silent)
    assert first.setup.kommuner() == ("0301", "4601")
    assert open_layout(tmp_path / "data", None, silent).setup == first.setup
    assert open_layout(tmp_path / "data", "4601,0301", silent).setup == first.setup


def test_it_says_that_it_makes_a_set_up_and_nothing_when_there_is_one(tmp_path: Path) -> None:
    said: list[str] = []
    open_layout(tmp_path / "data", "0301", said.append)
    open_layout(tmp_path / "data", "0301", said.append)
    assert said == [f"lager nytt oppsett i {tmp_path / 'data'}"]


def test_other_kommuner_than_the_set_up_has_are_refused(tmp_path: Path) -> None:
    open_layout(tmp_path / "data", "0301", silent)
    with pytest.raises(ConfigurationError, match="--data"):
        open_layout(tmp_path / "data", "4601", silent)


def test_without_a_choice_there_are_six(tmp_path: Path) -> None:
    assert open_layout(tmp_path / "data", None, silent).setup.kommuner() == tuple(sorted(DEFAULT_KOMMUNER))


@pytest.mark.parametrize("asked", ["0301,", "oslo", "0301;4601", " "])
def test_a_list_of_another_form_is_refused_and_nothing_is_made(tmp_path: Path, asked: str) -> None:
    with pytest.raises((InvalidNameError, ConfigurationError)):
        open_layout(tmp_path / "data", asked, silent)
    assert not (tmp_path / "data").exists()


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("FORMIDLER_KAFKA_BOOTSTRAP", "KAFKA_BROKERS"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_without_an_address_the_broker_is_our_own(bare: pytest.MonkeyPatch) -> None:
    _ = bare
    assert external_kafka(None) is None


def test_an_address_names_a_cluster(bare: pytest.MonkeyPatch) -> None:
    _ = bare
    settings = external_kafka("kafka.example:9092")
    assert settings is not None
    assert settings.bootstrap == "kafka.example:9092"


def test_nais_own_variables_name_a_cluster_too(bare: pytest.MonkeyPatch) -> None:
    bare.setenv("KAFKA_BROKERS", "a:1,b:2")
    settings = external_kafka(None)
    assert settings is not None
    assert settings.bootstrap == "a:1,b:2"


def test_the_option_wins_over_the_environment(bare: pytest.MonkeyPatch) -> None:
    bare.setenv("KAFKA_BROKERS", "a:1")
    settings = external_kafka("b:2")
    assert settings is not None
    assert settings.bootstrap == "b:2"
