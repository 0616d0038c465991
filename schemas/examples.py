"""Example documents of our own making, for the demo, the fagsystem simulator and the tests.

Everything is drawn from the ``random.Random`` that is passed in, so a seed gives the same bytes every time. No real
person can be hit: fødselsnummer have 80 added to the month, as the synthetic ones in Skatteetaten's Tenor have, and the
names are ones that nobody bears and that no text holds by chance, so that a search for them in logs and topics means
what it finds. Street names are invented too; kommunenummer are the caller's.
"""

from __future__ import annotations

from datetime import UTC, timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import orjson

from schemas.digisos_soker_json import MOTTATT
from schemas.example_files import make_jpeg, make_pdf, make_png
from schemas.example_okonomi import Obj, make_arbeid, make_okonomi
from schemas.soknad_json import SOKNADSTYPE_KORT, SOKNADSTYPE_STANDARD
from schemas.vedlegg_json import STATUS_LASTET_OPP

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime
    from random import Random

__all__ = [
    "ETTERNAVN",
    "FORNAVN",
    "Kind",
    "make_digisos_soker",
    "make_jpeg",
    "make_pdf",
    "make_png",
    "make_soknad",
    "make_vedlegg",
    "synthetic_fodselsnummer",
    "synthetic_navn",
]

Kind: TypeAlias = Literal["kort", "standard", "nodhjelp"]

FORNAVN: Final = (
    "Blåklokkine",
    "Dompapius",
    "Fjellrevilde",
    "Gaupemund",
    "Kvitveisine",
    "Lirypine",
    "Multebjørg",
    "Nattergalmar",
    "Røyskattine",
    "Tyttebærulf",
    "Vaffelhild",
    "Åkerriksar",
)
ETTERNAVN: Final = (
    "Brunostkleiva",
    "Dokumentasjonsli",
    "Eksempelstrand",
    "Flettverkshaugen",
    "Konvoluttdalen",
    "Kvitteringsmoen",
    "Prøvesteinvik",
    "Regnbuefonna",
    "Stempelputtnes",
    "Testfjellhammer",
    "Trekkspillbakken",
    "Vaffeljernstuen",
)
_GATER: Final = (
    "Prøvegata",
    "Eksempelveien",
    "Testbakken",
    "Konvoluttallmenningen",
    "Skjemasvingen",
    "Attpåklatten",
    "Stempeltråkket",
)
_STEDER: Final = (("0099", "PRØVEVIK"), ("4099", "TESTHAMN"), ("6099", "EKSEMPELSUND"), ("9099", "SKJEMANES"))
_NODHJELP: Final = ("Har ikke mat", "Har ikke bosted", "Har ikke strøm")
_VANLIGE: Final = ("Livsopphold", "Husleie", "Strom og oppvarming")
_GRUNNER: Final = (
    "Jeg mistet vaktene mine for to måneder siden, og sparepengene er brukt opp.",
    "Vaskemaskinen røk samme uke som strømregningen kom, og det gikk ikke rundt.",
    "Jeg er midt i en flytting og har betalt husleie to steder.\nDepositumet har jeg ikke fått igjen.",
    "Stønaden min er forsinket, og jeg vet ikke når den kommer.",
)
_K1: Final = (3, 7, 6, 1, 8, 9, 4, 5, 2)
_K2: Final = (5, 4, 3, 2, 7, 6, 5, 4, 3, 2)
_KONTO: Final = (5, 4, 3, 2, 7, 6, 5, 4, 3, 2)
_NO_DIGIT: Final = 10


def synthetic_fodselsnummer(rng: Random) -> str:
    """Return eleven digits with valid control digits, born 1940 to 1999, with 80 added to the month."""
    while True:
        day, month, year = rng.randint(1, 28), rng.randint(1, 12) + 80, rng.randint(40, 99)
        digits = f"{day:02d}{month:02d}{year:02d}{rng.randint(0, 499):03d}"
        first = _control(digits, _K1)
        if first == _NO_DIGIT:
            continue
        second = _control(f"{digits}{first}", _K2)
        if second != _NO_DIGIT:
            return f"{digits}{first}{second}"


def synthetic_navn(rng: Random) -> str:
    """Return a first and a last name that nobody bears."""
    return f"{rng.choice(FORNAVN)} {rng.choice(ETTERNAVN)}"


def make_soknad(
    rng: Random,
    *,
    kind: Kind = "standard",
    fodselsnummer: str | None = None,
    kommunenummer: str = "0301",
    enhetsnummer: str | None = None,
    navn: str | None = None,
    now: datetime | None = None,
) -> bytes:
    """Return a soknad.json, UTF-8.

    Args:
        rng: Source of everything that is not given.
        kind: ``kort`` is about 3 KB; ``standard`` is about 7 KB; ``nodhjelp`` is as standard, and asks for nødhjelp.
        fodselsnummer: Whose it is; drawn when None.
        kommunenummer: The receiver.
        enhetsnummer: The NAV office; made of the kommunenummer when None, as most small kommuner's are.
        navn: First names and a last name; drawn when None.
        now: Aware UTC time of the submission; the field is left out when None.
    """
    fodselsnummer = fodselsnummer or synthetic_fodselsnummer(rng)
    soknad: Obj = {
        "version": "1.0.11",
        "data": _data(rng, kind, fodselsnummer, navn or synthetic_navn(rng), kommunenummer),
        "mottaker": {
            "kommunenummer": kommunenummer,
            "enhetsnummer": enhetsnummer or kommunenummer,
            "navEnhetsnavn": f"Nav-kontor {enhetsnummer or kommunenummer}",
        },
        "driftsinformasjon": {
            "utbetalingerFraNavFeilet": False,
            "inntektFraSkatteetatenFeilet": rng.random() < 0.1,  # noqa: PLR2004 - a register is down now and then
            "stotteFraHusbankenFeilet": False,
        },
        "kompatibilitet": [],
    }
    if now is not None:
        soknad["innsendingstidspunkt"] = _tidspunkt(now)
    return orjson.dumps(soknad)


def make_vedlegg(
    files: Iterable[tuple[str, str, str, str | None]], *, status: str = STATUS_LASTET_OPP, hendelse_type: str = "soknad"
) -> bytes:
    """Return a vedlegg.json, UTF-8.

    Args:
        files: type, tilleggsinfo, filnavn and SHA-512 in hex (or None) of each; neighbours with the same type and
            tilleggsinfo become one vedlegg of several files.
        status: Status of every row.
        hendelse_type: What asked for them.
    """
    rows = [
        {
            "type": type_,
            "tilleggsinfo": tilleggsinfo,
            "status": status,
            "hendelseType": hendelse_type,
            "filer": [
                {"filnavn": name} | ({} if sha512 is None else {"sha512": sha512}) for _, _, name, sha512 in group
            ],
        }
        for (type_, tilleggsinfo), group in groupby(files, key=lambda file: file[:2])
    ]
    return orjson.dumps({"vedlegg": rows})


def make_digisos_soker(
    statuses: Sequence[str] = (MOTTATT,),
    *,
    now: datetime,
    nav_kontor: str | None = None,
    systemnavn: str = "Simulert fagsystem",
    systemversjon: str = "1.0.0",
    hendelser: Iterable[Obj] = (),
) -> bytes:
    """Return a digisos-soker.json, UTF-8.

    Args:
        statuses: The søknad's statuses in order, the last of them at ``now`` and each a minute after the one before.
        now: Aware UTC time.
        nav_kontor: The office that has the case, told with the first status; four digits.
        systemnavn: The fagsystem.
        systemversjon: Its version.
        hendelser: More hendelser, put last as they are.
    """
    times = [_tidspunkt(now - timedelta(minutes=n)) for n in reversed(range(len(statuses)))]
    rows: list[Obj] = [
        {"type": "soknadsStatus", "hendelsestidspunkt": time, "status": status}
        for time, status in zip(times, statuses, strict=True)
    ]
    if nav_kontor is not None:
        time = times[0] if times else _tidspunkt(now)
        rows.insert(1, {"type": "tildeltNavKontor", "hendelsestidspunkt": time, "navKontor": nav_kontor})
    return orjson.dumps(
        {
            "version": "1.3.0",
            "avsender": {"systemnavn": systemnavn, "systemversjon": systemversjon},
            "hendelser": [*rows, *hendelser],
        }
    )


def _control(digits: str, weights: tuple[int, ...]) -> int:
    """Return the modulus 11 control digit, or 10 where there is none."""
    return -sum(int(digit) * weight for digit, weight in zip(digits, weights, strict=True)) % 11


def _tidspunkt(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _data(rng: Random, kind: Kind, fodselsnummer: str, navn: str, kommunenummer: str) -> Obj:
    data: Obj = {
        "soknadstype": SOKNADSTYPE_KORT if kind == "kort" else SOKNADSTYPE_STANDARD,
        "personalia": _personalia(rng, fodselsnummer, navn, kommunenummer),
        "begrunnelse": {"kilde": "bruker", "hvorforSoke": rng.choice(_GRUNNER), "hvaSokesOm": _hva(rng, kind)},
        "arbeid": make_arbeid(rng, short=kind == "kort"),
        "utdanning": {"kilde": "bruker", "erStudent": False},
        "familie": _familie(rng, navn.rsplit(" ", 1)[-1]),
        "bosituasjon": {
            "kilde": "bruker",
            "botype": rng.choice(("leier", "kommunal", "venner", "eier")),
            "antallPersoner": rng.randint(1, 5),
        },
        "okonomi": make_okonomi(rng, short=kind == "kort"),
    }
    if kind == "kort":
        data["situasjonendring"] = {
            "kilde": "bruker",
            "harNoeEndretSeg": True,
            "hvaHarEndretSeg": "Husleia gikk opp, ellers er alt som sist.",
        }
    return data


def _hva(rng: Random, kind: Kind) -> str:
    """Return what is asked for, in the block of text that the portal makes of the ticked categories."""
    urgent = f"Nødhjelp: {', '.join(rng.sample(_NODHJELP, rng.randint(1, 3)))}" if kind == "nodhjelp" else ""
    return f"{urgent}\nJeg søker om penger til: {', '.join(rng.sample(_VANLIGE, rng.randint(1, 3)))}\n"


def _personalia(rng: Random, fodselsnummer: str, navn: str, kommunenummer: str) -> Obj:
    fornavn, _, etternavn = navn.rpartition(" ")
    postnummer, poststed = rng.choice(_STEDER)
    adresse: Obj = {
        "kilde": "system",
        "type": "gateadresse",
        "landkode": "NOR",
        "kommunenummer": kommunenummer,
        "bolignummer": f"H0{rng.randint(1, 4)}0{rng.randint(1, 6)}",
        "postnummer": postnummer,
        "poststed": poststed,
        "gatenavn": rng.choice(_GATER),
        "husnummer": str(rng.randint(1, 120)),
        "husbokstav": rng.choice("ABCD"),
    }
    return {
        "personIdentifikator": {"kilde": "system", "verdi": fodselsnummer},
        "navn": {"kilde": "system", "fornavn": fornavn, "mellomnavn": "", "etternavn": etternavn},
        "statsborgerskap": {"kilde": "system", "verdi": "NOR"},
        "nordiskBorger": {"kilde": "system", "verdi": True},
        "telefonnummer": {"kilde": "bruker", "verdi": f"+47000{rng.randint(0, 99999):05d}"},
        "kontonummer": {"kilde": "bruker", "harIkkeKonto": False, "verdi": _kontonummer(rng)},
        "folkeregistrertAdresse": adresse,
        "oppholdsadresse": {**adresse, "adresseValg": "folkeregistrert"},
    }


def _kontonummer(rng: Random) -> str:
    """Return an account number with a valid control digit, in a bank register number that is not given out."""
    while True:
        digits = f"0000{rng.randint(0, 999999):06d}"
        if (control := _control(digits, _KONTO)) != _NO_DIGIT:
            return f"{digits}{control}"


def _familie(rng: Random, etternavn: str) -> Obj:
    ansvar: list[Obj] = [
        {
            "barn": {
                "kilde": "system",
                "navn": {"fornavn": rng.choice(FORNAVN), "mellomnavn": "", "etternavn": etternavn},
                "fodselsdato": f"20{rng.randint(10, 24)}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}",
                "personIdentifikator": synthetic_fodselsnummer(rng),
            },
            "erFolkeregistrertSammen": {"kilde": "system", "verdi": True},
            "harDeltBosted": {"kilde": "bruker", "verdi": rng.random() < 0.5},  # noqa: PLR2004 - half of them
        }
        for _ in range(rng.randint(0, 2))
    ]
    return {
        "sivilstatus": {"kilde": "bruker", "status": rng.choice(("ugift", "samboer", "skilt", "separert"))},
        "forsorgerplikt": {
            "harForsorgerplikt": {"kilde": "system", "verdi": bool(ansvar)},
            "barnebidrag": {"kilde": "bruker", "verdi": rng.choice(("betaler", "mottar", "ingen"))},
            "ansvar": ansvar,
        },
    }
