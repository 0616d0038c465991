from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime

from consumers.connector import Fil, Leveranse
from consumers.connectors.leveranse_json import leveranse_json
from schemas.names import (
    DigisosId,
    Enhetsnummer,
    Kommunenummer,
    MeldingId,
    NavEksternRefId,
    Organisasjonsnummer,
    Sha256,
)


async def once(content: bytes) -> AsyncIterator[bytes]:
    yield content


def test_a_fagsystem_is_told_everything_that_routing_knows() -> None:
    leveranse = Leveranse(
        melding_id=MeldingId.new(),
        digisos_id=DigisosId.new(),
        kommunenummer=Kommunenummer("0301"),
        nav_ekstern_ref_id=NavEksternRefId("r"),
        enhetsnummer=Enhetsnummer("0315"),
        hastegrad="NODHJELP",
        type="SOKNAD",
        innsendt=datetime(2026, 11, 23, 12, tzinfo=UTC),
        avsender=Organisasjonsnummer("889640782"),
        files=(Fil("søknad.pdf", "application/pdf", 1, Sha256.of(b"x")),),
        _read=lambda _: once(b"x"),
    )
    assert json.loads(leveranse_json(leveranse)) == {
        "meldingId": leveranse.melding_id,
        "digisosId": leveranse.digisos_id,
        "kommunenummer": "0301",
        "navEksternRefId": "r",
        "enhetsnummer": "0315",
        "hastegrad": "NODHJELP",
        "type": "SOKNAD",
        "innsendt": "2026-11-23T12:00:00.000Z",
        "avsender": "889640782",
        "filer": [{"filnavn": "søknad.pdf", "mimetype": "application/pdf", "storrelse": 1, "sha256": Sha256.of(b"x")}],
    }
