from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto.certificates import nokkel_id
from kvittering.chain import (
    VENTER_KJEDE,
    VENTER_SOKNAD,
    Konnektor,
    connect,
    judge,
    late_signature,
    read_ledd,
    verify_ledd,
)
from kvittering.facts import SoknadState
from schemas.codec import encode
from schemas.errors import ChainError, DecodeError, MismatchError, SignatureError, UnknownSchemaError
from schemas.kvittering import UNDERVEIS
from schemas.names import DigisosId, MeldingId, Sha256, Uuid


def known(*records: Any) -> Any:
    return SoknadState(digisos_id=records[0].digisos_id, transport=records).meldinger()


def value_of(ledd: Any, **changes: Any) -> bytes:
    return encode(ledd.claims.record(ledd.jws).model_copy(update=changes))


def test_a_real_kvittering_is_read_with_what_was_signed_and_by_whom(kit: Any, oslo: Any) -> None:
    ledd = oslo.issue(kit.soknad())
    read = read_ledd(value_of(ledd), kommunenummer=kit.oslo, konnektor=oslo.konnektor())
    assert read == ledd
    assert read.digest == Sha256.of(ledd.jws.encode())


def test_a_time_with_microseconds_is_the_same_signed_and_in_clear(kit: Any, oslo: Any) -> None:
    claims = oslo.claims(kit.soknad(), tidspunkt=kit.now + timedelta(microseconds=1999))
    value = encode(claims.record(oslo.sign(claims)))
    read_ledd(value, kommunenummer=kit.oslo, konnektor=oslo.konnektor())


def test_a_kvittering_signed_by_another_kommunes_connector_is_refused(kit: Any, oslo: Any, bergen: Any) -> None:
    forged = bergen.claims(kit.soknad(), kommunenummer=kit.oslo, utsteder=oslo.name)
    value = encode(forged.record(bergen.sign(forged)))
    with pytest.raises(SignatureError):
        read_ledd(value, kommunenummer=kit.oslo, konnektor=oslo.konnektor())


def test_a_kvittering_that_was_altered_after_signing_is_refused(kit: Any, oslo: Any) -> None:
    ledd = oslo.issue(kit.soknad())
    head, payload, signature = ledd.jws.split(".")
    altered = f"{head}.{payload[:-4]}AAAA.{signature}"
    with pytest.raises(SignatureError):
        read_ledd(encode(ledd.claims.record(altered)), kommunenummer=kit.oslo, konnektor=oslo.konnektor())


@pytest.mark.parametrize(
    "changes",
    [
        {"status": "LEVERT"},
        {"kvittering_id": Uuid.new()},
        {"digisos_id": DigisosId.new()},
        {"melding_id": MeldingId.new()},
        {"melding_id": None},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_clear_fields_that_are_not_what_was_signed_are_refused(kit: Any, oslo: Any, changes: dict[str, Any]) -> None:
    value = value_of(oslo.issue(kit.soknad()), **changes)
    with pytest.raises(MismatchError):
        read_ledd(value, kommunenummer=kit.oslo, konnektor=oslo.konnektor())


def test_a_kvittering_on_another_kommunes_topic_is_refused(kit: Any, bergen: Any) -> None:
    value = value_of(bergen.issue(kit.soknad()))
    with pytest.raises(MismatchError):
        read_ledd(value, kommunenummer=kit.oslo, konnektor=bergen.konnektor())


def test_a_kvittering_from_after_the_certificate_ended_is_refused_and_one_from_before_is_not(
    kit: Any, oslo: Any
) -> None:
    late = oslo.claims(kit.soknad(), tidspunkt=kit.now + timedelta(days=5000))
    with pytest.raises(SignatureError):
        verify_ledd(oslo.sign(late), [oslo.certificate])
    assert verify_ledd(oslo.sign(oslo.claims(kit.soknad())), [oslo.certificate])


def test_an_ended_certificate_signs_no_more_whatever_time_a_kvittering_states(kit: Any, oslo: Any) -> None:
    ledd, konnektor = oslo.issue(kit.soknad()), oslo.konnektor()
    ended = oslo.certificate.not_valid_after_utc
    assert late_signature(ledd, konnektor, ended + UNDERVEIS - timedelta(seconds=1)) is None
    assert isinstance(late_signature(ledd, konnektor, ended + UNDERVEIS), SignatureError)


def test_a_kvittering_that_was_long_on_its_way_counts_while_its_certificate_lasts(kit: Any, oslo: Any) -> None:
    ledd, konnektor = oslo.issue(kit.soknad()), oslo.konnektor()
    assert late_signature(ledd, konnektor, ledd.claims.tidspunkt + timedelta(days=60)) is None


def test_a_kvittering_from_a_set_up_whose_time_was_moved_counts(kit: Any, oslo: Any) -> None:
    soknad, konnektor = kit.soknad(), oslo.konnektor()
    ledd = oslo.issue(soknad, tidspunkt=kit.now + timedelta(days=20))
    assert late_signature(ledd, konnektor, kit.now) is None


@pytest.mark.parametrize(
    ("lagret_after_s", "stated_after_s", "counts"),
    [(-1, -1, True), (0, -1, False), (-1, 0, False), (3600, -86400, False)],
    ids=["before", "appended after", "stated after", "back-dated"],
)
def test_a_revoked_certificate_signs_nothing_from_that_moment_on(
    kit: Any, oslo: Any, lagret_after_s: int, stated_after_s: int, *, counts: bool
) -> None:
    konnektor = Konnektor(oslo.name, [oslo.certificate], {nokkel_id(oslo.certificate): kit.now})
    ledd = oslo.issue(kit.soknad(), tidspunkt=kit.now + timedelta(seconds=stated_after_s))
    assert (late_signature(ledd, konnektor, kit.now + timedelta(seconds=lagret_after_s)) is None) is counts


def test_another_certificates_revocation_is_another_matter(kit: Any, oslo: Any, bergen: Any) -> None:
    konnektor = Konnektor(oslo.name, [oslo.certificate], {nokkel_id(bergen.certificate): kit.now - timedelta(days=9)})
    assert late_signature(oslo.issue(kit.soknad()), konnektor, kit.now) is None


def test_bytes_that_are_no_kvittering_record_are_refused(kit: Any, oslo: Any) -> None:
    for value, error in ((b"", UnknownSchemaError), (b"\0\0\0\0\x02\xff", DecodeError)):
        with pytest.raises(error):
            read_ledd(value, kommunenummer=kit.oslo, konnektor=oslo.konnektor())


def test_something_signed_that_is_no_kvittering_is_refused(oslo: Any) -> None:
    from crypto.jws import sign_jws  # noqa: PLC0415 - only here

    with pytest.raises(DecodeError):
        verify_ledd(sign_jws(b'{"hei":1}', oslo.key, oslo.certificate), [oslo.certificate])


@pytest.mark.parametrize("owner", ["en-annen-konnektor", None])
def test_a_connector_signs_in_its_own_name_alone_and_so_writes_one_chain(
    kit: Any, oslo: Any, owner: str | None
) -> None:
    ledd = oslo.issue(kit.soknad())
    with pytest.raises(SignatureError, match="utsteder"):
        read_ledd(value_of(ledd), kommunenummer=kit.oslo, konnektor=Konnektor(owner, [oslo.certificate]))


def test_links_in_order_make_one_chain(kit: Any, oslo: Any) -> None:
    soknad = kit.soknad()
    links = [oslo.issue(soknad, "LEVERT"), oslo.issue(soknad), oslo.issue(soknad)]
    chains = connect(links)
    assert chains.linked == tuple(links)
    assert chains.heads[kit.oslo, oslo.name].nr == 3


def test_the_same_bytes_again_are_a_repeat_and_no_fork(kit: Any, oslo: Any) -> None:
    soknad = kit.soknad()
    first, second = oslo.issue(soknad, "LEVERT"), oslo.issue(soknad)
    assert connect([first, first, second, first, second]) == connect([first, second])
    assert connect([first, second]).linked == (first, second)


def test_another_kvittering_with_the_same_number_is_a_fork_and_the_first_keeps_its_place(kit: Any, oslo: Any) -> None:
    soknad = kit.soknad()
    first = oslo.issue(soknad, "LEVERT")
    fork = verify_ledd(oslo.sign(oslo.claims(soknad, "MOTTATT", nr=1, forrige=None)), [oslo.certificate])
    chains = connect([first, fork])
    assert chains.linked == (first,)
    assert isinstance(chains.broken[fork.digest], ChainError)


def test_a_link_that_names_another_former_one_is_a_break(kit: Any, oslo: Any) -> None:
    soknad = kit.soknad()
    first = oslo.issue(soknad, "LEVERT")
    second = oslo.issue(soknad, forrige=Sha256.of(b"en annen"))
    chains = connect([first, second])
    assert chains.linked == (first,)
    assert isinstance(chains.broken[second.digest], ChainError)


def test_a_first_link_that_names_a_former_one_is_a_break(kit: Any, oslo: Any) -> None:
    first = oslo.issue(kit.soknad(), forrige=Sha256.of(b"noe"))
    assert set(connect([first]).broken) == {first.digest}


def test_a_link_behind_a_gap_waits_until_the_missing_one_comes(kit: Any, oslo: Any) -> None:
    soknad = kit.soknad()
    first, second, third = (oslo.issue(soknad) for _ in range(3))
    assert connect([first, third]).waiting == (third,)
    assert connect([first, third, second]).linked == (first, third, second)


def test_a_link_that_waited_and_does_not_fit_what_came_is_a_break(kit: Any, oslo: Any) -> None:
    soknad = kit.soknad()
    first, second = oslo.issue(soknad), oslo.issue(soknad)
    odd = oslo.issue(soknad, nr=3, forrige=Sha256.of(b"en annen toer"))
    assert connect([first, odd]).waiting == (odd,)
    assert set(connect([first, odd, second]).broken) == {odd.digest}


def test_a_foreign_kommune_cannot_take_a_place_in_the_chain_by_using_its_issuers_name(
    kit: Any, oslo: Any, bergen: Any
) -> None:
    soknad = kit.soknad()
    foreign = bergen.issue(soknad, utsteder=oslo.name)
    own = oslo.issue(soknad)
    assert not connect([foreign, own]).broken


@given(order=st.permutations(range(5)))
def test_links_in_any_order_end_in_the_same_chain(kit: Any, oslo: Any, order: list[int]) -> None:
    soknad = kit.soknad()
    links = [oslo.issue(soknad) for _ in range(5)]
    assert connect([links[at] for at in order]).heads == connect(links).heads


def test_a_kvittering_of_a_known_message_with_its_digest_counts(kit: Any, oslo: Any) -> None:
    soknad = kit.soknad()
    ledd = oslo.issue(soknad)
    assert judge([ledd], known(soknad.transport("AKSEPTERT"))).holds == (ledd,)


def test_a_kvittering_of_an_unknown_soknad_waits(kit: Any, oslo: Any) -> None:
    ledd = oslo.issue(kit.soknad())
    verdicts = judge([ledd], {})
    assert verdicts.waits == {ledd.digest: VENTER_SOKNAD}
    assert not verdicts.holds


def test_a_kvittering_waits_while_the_packages_digest_is_not_known(kit: Any, oslo: Any) -> None:
    soknad = kit.soknad()
    ledd = oslo.issue(soknad)
    accepted = soknad.transport("AKSEPTERT", sha256=None)
    assert judge([ledd], known(accepted)).waits == {ledd.digest: VENTER_SOKNAD}
    assert judge([ledd], known(accepted, soknad.transport("SENDT", sha256=soknad.sha256))).holds == (ledd,)


def test_a_kvittering_behind_a_gap_waits_for_its_chain(kit: Any, oslo: Any) -> None:
    soknad = kit.soknad()
    ledd = oslo.issue(soknad, nr=2, forrige=Sha256.of(b"nr 1"))
    assert judge([ledd], known(soknad.transport("AKSEPTERT"))).waits == {ledd.digest: VENTER_KJEDE}


@pytest.mark.parametrize("status", ["LEVERT", "MOTTATT", "NYTT_SVAR"])
def test_a_kvittering_that_names_another_package_is_refused(kit: Any, oslo: Any, status: str) -> None:
    soknad = kit.soknad()
    ledd = oslo.issue(soknad, status, sha256=Sha256.of(b"en annen pakke"))
    assert isinstance(judge([ledd], known(soknad.transport("AKSEPTERT"))).refused[ledd.digest], MismatchError)


def test_an_avvist_may_name_the_package_that_was_altered_on_the_way(kit: Any, oslo: Any) -> None:
    soknad = kit.soknad()
    ledd = oslo.issue(soknad, "AVVIST", sha256=Sha256.of(b"en endret pakke"), kode="krypto.apning")
    assert judge([ledd], known(soknad.transport("AKSEPTERT"))).holds == (ledd,)


def test_only_an_avvist_may_lack_the_message(kit: Any, oslo: Any) -> None:
    soknad = kit.soknad()
    rejected = oslo.issue(soknad, "AVVIST", melding_id=None)
    received = oslo.issue(soknad, "MOTTATT", melding_id=None)
    verdicts = judge([rejected, received], known(soknad.transport("AKSEPTERT")))
    assert verdicts.holds == (rejected,)
    assert isinstance(verdicts.refused[received.digest], MismatchError)


def test_a_kvittering_from_another_kommune_than_the_soknad_went_to_is_refused(kit: Any, bergen: Any) -> None:
    soknad = kit.soknad()
    ledd = bergen.issue(soknad)
    assert isinstance(judge([ledd], known(soknad.transport("AKSEPTERT"))).refused[ledd.digest], MismatchError)


@pytest.mark.parametrize("status", ["LEVERT", "MOTTATT"])
def test_a_kvittering_for_a_package_that_was_sealed_again_counts(kit: Any, oslo: Any, status: str) -> None:
    soknad = kit.soknad()
    digest = Sha256.of(b"samme innhold, en annen mottaker")
    ledd = oslo.issue(soknad, status, sha256=digest)
    aksept, resealed = soknad.transport("AKSEPTERT"), soknad.transport("OMFORSEGLET", sha256=digest)

    assert judge([ledd], known(aksept, resealed)).holds == (ledd,)
    assert isinstance(judge([ledd], known(aksept)).refused[ledd.digest], MismatchError)


def test_the_chain_goes_on_through_a_link_with_the_wrong_digest(kit: Any, oslo: Any) -> None:
    soknad = kit.soknad()
    wrong = oslo.issue(soknad, sha256=Sha256.of(b"en annen pakke"))
    right = oslo.issue(soknad)
    verdicts = judge([wrong, right], known(soknad.transport("AKSEPTERT")))
    assert verdicts.holds == (right,)
    assert set(verdicts.refused) == {wrong.digest}
