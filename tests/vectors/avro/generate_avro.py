"""Write the golden bytes of every record kind: ``python tests/vectors/avro/generate_avro.py``.

A version that has been released is never written again: its bytes are out there. So the script writes only files that are
missing, which is what a new version of a schema brings.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from schemas.codec import encode
from schemas.names import (
    DigisosId,
    DokumentlagerId,
    Eier,
    Enhetsnummer,
    Kommunenummer,
    MeldingId,
    NavEksternRefId,
    NokkelId,
    Organisasjonsnummer,
    Sha256,
    Uuid,
)
from schemas.records import (
    DeadLetterRecord,
    Enhet,
    Forsok,
    Header,
    HendelseRecord,
    KatalogRecord,
    KvitteringRecord,
    Opprinnelig,
    Record,
    RevisjonRecord,
    Sertifikat,
    SoknadRecord,
    StatusRecord,
    TransportRecord,
)
from schemas.registry import latest

FOLDER: Final = Path(__file__).parent
NOW: Final = datetime(2026, 11, 23, 12, 0, 0, 123000, UTC)
KNR: Final = Kommunenummer("0301")
DIGISOS_ID: Final = DigisosId("3fa85f64-5717-4562-b3fc-2c963f66afa6")
MELDING_ID: Final = MeldingId("9b2c0d7e-1f4a-4c3b-8d6e-5a7f8091a2b3")
OTHER_ID: Final = Uuid("0c6f1f0a-54a1-4f0e-9d42-0a1b2c3d4e5f")
SHA: Final = Sha256("5e" * 32)
KEY_ID: Final = NokkelId("a1" * 32)


def records() -> dict[str, Record]:
    """Return one record of every kind, with every field set."""
    return {
        "soknad": SoknadRecord(
            melding_id=MELDING_ID,
            digisos_id=DIGISOS_ID,
            kommunenummer=KNR,
            nav_ekstern_ref_id=NavEksternRefId("nav-1_A"),
            enhetsnummer=Enhetsnummer("0312"),
            hastegrad="NODHJELP",
            innsendt=NOW,
            avsender=Organisasjonsnummer("889640782"),
            nokkel_id=KEY_ID,
            sha256=SHA,
            storrelse=4,
            pakke=b"\x30\x80\x00\x00",
            gyldig_til=NOW,
            avsenderversjon="soknad-api 2026.11",
            skjemaversjon="1.0.11",
        ),
        "kvittering": KvitteringRecord(
            kvittering_id=OTHER_ID,
            digisos_id=DIGISOS_ID,
            melding_id=MELDING_ID,
            kommunenummer=KNR,
            status="MOTTATT",
            tidspunkt=NOW,
            jws="e30.e30.AA",
        ),
        "hendelse": HendelseRecord(
            melding_id=MELDING_ID,
            digisos_id=DIGISOS_ID,
            kommunenummer=KNR,
            tidspunkt=NOW,
            avsender="acme",
            nokkel_id=KEY_ID,
            sha256=SHA,
            storrelse=600000,
            dokumentlager_id=DokumentlagerId(str(OTHER_ID)),
        ),
        "dlq": DeadLetterRecord(
            dead_letter_id=OTHER_ID,
            digisos_id=DIGISOS_ID,
            melding_id=MELDING_ID,
            kommunenummer=KNR,
            kode="krypto.apning",
            trinn="APNING",
            tidspunkt=NOW,
            forsok=(Forsok(nr=1, tidspunkt=NOW, kode="krypto.apning"),),
            gjenkjoringer=2,
            opprinnelig=Opprinnelig(
                topic="fiks.0301.soknad.v1",
                partisjon=1,
                offset=42,
                tidsstempel=NOW,
                nokkel=b"k",
                verdi=b"\x00\xff",
                headere=(Header(navn="ce_id", verdi=b"1"), Header(navn="tom", verdi=None)),
            ),
        ),
        "katalog": KatalogRecord(
            kommunenummer=KNR,
            navn="Oslo",
            organisasjonsnummer=Organisasjonsnummer("958935420"),
            leverandor="acme",
            konnektor="acme",
            kan_oppdatere_status=False,
            har_midlertidig_deaktivert_mottak=True,
            partisjoner=4,
            sertifikater=(
                Sertifikat(
                    nokkel_id=KEY_ID,
                    bruk="KRYPTERING",
                    pem="PEM",
                    gyldig_fra=NOW,
                    gyldig_til=NOW,
                    tilbakekalt=NOW,
                    konnektor="acme-for",
                ),
            ),
            enheter=(Enhet(enhetsnummer=Enhetsnummer("0312"), navn="NAV Frogner"),),
            endret=NOW,
            kanaler=("KAFKA", "PRINT"),
            frist_bekreftet_s=86400,
            frist_mottatt_s=172800,
            postadresse=("NAV Frogner", "Postboks 1", "0301 Oslo"),
        ),
        "status": StatusRecord(digisos_id=DIGISOS_ID, kommunenummer=KNR, status="MOTTATT", oppdatert=NOW, kode="k"),
        "transport": TransportRecord(
            hendelse_id=OTHER_ID,
            melding_id=MELDING_ID,
            digisos_id=DIGISOS_ID,
            kommunenummer=KNR,
            type="SENDT",
            tidspunkt=NOW,
            nav_ekstern_ref_id=NavEksternRefId("nav-1_A"),
            eier=Eier("e1" * 32),
            sha256=SHA,
            kode="k",
            gyldig_til=NOW,
        ),
        "revisjon": RevisjonRecord(
            revisjon_id=OTHER_ID,
            aktor="broker",
            handling="katalog.endret",
            objekt="0301",
            tidspunkt=NOW,
            begrunnelse="bytte av nøkkel",
            forrige=SHA,
            detaljer={"antall": "3"},
            signatur="e30.e30.AA",
        ),
    }


def plain(value: Any) -> Any:
    """Return ``value`` as JSON can hold it: times as ISO 8601 in UTC, bytes as hex under ``hex``."""
    match value:
        case dict():
            return {key: plain(item) for key, item in value.items()}
        case list() | tuple():
            return [plain(item) for item in value]
        case bytes():
            return {"hex": value.hex()}
        case datetime():
            return value.astimezone(UTC).isoformat(timespec="milliseconds")
        case _:
            return value


def expected(record: Record) -> str:
    """Return what the bytes mean, as JSON for people and for other implementations."""
    return json.dumps(plain(record.model_dump(by_alias=True)), ensure_ascii=False, indent=2) + "\n"


def main() -> None:
    """Write the files that are missing."""
    for kind, record in records().items():
        stem = FOLDER / f"{kind}.v{latest(kind).version}"
        if Path(f"{stem}.bin").exists():
            continue
        Path(f"{stem}.bin").write_bytes(encode(record))
        Path(f"{stem}.json").write_text(expected(record), "utf-8")
        sys.stdout.write(f"{stem.name}\n")


if __name__ == "__main__":
    main()
