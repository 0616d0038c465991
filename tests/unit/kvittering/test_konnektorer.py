from __future__ import annotations

from typing import Any

from broker.katalog import Katalog
from crypto.certificates import nokkel_id
from crypto.keys import KeyRing
from kvittering.chain import Konnektor, verify_ledd
from kvittering.konnektorer import konnektor_of
from kvittering.reading import read_record


def test_the_kommunes_connector_signs_with_what_the_katalog_holds(kit: Any, oslo: Any, bergen: Any) -> None:
    katalog = Katalog([oslo.entry(), bergen.entry()])
    assert konnektor_of(katalog, kit.oslo) == Konnektor(oslo.name, (oslo.certificate,))


def test_a_revoked_certificate_is_known_with_its_moment(kit: Any) -> None:
    issuer = kit.issuer(revoked=kit.now)
    konnektor = konnektor_of(Katalog([issuer.entry()]), kit.oslo)
    assert konnektor.tilbakekalt == {nokkel_id(issuer.certificate): kit.now}
    assert konnektor.certificates == (issuer.certificate,)


def test_nobody_signs_for_a_kommune_that_is_not_in_the_katalog(kit: Any) -> None:
    assert konnektor_of(Katalog(), kit.oslo) == Konnektor()


def test_what_a_former_connector_signed_stays_valid_when_the_kommune_changes_its_vendor(kit: Any, oslo: Any) -> None:
    soknad, new = kit.soknad(), kit.issuer(name="konnektor-ny")
    before = kit.log().kvittering(oslo.issue(soknad))
    (former,) = oslo.entry().sertifikater
    entry = new.entry()
    changed = entry.model_copy(
        update={"sertifikater": (*entry.sertifikater, former.model_copy(update={"konnektor": oslo.name}))}
    )
    konnektor = konnektor_of(Katalog([changed]), kit.oslo)

    def read(record: Any) -> Any:
        return read_record(record, konnektorer={kit.oslo: konnektor}, keys=KeyRing([]))

    assert read(before).fact is not None
    assert read(kit.log().kvittering(new.issue(kit.soknad()))).fact is not None
    masked = verify_ledd(oslo.sign(oslo.claims(soknad, utsteder=new.name)), [oslo.certificate])
    assert read(kit.log().kvittering(masked)).error is not None  # the former one may not write in the new one's chain
    forgotten = konnektor_of(Katalog([entry]), kit.oslo)
    assert read_record(before, konnektorer={kit.oslo: forgotten}, keys=KeyRing([])).fact is None
