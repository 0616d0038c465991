from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import pytest
import yaml
from cryptography.hazmat.primitives.serialization import Encoding
from patience import until
from structlog.testing import capture_logs

from broker.katalog import Katalog, KatalogFollower, load_katalog
from broker.record import Incoming
from broker.routing import KATALOG
from crypto.certificates import nokkel_id
from schemas.codec import decode, encode
from schemas.errors import BrokerUnavailableError, CertificateError, ConfigurationError
from schemas.names import Kommunenummer
from schemas.records import BRUK_KVITTERING, KatalogRecord

OSLO, BERGEN = Kommunenummer("0301"), Kommunenummer("4601")


def test_entries_are_found_by_number_and_listed_in_order(make_entry: Any) -> None:
    katalog = Katalog([make_entry("4601"), make_entry("0301")])
    assert [entry.kommunenummer for entry in katalog.all()] == [OSLO, BERGEN]
    assert katalog.get(OSLO) == make_entry("0301")
    assert katalog.get(Kommunenummer("1103")) is None


def test_a_new_entry_takes_the_place_of_the_former(make_entry: Any) -> None:
    katalog = Katalog([make_entry(navn="før")])
    katalog.put(make_entry(navn="etter"))
    assert [entry.navn for entry in katalog.all()] == ["etter"]


def test_a_kommune_can_be_forgotten_twice(make_entry: Any) -> None:
    katalog = Katalog([make_entry()])
    katalog.remove(OSLO)
    katalog.remove(OSLO)
    assert katalog.all() == ()


class TestRecipient:
    def test_it_is_the_certificate_that_became_valid_last(
        self, make_entry: Any, make_sertifikat: Any, issue: Any, now: Any
    ) -> None:
        old, _ = issue("kryptering", start=timedelta(days=-100))
        new, _ = issue("kryptering", start=timedelta(days=-1))
        coming, _ = issue("kryptering", start=timedelta(days=1))
        katalog = Katalog([make_entry(sertifikater=tuple(map(make_sertifikat, (new, coming, old))))])
        assert katalog.recipient(OSLO, now) == new
        assert katalog.recipient(OSLO, now + timedelta(days=2)) == coming

    def test_an_expired_one_is_never_used(self, make_entry: Any, make_sertifikat: Any, issue: Any, now: Any) -> None:
        old, _ = issue("kryptering", start=timedelta(days=-20), days=10)
        katalog = Katalog([make_entry(sertifikater=(make_sertifikat(old),))])
        with pytest.raises(CertificateError, match="0301"):
            katalog.recipient(OSLO, now)

    def test_one_for_signing_is_never_used(self, make_entry: Any, make_sertifikat: Any, issue: Any, now: Any) -> None:
        certificate, _ = issue("kryptering")
        katalog = Katalog([make_entry(sertifikater=(make_sertifikat(certificate, "KVITTERING"),))])
        with pytest.raises(CertificateError):
            katalog.recipient(OSLO, now)

    def test_an_unknown_kommune_has_none(self, now: Any) -> None:
        with pytest.raises(CertificateError):
            Katalog().recipient(OSLO, now)
        assert Katalog().no_recipient(OSLO, now) == "ukjent"

    def test_a_revoked_one_is_never_used_from_that_moment_on(
        self, make_entry: Any, make_sertifikat: Any, issue: Any, now: Any
    ) -> None:
        old, _ = issue("kryptering", start=timedelta(days=-100))
        new, _ = issue("kryptering", start=timedelta(days=-1))
        revoked = make_sertifikat(new).model_copy(update={"tilbakekalt": now})
        katalog = Katalog([make_entry(sertifikater=(make_sertifikat(old), revoked))])

        assert katalog.recipient(OSLO, now - timedelta(milliseconds=1)) == new
        assert katalog.recipient(OSLO, now) == old
        assert katalog.recipient_problem(OSLO, nokkel_id(new), now) == "tilbakekalt"
        assert katalog.recipient_problem(OSLO, nokkel_id(old), now) is None
        assert katalog.no_recipient(OSLO, now) is None

    def test_why_nothing_can_be_sealed_is_what_the_newest_one_says(
        self, make_entry: Any, make_sertifikat: Any, issue: Any, now: Any
    ) -> None:
        expired, _ = issue("kryptering", start=timedelta(days=-20), days=10)
        newer, _ = issue("kryptering", start=timedelta(days=-5))
        revoked = make_sertifikat(newer).model_copy(update={"tilbakekalt": now - timedelta(days=1)})
        coming, _ = issue("kryptering", start=timedelta(days=1))

        def reason(*certificates: Any) -> str | None:
            return Katalog([make_entry(sertifikater=certificates)]).no_recipient(OSLO, now)

        assert reason(make_sertifikat(expired)) == "utlopt"
        assert reason(make_sertifikat(expired), revoked) == "tilbakekalt"
        assert reason(make_sertifikat(expired), make_sertifikat(coming)) == "ikke-gyldig-enna"
        assert reason() == "ukjent"

    def test_one_that_the_katalog_has_no_more_is_unknown(self, make_entry: Any, issue: Any, now: Any) -> None:
        gone, _ = issue("kryptering")
        assert Katalog([make_entry()]).recipient_problem(OSLO, nokkel_id(gone), now) == "ukjent"


def test_the_signers_are_those_of_the_kommune_alone(make_entry: Any, connector_key: Any) -> None:
    katalog = Katalog([make_entry("0301"), make_entry("4601", sertifikater=())])
    assert katalog.signers(OSLO) == (connector_key[0],)
    assert katalog.signers(BERGEN) == ()
    assert katalog.signers(Kommunenummer("1103")) == ()


def test_a_signer_is_found_by_its_fingerprint(make_entry: Any, connector_key: Any, issue: Any) -> None:
    katalog = Katalog([make_entry()])
    entry, certificate = katalog.signer(nokkel_id(connector_key[0]))
    assert (entry.kommunenummer, certificate) == (OSLO, connector_key[0])
    with pytest.raises(CertificateError):
        katalog.signer(nokkel_id(issue("signering")[0]))


def test_an_entry_with_an_unreadable_certificate_changes_nothing(make_entry: Any) -> None:
    katalog = Katalog([make_entry(navn="før")])
    broken = make_entry().sertifikater[0].model_copy(update={"pem": "tull", "nokkel_id": "0" * 64})
    with pytest.raises(ValueError, match="PEM"):
        katalog.put(make_entry(navn="etter", sertifikater=(broken,)))
    assert [entry.navn for entry in katalog.all()] == ["før"]


class FakeTail:
    """A reader of the topic that hands out what the test says, then waits or fails."""

    def __init__(self, *batches: Sequence[Incoming], fails: Exception | None = None) -> None:
        self.caught_up = asyncio.Event()
        self._batches = batches
        self._fails = fails

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    async def __aiter__(self) -> AsyncIterator[Sequence[Incoming]]:
        for batch in self._batches:
            yield batch
        if self._fails:
            raise self._fails
        self.caught_up.set()
        await asyncio.Event().wait()


def incoming(now: Any, key: str, value: bytes | None, offset: int = 0) -> Incoming:
    return Incoming(KATALOG, 0, offset, now, key.encode(), value, ())


@pytest.fixture
async def follow() -> AsyncIterator[Callable[..., Awaitable[tuple[Katalog, KatalogFollower]]]]:
    running: list[asyncio.Task[None]] = []

    async def follow(*tails: FakeTail, katalog: Katalog | None = None) -> tuple[Katalog, KatalogFollower]:
        kept, queue = katalog or Katalog(), list(tails)
        follower = KatalogFollower(kept, lambda: queue.pop(0))  # type: ignore[arg-type,return-value]  # a fake of the same shape
        task = asyncio.create_task(follower.run())
        running.append(task)
        await until(lambda: follower.caught_up.is_set() or task.done())
        return kept, follower

    yield follow
    for task in running:
        task.cancel()
    for outcome in await asyncio.gather(*running, return_exceptions=True):
        assert isinstance(outcome, asyncio.CancelledError), outcome


async def test_the_topic_becomes_the_katalog(follow: Any, make_entry: Any, now: Any) -> None:
    katalog, follower = await follow(
        FakeTail(
            [incoming(now, "0301", encode(make_entry("0301"))), incoming(now, "4601", encode(make_entry("4601")))],
            [incoming(now, "4601", None), incoming(now, "0301", encode(make_entry("0301", navn="ny")))],
        )
    )
    assert [(entry.kommunenummer, entry.navn) for entry in katalog.all()] == [("0301", "ny")]
    assert follower.problem() is None
    assert follower.changed.is_set()


async def test_a_process_is_not_ready_before_all_is_read() -> None:
    follower = KatalogFollower(Katalog(), FakeTail)  # type: ignore[arg-type,return-value]  # a fake of the same shape
    assert follower.problem() is not None


async def test_a_record_that_cannot_be_read_is_told_and_passed_over(follow: Any, make_entry: Any, now: Any) -> None:
    broken = make_entry().sertifikater[0].model_copy(update={"pem": "tull", "nokkel_id": "0" * 64})
    with capture_logs() as logs:
        katalog, _ = await follow(
            FakeTail(
                [
                    incoming(now, "0301", b"tull", 1),
                    incoming(now, "æ", None, 2),
                    incoming(now, "0301", encode(make_entry(sertifikater=(broken,))), 3),
                    incoming(now, "4601", encode(make_entry("4601")), 4),
                ]
            )
        )
    assert [entry.kommunenummer for entry in katalog.all()] == ["4601"]
    assert [line["offset"] for line in logs if line["event"] == "katalog_entry_unreadable"] == [1, 2, 3]


async def test_an_outage_is_waited_out_on_the_last_copy(
    follow: Any, make_entry: Any, now: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.katalog.FIRST_WAIT_S", 0)
    first = FakeTail([incoming(now, "0301", encode(make_entry()))], fails=BrokerUnavailableError("borte"))
    katalog, _ = await follow(first, FakeTail([incoming(now, "4601", encode(make_entry("4601")))]))
    assert [entry.kommunenummer for entry in katalog.all()] == ["0301", "4601"]


@pytest.fixture
def katalog_file(tmp_path: Path, issue: Any, connector_key: Any) -> Callable[..., Path]:
    (tmp_path / "k.pem").write_bytes(issue("kryptering")[0].public_bytes(Encoding.PEM))
    (tmp_path / "s.pem").write_bytes(connector_key[0].public_bytes(Encoding.PEM))
    (tmp_path / "tull.pem").write_text("-----BEGIN CERTIFICATE-----\ntull\n-----END CERTIFICATE-----\n")

    def write(*entries: dict[str, Any]) -> Path:
        common = {
            "kommunenummer": "0301",
            "navn": "Oslo",
            "organisasjonsnummer": "958935420",
            "leverandor": "acme",
            "konnektor": "acme",
            "krypteringssertifikater": ["k.pem"],
            "kvitteringssertifikater": ["s.pem"],
            "enheter": {"0312": "NAV Frogner"},
            "endret": "2026-11-23T12:00:00.123456+00:00",
        }
        path = tmp_path / "katalog.yaml"
        path.write_text(yaml.safe_dump({"kommuner": [common | entry for entry in entries]}), "utf-8")
        return path

    return write


def test_a_file_becomes_entries_with_their_certificates(katalog_file: Any, connector_key: Any) -> None:
    (entry,) = load_katalog(katalog_file({})).all()
    assert (entry.kommunenummer, entry.navn, entry.partisjoner) == ("0301", "Oslo", 2)
    assert [c.bruk for c in entry.sertifikater] == ["KRYPTERING", "KVITTERING"]
    assert entry.sertifikater[1].nokkel_id == nokkel_id(connector_key[0])
    assert [(e.enhetsnummer, e.navn) for e in entry.enheter] == [("0312", "NAV Frogner")]


@pytest.mark.parametrize(
    ("entry", "named"),
    [
        ({"kommunenummer": 301}, "kommuner.0.kommunenummer"),
        ({"kommunenummer": "301"}, "kommuner.0.kommunenummer"),
        ({"organisasjonsnummer": "1"}, "organisasjonsnummer"),
        ({"krypteringssertifikater": []}, "krypteringssertifikater"),
        ({"partisjoner": 0}, "partisjoner"),
        ({"endret": "2026-11-23T12:00:00"}, "endret"),
        ({"krypteringssertifikater": ["finnes-ikke.pem"]}, "finnes-ikke.pem"),
        ({"kvitteringssertifikater": ["tull.pem"]}, "tull.pem"),
    ],
    ids=str,
)
def test_a_broken_file_is_refused_and_the_text_says_where(katalog_file: Any, entry: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_katalog(katalog_file(entry))
    assert named in str(caught.value)
    assert "katalog.yaml" in str(caught.value) or ".pem" in str(caught.value)


def test_a_file_can_say_that_a_certificate_is_revoked_and_what_the_channels_are(katalog_file: Any) -> None:
    revoked = {"fil": "k.pem", "tilbakekalt": "2026-11-23T12:00:00.123456+00:00"}
    path = katalog_file(
        {
            "krypteringssertifikater": [revoked, "k.pem"],
            "kanaler": ["KAFKA", "PRINT"],
            "fristBekreftet": "1h",
            "postadresse": ["Rådhuset", "0037 Oslo"],
        }
    )
    (entry,) = load_katalog(path).all()

    assert [found.tilbakekalt for found in entry.sertifikater[:2]] == [
        datetime(2026, 11, 23, 12, 0, 0, 123000, UTC),
        None,
    ]
    assert (entry.channels(), entry.frist_bekreftet_s, entry.frist_mottatt_s) == (("KAFKA", "PRINT"), 3600, None)
    assert entry.postadresse == ("Rådhuset", "0037 Oslo")


def test_a_file_can_keep_a_former_connectors_certificate_in_its_own_name(katalog_file: Any) -> None:
    path = katalog_file({"kvitteringssertifikater": ["k.pem", {"fil": "k.pem", "konnektor": "den-forrige"}]})
    (entry,) = load_katalog(path).all()
    signing = [one.konnektor for one in entry.sertifikater if one.bruk == BRUK_KVITTERING]
    assert signing == [None, "den-forrige"]
    assert decode(KatalogRecord, encode(entry)) == entry


def test_a_kommune_may_stand_once(katalog_file: Any) -> None:
    with pytest.raises(ConfigurationError, match="0301"):
        load_katalog(katalog_file({}, {}))


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"kommuner: [", b"\xff\xfe\x00", b"kommuner: {a: 1}", b"kommuner: tekst"]
)
def test_what_is_no_katalog_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "katalog.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError):
        load_katalog(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="kan ikke leses"):
        load_katalog(tmp_path / "finnes-ikke.yaml")
