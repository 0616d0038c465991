from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from consumers.connector import UKJENT_KODE, Avvist, Leveranse, reason_code
from schemas.names import DigisosId, Kommunenummer, MeldingId, NavEksternRefId, Organisasjonsnummer


async def once(content: bytes) -> AsyncIterator[bytes]:
    yield content


@pytest.mark.parametrize("code", ["A", "demo.avvist", "FEIL_KOMMUNE-17", "x" * 80, "e12345"])
def test_a_code_is_a_code(code: str) -> None:
    assert Avvist(code).kode == code


@pytest.mark.parametrize(
    "text", ["", "søker bor ikke her", "Ola Nordmann", "01810012345", "ref-123456", "x" * 81, "1a", "a\n", "a b"]
)
def test_free_text_never_becomes_a_code(text: str) -> None:
    assert reason_code(text) == UKJENT_KODE
    assert Avvist(text).kode == UKJENT_KODE


async def test_a_leveranse_reads_only_its_own_files() -> None:
    leveranse = Leveranse(
        melding_id=MeldingId.new(),
        digisos_id=DigisosId.new(),
        kommunenummer=Kommunenummer("0301"),
        nav_ekstern_ref_id=NavEksternRefId("r"),
        enhetsnummer=None,
        hastegrad="VANLIG",
        type="SOKNAD",
        innsendt=datetime(2026, 11, 23, tzinfo=UTC),
        avsender=Organisasjonsnummer("889640782"),
        files=(),
        _read=lambda _: once(b"x"),
    )
    with pytest.raises(KeyError):
        leveranse.read("forsendelse.json")
