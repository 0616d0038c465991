from __future__ import annotations

from datetime import timedelta
from typing import Any

from crypto.authority import Authority
from kvittering.verification import KJEDE, PAKKE, ROT, SIGNATUR, SOKNAD, UTSTEDER, Report, verify_chain
from schemas.names import MeldingId, Sha256


def failing(report: Report) -> set[str]:
    checks = [check for found in report.funn for check in found.kontroller] + list(report.felles)
    return {check.navn for check in checks if not check.holder}


def chain(oslo: Any, soknad: Any, *statuses: str) -> list[str]:
    return [oslo.issue(soknad, status).jws for status in statuses]


def test_a_whole_chain_holds_in_any_order_and_with_repeats(kit: Any, oslo: Any) -> None:
    tokens = chain(oslo, kit.soknad(), "LEVERT", "MOTTATT", "MOTTATT")
    report = verify_chain([tokens[2], *tokens], [oslo.certificate])
    assert report.holder
    assert [found.ledd.claims.nr for found in report.funn if found.ledd] == [1, 2, 3]


def test_nothing_at_all_does_not_hold(oslo: Any) -> None:
    assert not verify_chain([], [oslo.certificate]).holder


def test_a_missing_link_shows(kit: Any, oslo: Any) -> None:
    tokens = chain(oslo, kit.soknad(), "LEVERT", "MOTTATT")
    assert failing(verify_chain(tokens[1:], [oslo.certificate])) == {KJEDE}


def test_an_altered_kvittering_shows_and_nothing_in_it_is_believed(kit: Any, oslo: Any) -> None:
    (token,) = chain(oslo, kit.soknad(), "MOTTATT")
    report = verify_chain([token[:-8] + "AAAAAAAA"], [oslo.certificate])
    assert failing(report) == {SIGNATUR}
    assert report.funn[0].ledd is None


def test_a_certificate_that_did_not_sign_is_no_proof(kit: Any, oslo: Any, bergen: Any) -> None:
    assert failing(verify_chain(chain(oslo, kit.soknad(), "MOTTATT"), [bergen.certificate])) == {SIGNATUR}


def test_two_issuers_or_two_soknader_are_not_one_chain(kit: Any, oslo: Any, bergen: Any) -> None:
    soknad = kit.soknad()
    both = [oslo.certificate, bergen.certificate]
    tokens = chain(oslo, soknad, "MOTTATT")
    assert failing(verify_chain(tokens + chain(bergen, soknad, "MOTTATT"), both)) == {UTSTEDER}
    other = [oslo.issue(kit.soknad(), nr=1, forrige=None).jws]
    assert SOKNAD in failing(verify_chain(tokens + other, both))


def test_a_root_must_vouch_for_the_certificate_when_one_is_given(kit: Any) -> None:
    issuer, stranger = kit.issuer(), Authority.create(kit.now - timedelta(days=9), "En annen")
    tokens = chain(issuer, kit.soknad(), "MOTTATT")
    assert verify_chain(tokens, [issuer.certificate], roots=[issuer.authority.certificate]).holder
    assert failing(verify_chain(tokens, [issuer.certificate], roots=[stranger.certificate])) == {ROT}


def test_the_package_must_be_the_one_that_was_acknowledged(kit: Any, oslo: Any) -> None:
    soknad = kit.soknad()
    tokens = chain(oslo, soknad, "LEVERT", "MOTTATT")
    assert verify_chain(tokens, [oslo.certificate], package=soknad.sha256).holder
    assert failing(verify_chain(tokens, [oslo.certificate], package=Sha256.of(b"en annen"))) == {PAKKE}


def test_a_kvittering_for_other_bytes_of_the_same_message_shows(kit: Any, oslo: Any) -> None:
    soknad = kit.soknad()
    tokens = [*chain(oslo, soknad, "MOTTATT"), oslo.issue(soknad, sha256=Sha256.of(b"andre byte")).jws]
    assert failing(verify_chain(tokens, [oslo.certificate], package=soknad.sha256)) == {PAKKE}


def test_an_avvist_of_altered_bytes_and_an_ettersendelse_do_not_spoil_the_proof(kit: Any, oslo: Any) -> None:
    soknad = kit.soknad()
    tokens = [oslo.issue(soknad, "AVVIST", sha256=Sha256.of(b"endret")).jws, *chain(oslo, soknad, "MOTTATT")]
    tokens.append(oslo.issue(soknad, melding_id=MeldingId.new(), sha256=Sha256.of(b"ettersendelsen")).jws)
    assert verify_chain(tokens, [oslo.certificate], package=soknad.sha256).holder


def test_an_avvist_alone_proves_no_delivery_of_the_package(kit: Any, oslo: Any) -> None:
    soknad = kit.soknad()
    assert failing(verify_chain(chain(oslo, soknad, "AVVIST"), [oslo.certificate], package=soknad.sha256)) == {PAKKE}
