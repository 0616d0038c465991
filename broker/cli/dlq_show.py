"""How dead letters, plans and outcomes look: for people, and as documents for machines."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from rich.markup import escape

from broker.cli.output import console, table
from broker.clock import timestamp
from broker.durations import format_duration

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from broker.dlq.desk import Resultat
    from broker.dlq.plan import Plan
    from broker.dlq.state import Sak, Tvil
    from broker.revisjonskontroll import Act
    from broker.styring import Forslag
    from schemas.records import DeadLetterRecord

_MINUTE: Final = 60

WHY: Final = {
    "strippet": "innholdet fikk ikke plass i brevet; send fra avsenders kopi: formidler recall send --melding ID",
    "utlopt": "fristen er ute, så ingen konnektor begynner på den; neste kanal har meldingen",
    "fremmed": "brevet sier at det kommer fra en annen kommunes emne; meld fra til leverandøren",
    "parkert": "parkert av en operatør; bruk --tving",
    "lokkevern": "gjenkjørt for mange ganger; finn årsaken, og bruk --tving",
    "venter": "venter bak et tidligere brev i samme søknad som ikke går",
    "ubesvart": "er gjenkjørt, og fagsystemet har ikke svart; bruk --tving for å sende det på nytt",
}
"""Why a letter stays, and what to do about it."""


def sak_document(sak: Sak) -> dict[str, Any]:
    """Return a sak for machines; never anything from the package."""
    letter = sak.newest
    return {
        "id": letter.id,
        "tilstand": sak.tilstand,
        "arsak": sak.arsak,
        "kommunenummer": letter.kommunenummer,
        "digisosId": letter.digisos_id,
        "meldingId": letter.melding_id,
        "kode": letter.kode,
        "trinn": letter.trinn,
        "tidspunkt": timestamp(letter.tidspunkt),
        "forst": timestamp(sak.first.tidspunkt),
        "type": letter.type,
        "hastegrad": letter.hastegrad,
        "skjema": letter.skjema,
        "avsenderversjon": letter.avsenderversjon,
        "innsendt": None if letter.innsendt is None else timestamp(letter.innsendt),
        "gyldigTil": None if letter.gyldig_til is None else timestamp(letter.gyldig_til),
        "forsok": sak.attempts,
        "runder": letter.gjenkjoringer,
        "strippet": letter.is_stripped,
        "bak": sak.bak,
        "venter": list(sak.venter),
        "utenVirkning": len(sak.uten_virkning),
    }


def doubts(saker: Iterable[Sak]) -> list[Tvil]:
    """Return the acts on these that do not count."""
    return [tvil for sak in saker for tvil in sak.uten_virkning]


def show_doubts(found: Sequence[Tvil]) -> None:
    """Print how many acts do not count, and why."""
    if found:
        console.print(
            f"[red]{len(found)} handlinger teller ikke[/]; se `formidler dlq show ID` og `formidler revisjon verify`:",
            soft_wrap=True,
        )
    for why, count in Counter(tvil.tekst for tvil in found).most_common():
        console.print(f"  {count} fordi {escape(why)}", soft_wrap=True)


def groups(saker: Iterable[Sak], now: datetime) -> list[dict[str, Any]]:
    """Return the saker by reason: the urgent groups first, then the largest."""
    found: dict[tuple[str, str, str], list[Sak]] = defaultdict(list)
    for sak in saker:
        found[sak.newest.kode, sak.newest.trinn, sak.newest.kommunenummer].append(sak)
    documents = [
        {
            "kode": kode,
            "trinn": trinn,
            "kommunenummer": kommune,
            "antall": len(some),
            "apne": _count(some, "APEN"),
            "gjenkjorte": _count(some, "GJENKJORT"),
            "parkerte": _count(some, "PARKERT"),
            "utlopte": _count(some, "UTLOPT"),
            "lukkede": _count(some, "LUKKET"),
            "nodhjelp": sum(sak.newest.is_urgent for sak in some),
            "eldste": timestamp(oldest := min(sak.first.tidspunkt for sak in some)),
            "eldsteAlderS": round((now - oldest).total_seconds()),
        }
        for (kode, trinn, kommune), some in found.items()
    ]
    return sorted(documents, key=lambda one: (-one["nodhjelp"], -one["antall"], one["kode"], one["kommunenummer"]))


def show_groups(documents: Sequence[dict[str, Any]], unreadable: int, found: Sequence[Tvil]) -> None:
    """Print the groups, and what is doubtful: records that cannot be read, acts that do not count."""
    rows = [
        (
            escape(d["kode"]),
            d["trinn"],
            d["kommunenummer"],
            str(d["antall"]),
            str(d["apne"]),
            str(d["gjenkjorte"]),
            str(d["parkerte"]),
            str(d["utlopte"]),
            str(d["nodhjelp"] or "–"),
            _age(d["eldsteAlderS"]),
        )
        for d in documents
    ]
    columns = ("Kode", "Trinn", "Kommune", "Antall", "Åpne", "Gjenkjørt", "Parkert", "Utløpt", "Nødhjelp", "Eldste")
    if rows:
        table(*columns, rows=rows)
    else:
        console.print("ingen døde brev")
    if unreadable:
        console.print(f"[red]{unreadable} oppføringer kan ikke leses[/]: de er ikke døde brev fra en konnektor herfra")
    show_doubts(found)


def show_details(saker: Iterable[Sak], found: Sequence[Tvil]) -> None:
    """Print one line for each sak, and the acts that do not count."""
    rows = [
        (
            sak.id,
            sak.tilstand + (f" ({sak.arsak})" if sak.arsak else ""),
            sak.newest.kommunenummer,
            escape(sak.newest.kode),
            sak.newest.type or "–",
            str(sak.newest.gjenkjoringer),
            sak.bak or "–",
        )
        for sak in saker
    ]
    table("Brev", "Tilstand", "Kommune", "Kode", "Type", "Runder", "Venter bak", rows=rows)
    show_doubts(found)


def plan_document(plan: Plan) -> dict[str, Any]:
    """Return a plan for machines."""
    return {
        "antall": len(plan.steg),
        "gjenkjores": [
            {
                "id": step.letter.id,
                "kommunenummer": step.letter.kommunenummer,
                "digisosId": step.letter.digisos_id,
                "kode": step.letter.kode,
                "runde": step.runde,
                "folgerMed": step.medfulgt,
                "forbi": step.forbi,
            }
            for step in plan.steg
        ],
        "holdes": [
            {"id": held.sak.id, "grunn": held.grunn, "bak": held.bak, "tekst": WHY[held.grunn]} for held in plan.holdt
        ],
    }


def show_plan(plan: Plan, *, done: bool = False) -> None:
    """Print a plan: everything that goes when it is asked for, and what stays."""
    if not done:
        rows = [
            (
                str(nr),
                step.letter.id,
                step.letter.kommunenummer,
                escape(step.letter.kode),
                str(step.runde),
                "følger med" if step.medfulgt else "",
            )
            for nr, step in enumerate(plan.steg, 1)
        ]
        if rows:
            table("Nr", "Brev", "Kommune", "Kode", "Runde", "", rows=rows)
        console.print(f"{len(plan.steg)} brev gjenkjøres")
    for held in plan.holdt:
        behind = f" ({held.bak})" if held.bak else ""
        console.print(f"holdes: {held.sak.id}: {WHY[held.grunn]}{behind}", soft_wrap=True)


def result_document(resultat: Resultat) -> dict[str, Any]:
    """Return what came of a command for machines."""
    document: dict[str, Any] = {"forslag": resultat.forslag}
    if resultat.plan is not None:
        document["plan"] = plan_document(resultat.plan)
    if resultat.utfall is not None:
        document |= {
            "sendt": resultat.utfall.sendt,
            "feilet": resultat.utfall.feilet,
            "igjen": resultat.utfall.igjen,
            "avbrutt": resultat.utfall.avbrutt,
        }
    if resultat.merket:
        document["brev"] = list(resultat.merket)
    return document


def show_result(resultat: Resultat, what: str) -> None:
    """Print what came of a command; ``what`` is the act in the past tense."""
    utfall = resultat.utfall
    if resultat.plan is not None:
        show_plan(resultat.plan, done=True)
    if resultat.forslag is not None and not resultat.utfort:
        console.print(
            "Det er flere enn du kan gjøre alene i løpet av 24 timer. "
            f"Forslaget er [bold]{resultat.forslag}[/]; en annen operatør kjører:\n"
            f"  formidler dlq approve {resultat.forslag}",
            soft_wrap=True,
        )
    elif utfall is not None:
        console.print(f"{utfall.sendt} brev {what}")
        for brev, code in utfall.feilet.items():
            console.print(f"[red]gikk ikke[/]: {brev} ({escape(code)})", soft_wrap=True)
        if utfall.igjen:
            console.print(f"{utfall.igjen} brev er igjen; den samme kommandoen fortsetter der denne sluttet")
    elif resultat.merket:
        console.print(f"{len(resultat.merket)} brev {what}")
    else:
        console.print("ingenting å gjøre")


def letter_document(record: DeadLetterRecord) -> dict[str, Any]:
    """Return one round of a sak with everything that it carries but the package and the key's owner."""
    original = record.opprinnelig
    return {
        "id": record.dead_letter_id,
        "kode": record.kode,
        "trinn": record.trinn,
        "tidspunkt": timestamp(record.tidspunkt),
        "runder": record.gjenkjoringer,
        "forsok": [{"nr": f.nr, "tidspunkt": timestamp(f.tidspunkt), "kode": f.kode} for f in record.forsok],
        "opprinnelig": {
            "topic": original.topic,
            "partisjon": original.partisjon,
            "offset": original.offset,
            "tidsstempel": timestamp(original.tidsstempel),
            "storrelse": len(original.verdi or b""),
            "headere": {one.navn: _text(one.verdi or b"") for one in original.headere},
        },
    }


def header_document(headers: Iterable[tuple[str, bytes]]) -> dict[str, str]:
    """Return a record's headers as text; bytes that are no text as hex."""
    return {name: _text(value) for name, value in headers}


def act_documents(sak: Sak) -> list[dict[str, Any]]:
    """Return the acts on a letter in their order, those that do not count too."""
    acts = [(act, None) for act in sak.handlinger] + [(tvil.act, tvil.tekst) for tvil in sak.uten_virkning]
    return [_act_document(act, why) for act, why in sorted(acts, key=lambda one: one[0].offset)]


def _act_document(act: Act, teller_ikke: str | None) -> dict[str, Any]:
    record = act.record
    return {
        "tidspunkt": timestamp(record.tidspunkt),
        "aktor": record.aktor,
        "handling": record.handling,
        "begrunnelse": record.begrunnelse,
        "detaljer": record.detaljer,
        "tellerIkke": teller_ikke,
    }


def forslag_document(forslag: Forslag) -> dict[str, Any]:
    """Return a proposal."""
    return {
        "id": forslag.id,
        "handling": forslag.handling,
        "tilstand": forslag.tilstand,
        "foreslattAv": forslag.foreslatt_av,
        "tidspunkt": timestamp(forslag.tidspunkt),
        "begrunnelse": forslag.act.record.begrunnelse,
        "antall": forslag.antall,
        "digest": forslag.digest,
        "utvalg": forslag.utvalg,
        "godkjentAv": forslag.godkjent_av,
    }


def show_sak(document: dict[str, Any]) -> None:
    """Print one sak with its rounds and acts."""
    for name in ("id", "tilstand", "arsak", "kommunenummer", "digisosId", "meldingId", "type", "hastegrad", "skjema"):
        console.print(f"{name:16}{escape(str(document[name] or '–'))}")
    for name in ("innsendt", "gyldigTil", "bak"):
        console.print(f"{name:16}{document[name] or '–'}")
    console.print(f"{'venter bak den':16}{', '.join(document['venter']) or '–'}", soft_wrap=True)
    for letter in document["brev"]:
        console.print(
            f"\n[bold]runde {letter['runder']}[/]: {escape(letter['kode'])} ved {letter['trinn']}, {letter['tidspunkt']}"
        )
        for attempt in letter["forsok"]:
            console.print(f"  forsøk {attempt['nr']}: {attempt['tidspunkt']} {escape(attempt['kode'])}")
        for name, value in letter["headere"].items():
            console.print(f"  {escape(name)}: {escape(value)}", soft_wrap=True)
    for act in document["handlinger"]:
        why = escape(act["begrunnelse"] or "")
        console.print(f"\n{act['tidspunkt']} {escape(act['aktor'])} {act['handling']}: {why}", soft_wrap=True)
        if act["tellerIkke"] is not None:
            console.print(f"  [red]TELLER IKKE[/]: {escape(act['tellerIkke'])}", soft_wrap=True)


def _text(value: bytes) -> str:
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        return value.hex()
    return text if text.isprintable() else value.hex()


def _count(saker: Iterable[Sak], tilstand: str) -> int:
    return sum(sak.tilstand == tilstand for sak in saker)


def _age(seconds: int) -> str:
    return format_duration(timedelta(seconds=max(seconds - seconds % _MINUTE, 0)))
