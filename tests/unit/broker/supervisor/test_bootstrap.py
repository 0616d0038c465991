from __future__ import annotations

import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from broker.katalog import load_katalog
from broker.supervisor.bootstrap import DEFAULT_KOMMUNER, bootstrap, check_kommuner, choose_connectors, complete
from broker.supervisor.layout import Layout
from crypto import load_certificate, load_private_key
from crypto.certificates import judge_recipient
from schemas.errors import ConfigurationError
from schemas.names import Kommunenummer

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
KOMMUNER = tuple(Kommunenummer(number) for number in ("0301", "4601", "5001"))


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    return bootstrap(tmp_path_factory.mktemp("oppsett") / "data", choose_connectors(KOMMUNER), NOW)


def test_kommuner_are_shared_between_two_vendors_with_different_connectors() -> None:
    chosen = choose_connectors(DEFAULT_KOMMUNER)
    assert {setup.type for setup in chosen.values()} == {"http", "filedrop"}
    shared = [number for setup in chosen.values() for number in setup.kommuner]
    assert sorted(shared) == sorted(DEFAULT_KOMMUNER)


def test_one_kommune_needs_one_connector() -> None:
    assert [setup.type for setup in choose_connectors(KOMMUNER[:1]).values()] == ["http"]


@pytest.mark.parametrize("numbers", [(), ("0301", "0301"), ("9999",), ("0301", "1601")])
def test_a_list_that_cannot_be_set_up_is_refused(numbers: tuple[str, ...]) -> None:
    with pytest.raises(ConfigurationError):
        check_kommuner([Kommunenummer(number) for number in numbers])


def test_the_katalog_that_is_written_is_one_that_can_be_read(layout: Layout) -> None:
    katalog = load_katalog(layout.katalog)
    assert [entry.kommunenummer for entry in katalog.all()] == sorted(KOMMUNER)
    for number in KOMMUNER:
        judge_recipient(katalog.recipient(number, NOW), NOW)
        assert katalog.signers(number)
    oslo = katalog.get(KOMMUNER[0])
    assert oslo is not None
    assert len(oslo.enheter) >= 15


def test_every_private_key_is_for_its_owner_alone(layout: Layout) -> None:
    keys = [path for path in (layout.folder / "nokler").iterdir() if path.suffix != ".pem"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in keys} == {0o600}
    assert len(layout.eier_key.read_text("ascii")) == 64
    assert len(layout.kopi_key.read_text("ascii")) == 64


def test_a_set_up_of_an_older_version_gets_what_it_lacks_and_keeps_what_it_has(layout: Layout) -> None:
    before = layout.kopi_key.read_bytes()
    complete(layout)
    assert layout.kopi_key.read_bytes() == before
    layout.kopi_key.unlink()
    complete(layout)
    assert len(layout.kopi_key.read_text("ascii")) == 64
    assert layout.kopi_key.read_bytes() != before
    assert stat.S_IMODE(layout.kopi_key.stat().st_mode) == 0o600


def test_keys_are_of_the_kind_that_their_use_needs(layout: Layout) -> None:
    for name in ("mottak", "innsyn", "kommune-0301"):
        key = load_private_key(layout.key(name))
        assert isinstance(key, RSAPrivateKey)
        assert key.key_size == 3072
    for name in ("avsender", "utsteder", *(f"konnektor-{name}" for name in layout.setup.konnektorer)):
        assert isinstance(load_private_key(layout.key(name)), EllipticCurvePrivateKey), name


def test_a_key_belongs_to_its_certificate_and_the_ca_to_nobody(layout: Layout) -> None:
    for name in ("mottak", "avsender", "kommune-4601"):
        assert (
            load_private_key(layout.key(name)).public_key() == load_certificate(layout.certificate(name)).public_key()
        )
    assert not layout.key("ca").exists()


def test_a_set_up_that_was_interrupted_is_made_again_from_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("broker.supervisor.bootstrap.write_katalog", interrupted)
        with pytest.raises(KeyboardInterrupt):
            bootstrap(tmp_path, choose_connectors(KOMMUNER[:1]), NOW)
    assert not Layout.exists(tmp_path)
    again = bootstrap(tmp_path, choose_connectors(KOMMUNER[:1]), NOW)
    assert Layout.load(tmp_path).setup == again.setup
    assert load_katalog(again.katalog).get(KOMMUNER[0]) is not None
