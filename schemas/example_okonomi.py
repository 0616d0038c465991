"""Work and økonomi of an example søknad: rows as the citizen fills them in, and as the registers give them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from random import Random

Obj: TypeAlias = dict[str, object]

_INNTEKTER: Final = (
    ("jobb", "Lønnsinntekt"),
    ("studielanOgStipend", "Studielån og -stipend"),
    ("barnebidrag", "Barnebidrag"),
    ("bostotte", "Bostøtte"),
)
_OVERSIKT_UTGIFTER: Final = (
    ("husleie", "Husleie"),
    ("barnehage", "Barnehage"),
    ("sfo", "SFO"),
    ("boliglanRenter", "Renter på boliglån"),
    ("barnebidrag", "Barnebidrag"),
)
_FORMUER: Final = (("brukskonto", "Brukskonto"), ("bsu", "BSU"), ("sparekonto", "Sparekonto"))
_UTGIFTER: Final = (
    ("strom", "Strøm (siste regning)"),
    ("kommunalAvgift", "Kommunal avgift (siste regning)"),
    ("oppvarming", "Oppvarming (siste regning)"),
    ("annenBoutgift", "Annen, bo (brukerangitt): reparasjon av vaskemaskin"),
    ("barnFritidsaktiviteter", "Fritidsaktiviteter for barn (siste regning) (brukerangitt): korps"),
    ("barnTannregulering", "Tannregulering for barn (siste regning)"),
    ("annen", "Annen (brukerangitt): bussbilletter til behandling"),
)
_BEKREFTELSER: Final = (
    ("bostotte", "Søkt eller mottatt bostøtte fra Husbanken."),
    ("verdi", "Eier noe av økonomisk verdi."),
    ("sparing", "Bankinnskudd eller annen sparing."),
    ("utbetaling", "Annen utbetaling"),
    ("boutgifter", "Boutgifter"),
    ("barneutgifter", "Utgifter til barn"),
)
_ARBEIDSGIVERE: Final = ("Prøvebakeriet AS", "Eksempelbuss AS", "Testvask og Renhold AS", "Konvoluttfabrikken AS")


def make_okonomi(rng: Random, *, short: bool) -> Obj:
    """Return ``data.okonomi``: one row of each sort when ``short``, else all that the tables have."""

    def belop(most: int) -> int:
        return rng.randint(1, most // 50) * 50

    def some(rows: tuple[tuple[str, str], ...]) -> list[tuple[str, str]]:
        return rng.sample(rows, 1) if short else [*rows]

    return {
        "opplysninger": {
            "utbetaling": [] if short else _utbetalinger(rng),
            "utgift": [_row(type_, tittel, belop=belop(4000)) for type_, tittel in some(_UTGIFTER)],
            "bekreftelse": [
                {"kilde": "bruker", "type": type_, "tittel": tittel, "verdi": True}
                for type_, tittel in some(_BEKREFTELSER)
            ],
        },
        "oversikt": {
            "inntekt": [
                _row(t, tittel, brutto=(n := belop(20000)), netto=n * 3 // 4) for t, tittel in some(_INNTEKTER)
            ],
            "utgift": [_row(type_, tittel, belop=belop(9000)) for type_, tittel in some(_OVERSIKT_UTGIFTER)],
            "formue": [_row(type_, tittel, belop=belop(3000)) for type_, tittel in some(_FORMUER)],
        },
    }


def make_arbeid(rng: Random, *, short: bool) -> Obj:
    """Return ``data.arbeid``: the citizen's own answer, or the register's employments and a comment on them."""
    if short:
        return {"situasjon": {"kilde": "bruker", "erIJobb": bool(rng.getrandbits(1))}}
    forhold = [
        {
            "kilde": "system",
            "arbeidsgivernavn": navn,
            "fom": f"20{rng.randint(15, 24)}-{rng.randint(1, 12):02d}-01",
            "stillingsprosent": rng.choice((20, 50, 80, 100)),
            "overstyrtAvBruker": False,
        }
        for navn in rng.sample(_ARBEIDSGIVERE, 2)
    ]
    return {
        "forhold": forhold,
        "kommentarTilArbeidsforhold": {"kilde": "bruker", "verdi": "Det første er bare ekstravakter i julen."},
    }


def _row(type_: str, tittel: str, **amounts: float) -> Obj:
    return {"kilde": "bruker", "type": type_, "tittel": tittel, **amounts, "overstyrtAvBruker": False}


def _utbetalinger(rng: Random) -> list[Obj]:
    """Return one payment of each source: the citizen, NAV, Skatteetaten and Husbanken."""
    lonn = float(rng.randint(50, 400) * 100)
    return [
        _row("salg", "Solgt eiendom og/eller eiendel", belop=rng.randint(1, 100) * 50),
        *(_ytelse(rng, tittel) for tittel in ("Sykepenger", "Arbeidsavklaringspenger", "Dagpenger")),
        {
            "kilde": "system",
            "type": "skatteopplysninger",
            "tittel": "Lønn",
            "brutto": lonn,
            "skattetrekk": -round(lonn * 0.25, 2),
            "periodeFom": "2025-12-01",
            "periodeTom": "2025-12-31",
            "organisasjon": {"navn": rng.choice(_ARBEIDSGIVERE), "organisasjonsnummer": "000000000"},
            "overstyrtAvBruker": False,
        },
        {
            "kilde": "system",
            "type": "husbanken",
            "tittel": "Statlig bostøtte",
            "netto": float(rng.randint(10, 40) * 100),
            "utbetalingsdato": "2026-01-20",
            "mottaker": "Husstand",
            "komponenter": [],
            "overstyrtAvBruker": False,
        },
    ]


def _ytelse(rng: Random, tittel: str) -> Obj:
    """Return a payment as NAV's own register gives it: with decimals, trekk and parts."""
    dager, sats = rng.randint(5, 22), rng.randint(300, 900)
    brutto = float(dager * sats)
    trekk = round(brutto * 0.22, 2)
    return {
        "kilde": "system",
        "type": "navytelse",
        "tittel": tittel,
        "brutto": brutto,
        "netto": round(brutto - trekk, 2),
        "skattetrekk": -trekk,
        "andreTrekk": 0.0,
        "utbetalingsdato": "2026-01-20",
        "periodeFom": "2025-12-01",
        "periodeTom": "2025-12-31",
        "komponenter": [
            {
                "type": "Grunnbeløp",
                "belop": brutto,
                "satsType": "Dag",
                "satsAntall": float(dager),
                "satsBelop": float(sats),
            }
        ],
        "overstyrtAvBruker": False,
    }
