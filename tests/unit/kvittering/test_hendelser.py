from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from crypto.authority import Authority
from crypto.certificates import nokkel_id
from crypto.envelope import seal_package
from crypto.keys import KeyRing, Signer
from kvittering.chain import Konnektor
from kvittering.hendelser import case_status, read_hendelse
from schemas.codec import encode
from schemas.digisos_soker_json import parse_digisos_soker
from schemas.errors import (
    DecodeError,
    InvalidDocumentError,
    MismatchError,
    PackageMissingError,
    UnknownSchemaError,
    UnsealError,
)
from schemas.forsendelse import Forsendelse
from schemas.kvittering import UNDERVEIS
from schemas.names import DigisosId, MeldingId, Organisasjonsnummer, Sha256
from schemas.records import HENDELSE_DIGISOS_SOKER, HendelseRecord

VEDTAKSFIL = {"referanse": {"type": "dokumentlager", "id": "0b4c3a5e-7f0e-4b0e-9d6a-1c2b3a4d5e6f"}}


def status(value: str, at: str = "2026-11-23T12:00:00.000Z") -> dict[str, Any]:
    return {"type": "soknadsStatus", "hendelsestidspunkt": at, "status": value}


def sak(referanse: str, at: str = "2026-11-23T12:00:00.000Z", **fields: Any) -> dict[str, Any]:
    return {"type": "saksStatus", "hendelsestidspunkt": at, "referanse": referanse} | fields


def vedtak(referanse: str) -> dict[str, Any]:
    return {
        "type": "vedtakFattet",
        "hendelsestidspunkt": "2026-11-23T13:00:00.000Z",
        "saksreferanse": referanse,
        "vedtaksfil": VEDTAKSFIL,
    }


def document(*hendelser: dict[str, Any]) -> bytes:
    avsender = {"systemnavn": "Testsystem", "systemversjon": "1.0"}
    return json.dumps({"version": "1.0.0", "avsender": avsender, "hendelser": hendelser}).encode()


class Innsyn:
    """The sender's innsyn key, and updates sealed for it."""

    def __init__(self, kit: Any) -> None:
        authority = Authority.create(kit.now)
        self.certificate, key = authority.issue(
            "NAV innsyn", Organisasjonsnummer("889640782"), purpose="kryptering", now=kit.now, key="rsa2048"
        )
        self.keys = KeyRing([(self.certificate, key)])  # type: ignore[list-item]  # it is RSA
        self.kit = kit

    def record(
        self, issuer: Any, content: bytes | None = None, moved: dict[str, Any] | None = None, **changes: Any
    ) -> HendelseRecord:
        fields: dict[str, Any] = {
            "melding_id": MeldingId.new(),
            "digisos_id": DigisosId.new(),
            "kommunenummer": issuer.kommunenummer,
            "type": HENDELSE_DIGISOS_SOKER,
            "tidspunkt": self.kit.now + timedelta(microseconds=1234),
        } | changes
        stated = Forsendelse(**{"opprettet" if k == "tidspunkt" else k: v for k, v in fields.items()})
        files = [
            ("digisos-soker.json", "application/json", content or document(status("MOTTATT"))),
            ("vedtak.pdf", "application/pdf", b"%PDF-1.4"),
            ("forsendelse.json", "application/json", stated.to_json()),
        ]
        package, summary = seal_package(
            files if content != b"" else files[1:],
            recipient=self.certificate,
            signer=Signer(issuer.certificate, issuer.key),
            now=self.kit.now,
        )
        return HendelseRecord(
            **(fields | (moved or {})),
            avsender=issuer.name,
            nokkel_id=summary.nokkel_id,
            sha256=summary.sha256,
            storrelse=summary.size,
            pakke=package,
        )

    def read(self, record: HendelseRecord, issuer: Any, **changes: Any) -> Any:
        arguments = {
            "kommunenummer": issuer.kommunenummer,
            "konnektor": issuer.konnektor(),
            "keys": self.keys,
            "lagret": self.kit.now,
        }
        return read_hendelse(encode(record), **(arguments | changes))


@pytest.fixture(scope="module")
def innsyn(kit: Any) -> Innsyn:
    return Innsyn(kit)


def test_an_update_is_opened_and_only_statuses_and_a_count_may_be_stored(innsyn: Innsyn, oslo: Any) -> None:
    content = document(status("MOTTATT"), status("UNDER_BEHANDLING", "2026-11-23T12:30:00.1Z"))
    record = innsyn.record(oslo, content)
    opened = innsyn.read(record, oslo)
    assert opened.vist == "UNDER_BEHANDLING"
    assert [one.status for one in opened.statuser] == ["MOTTATT", "UNDER_BEHANDLING"]
    assert opened.shown_since() == opened.statuser[1].tidspunkt
    assert opened.dokumenter == 1
    assert opened.melding_id == record.melding_id
    assert "Testsystem" not in opened.model_dump_json()


@pytest.mark.parametrize("name", ["melding_id", "digisos_id"])
def test_an_update_that_was_moved_is_refused(innsyn: Innsyn, oslo: Any, name: str) -> None:
    record = innsyn.record(oslo, moved={name: MeldingId.new()})
    with pytest.raises(MismatchError):
        innsyn.read(record, oslo)


def test_an_update_whose_time_was_changed_is_refused(innsyn: Innsyn, oslo: Any, kit: Any) -> None:
    record = innsyn.record(oslo, moved={"tidspunkt": kit.now + timedelta(seconds=5)})
    with pytest.raises(MismatchError):
        innsyn.read(record, oslo)


def test_an_update_on_another_kommunes_topic_is_refused(innsyn: Innsyn, oslo: Any, kit: Any) -> None:
    with pytest.raises(MismatchError):
        innsyn.read(innsyn.record(oslo), oslo, kommunenummer=kit.bergen)


def test_an_update_signed_by_another_kommunes_connector_is_refused(innsyn: Innsyn, oslo: Any, bergen: Any) -> None:
    record = innsyn.record(bergen, kommunenummer=oslo.kommunenummer)
    with pytest.raises(UnsealError):
        innsyn.read(record, oslo)


def test_an_update_for_somebody_else_is_refused(innsyn: Innsyn, oslo: Any, kit: Any) -> None:
    with pytest.raises(UnsealError):
        innsyn.read(innsyn.record(oslo), oslo, keys=Innsyn(kit).keys)


def test_a_package_that_is_not_the_one_named_is_refused(innsyn: Innsyn, oslo: Any) -> None:
    record = innsyn.record(oslo).model_copy(update={"sha256": Sha256.of(b"en annen")})
    with pytest.raises(MismatchError):
        innsyn.read(record, oslo)


def test_an_update_without_its_package_is_refused(innsyn: Innsyn, oslo: Any) -> None:
    with pytest.raises(PackageMissingError):
        innsyn.read(innsyn.record(oslo).model_copy(update={"pakke": None}), oslo)


def test_an_update_of_a_type_that_cannot_be_shown_is_refused(innsyn: Innsyn, oslo: Any) -> None:
    with pytest.raises(InvalidDocumentError):
        innsyn.read(innsyn.record(oslo, type="no.nav.noe.annet.v1"), oslo)


def test_an_update_without_digisos_soker_or_with_a_broken_one_is_refused(innsyn: Innsyn, oslo: Any) -> None:
    for content in (b"", b'{"version": "1.0.0"}'):
        with pytest.raises(InvalidDocumentError):
            innsyn.read(innsyn.record(oslo, content), oslo)


def test_an_expired_signer_was_valid_when_the_update_was_made(innsyn: Innsyn, kit: Any) -> None:
    issuer = kit.issuer()
    assert issuer.certificate.not_valid_after_utc < kit.now + timedelta(days=5000)
    with pytest.raises(UnsealError):
        innsyn.read(innsyn.record(issuer, tidspunkt=kit.now + timedelta(days=5000)), issuer)
    assert innsyn.read(innsyn.record(issuer), issuer)


def test_an_update_that_came_long_after_its_signers_certificate_ended_is_refused(innsyn: Innsyn, kit: Any) -> None:
    issuer = kit.issuer()
    ended = issuer.certificate.not_valid_after_utc
    assert innsyn.read(innsyn.record(issuer), issuer, lagret=ended + UNDERVEIS - timedelta(seconds=1))
    with pytest.raises(UnsealError):
        innsyn.read(innsyn.record(issuer), issuer, lagret=ended + UNDERVEIS)


def test_an_update_that_came_after_its_signers_certificate_was_revoked_is_refused(innsyn: Innsyn, kit: Any) -> None:
    issuer = kit.issuer()
    revoked = Konnektor(issuer.name, [issuer.certificate], {nokkel_id(issuer.certificate): kit.now})
    with pytest.raises(UnsealError):
        innsyn.read(innsyn.record(issuer), issuer, konnektor=revoked)
    before = kit.now - timedelta(seconds=1)
    assert innsyn.read(innsyn.record(issuer, tidspunkt=before), issuer, konnektor=revoked, lagret=before)


def test_bytes_that_are_no_update_are_refused(innsyn: Innsyn, oslo: Any) -> None:
    for value, error in ((b"", UnknownSchemaError), (b"\0\0\0\0\x03\xff", DecodeError)):
        with pytest.raises(error):
            read_hendelse(
                value,
                kommunenummer=oslo.kommunenummer,
                konnektor=oslo.konnektor(),
                keys=innsyn.keys,
                lagret=innsyn.kit.now,
            )


@pytest.mark.parametrize(
    ("hendelser", "shown"),
    [
        ([status("MOTTATT")], "MOTTATT"),
        ([status("FERDIGBEHANDLET")], "FERDIGBEHANDLET"),
        ([status("FERDIGBEHANDLET"), sak("1")], "UNDER_BEHANDLING"),
        ([status("FERDIGBEHANDLET"), sak("1", status="UNDER_BEHANDLING")], "UNDER_BEHANDLING"),
        ([status("FERDIGBEHANDLET"), sak("1"), vedtak("1")], "FERDIGBEHANDLET"),
        ([status("FERDIGBEHANDLET"), sak("1"), vedtak("1"), sak("2")], "UNDER_BEHANDLING"),
        ([status("FERDIGBEHANDLET"), sak("1", status="FEILREGISTRERT")], "FERDIGBEHANDLET"),
        (
            [status("FERDIGBEHANDLET"), sak("1"), sak("1", "2026-11-23T12:10:00.0Z", status="BEHANDLES_IKKE")],
            "FERDIGBEHANDLET",
        ),
        ([status("BEHANDLES_IKKE"), sak("1")], "BEHANDLES_IKKE"),
        ([sak("1")], None),
    ],
)
def test_what_the_citizen_is_shown_of_a_case(hendelser: list[dict[str, Any]], shown: str | None) -> None:
    assert case_status(parse_digisos_soker(document(*hendelser))) == shown


def test_an_update_in_another_connectors_name_is_refused(innsyn: Innsyn, oslo: Any) -> None:
    record = innsyn.record(oslo)
    with pytest.raises(MismatchError, match="avsender"):
        innsyn.read(record, oslo, konnektor=Konnektor("en-annen", [oslo.certificate]))
