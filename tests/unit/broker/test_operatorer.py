from __future__ import annotations

import stat
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from broker.operator_register import Register
from broker.operatorer import Operatorer, operator_name
from broker.revisjon_records import SIGNATURE_TYPE
from crypto.jws import verify_jws
from schemas.errors import ConfigurationError, GovernedActError, KeyFileError


@pytest.fixture
def operatorer(tmp_path: Path) -> Operatorer:
    return Operatorer(tmp_path / "data")


def test_the_first_act_on_a_new_folder_is_the_os_users(
    operatorer: Operatorer, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGNAME", "Åse.Berg")
    operator = operatorer.choose(None, now)
    assert operator.navn == "se-berg"
    assert operator.aktor == "operator-se-berg"
    assert operatorer.choose(None, now).certificate == operator.certificate
    assert [one.navn for one in operatorer.load().operatorer] == ["se-berg"]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("kari", "kari"),
        ("Kari Nordmann", "kari-nordmann"),
        ("1kari", "kari"),
        ("", "operator"),
        ("æøå", "operator"),
        ("x" * 40, "x" * 32),
    ],
)
def test_any_user_name_becomes_an_operators_name(text: str, name: str) -> None:
    assert operator_name(text) == name


def test_a_key_is_its_owners_alone_and_never_in_the_register(operatorer: Operatorer, now: datetime) -> None:
    operatorer.add("kari", now)
    assert stat.S_IMODE(operatorer.key_path("kari").stat().st_mode) == 0o600
    assert stat.S_IMODE(operatorer.path.stat().st_mode) == 0o600
    assert "PRIVATE" not in operatorer.path.read_text()


def test_an_operators_signature_is_verified_by_its_certificate(operatorer: Operatorer, now: datetime) -> None:
    operatorer.add("kari", now)
    token = operatorer.choose("kari", now).sign(b"{}")
    entry = operatorer.load().get("kari")
    assert entry is not None
    assert verify_jws(token, [entry.certificate], typ=SIGNATURE_TYPE)[0] == b"{}"


def test_who_has_several_keys_must_say_who_they_are(operatorer: Operatorer, now: datetime) -> None:
    operatorer.add("kari", now)
    operatorer.add("ola", now)
    with pytest.raises(GovernedActError, match="kari, ola"):
        operatorer.choose(None, now)
    assert operatorer.choose("ola", now).navn == "ola"


def test_a_name_is_used_once_also_after_it_was_taken_out(operatorer: Operatorer, now: datetime) -> None:
    operatorer.add("kari", now)
    with pytest.raises(GovernedActError):
        operatorer.add("kari", now)
    operatorer.remove("kari", now)
    with pytest.raises(GovernedActError):
        operatorer.add("kari", now)


def test_a_removed_operator_acts_no_more_but_earlier_signatures_count(operatorer: Operatorer, now: datetime) -> None:
    operatorer.add("kari", now)
    operatorer.remove("kari", now + timedelta(days=1))
    entry = operatorer.load().get("kari")
    assert entry is not None
    assert entry.is_active(now)
    assert not entry.is_active(now + timedelta(days=1))
    assert not operatorer.key_path("kari").exists()
    with pytest.raises(GovernedActError, match="ikke en operatør"):
        operatorer.choose("kari", now + timedelta(days=2))
    with pytest.raises(GovernedActError):
        operatorer.remove("kari", now)


def test_somebody_elses_key_stays_where_it_is(operatorer: Operatorer, now: datetime, tmp_path: Path) -> None:
    elsewhere = Operatorer(tmp_path / "annen")
    pem = elsewhere.add("ola", now).sertifikat
    operatorer.add("ola", now, certificate_pem=pem)
    assert not operatorer.key_path("ola").exists()
    with pytest.raises(GovernedActError, match="ikke på denne maskinen"):
        operatorer.choose("ola", now)
    with pytest.raises(GovernedActError, match="ingen operatør har nøkkel"):
        operatorer.choose(None, now)


def test_one_key_is_never_two_operators(operatorer: Operatorer, now: datetime) -> None:
    pem = operatorer.add("kari", now).sertifikat
    with pytest.raises(GovernedActError, match="dele nøkkel"):
        operatorer.add("ola", now, certificate_pem=pem)


def test_a_certificate_of_another_kind_is_refused(operatorer: Operatorer, now: datetime, issue: Any) -> None:
    rsa, _ = issue("kryptering")
    from crypto import certificate_pem  # noqa: PLC0415 - only here

    with pytest.raises(ConfigurationError, match="P-256"):
        operatorer.add("ola", now, certificate_pem=certificate_pem(rsa).decode())
    with pytest.raises(ConfigurationError):
        operatorer.add("ola", now, certificate_pem="tull")
    with pytest.raises(ConfigurationError):
        operatorer.add("Ola!", now)
    assert operatorer.load() == Register()


def test_a_key_that_others_can_read_or_that_is_anothers_is_refused(operatorer: Operatorer, now: datetime) -> None:
    operatorer.add("kari", now)
    operatorer.add("ola", now)
    operatorer.key_path("kari").write_bytes(operatorer.key_path("ola").read_bytes())
    with pytest.raises(GovernedActError, match="hører ikke til"):
        operatorer.choose("kari", now)
    operatorer.key_path("ola").chmod(0o644)
    with pytest.raises(KeyFileError):
        operatorer.choose("ola", now)


def test_one_command_at_a_time_acts_as_an_operator(operatorer: Operatorer, now: datetime) -> None:
    kari = operatorer.choose("kari", now) if operatorer.add("kari", now) else None
    ola = operatorer.choose("ola", now) if operatorer.add("ola", now) else None
    assert kari is not None
    assert ola is not None
    with operatorer.acting(kari):
        with pytest.raises(GovernedActError, match="vent"), operatorer.acting(kari):
            pass
        with operatorer.acting(ola):
            pass
    with operatorer.acting(kari):
        pass


def test_settings_are_kept_when_operators_come_and_go(operatorer: Operatorer, now: datetime) -> None:
    operatorer.add("kari", now)
    operatorer.path.write_text(operatorer.path.read_text().replace("grense: 10", "grense: 3"))
    operatorer.add("ola", now)
    assert operatorer.load().grense == 3


@pytest.mark.parametrize("text", ["grense: -1", "operatorer: [{navn: x}]", "- a", "\t: :"])
def test_a_register_that_breaks_a_rule_says_where(operatorer: Operatorer, text: str) -> None:
    operatorer.path.parent.mkdir()
    operatorer.path.write_text(text)
    with pytest.raises(ConfigurationError, match=r"operatorer\.yaml"):
        operatorer.load()
