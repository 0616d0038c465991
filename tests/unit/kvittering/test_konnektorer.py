from __future__ import annotations

from typing import Any

from broker.katalog import Katalog
from crypto.certificates import nokkel_id
from kvittering.chain import Konnektor
from kvittering.konnektorer import konnektor_of


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
