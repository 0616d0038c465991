"""What a projection looks like from outside: to the citizen, to operators, and to whoever verifies the kvitteringer.

Shapes are JSON-ready dicts; times are ISO 8601 in UTC with milliseconds and ``Z``.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final

import orjson

from broker.clock import timestamp
from crypto.certificates import certificate_pem, nokkel_id
from kvittering.chain import connect
from schemas.records import StatusRecord

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cryptography import x509

    from kvittering.projection import Innslag, MeldingStatus, Projection

VERSION_CHARS: Final = 16


def citizen_view(projection: Projection) -> dict[str, Any]:
    """Return what the søknad's owner is shown.

    Returns:
        ``{digisosId, kommunenummer, navEksternRefId, status, oppdatert, historikk, kvitteringer}``, where ``historikk`` is
        ``[{tidspunkt, type, verdi, kanal?, kode?, utsteder?, forSent?}]`` by time and ``kvitteringer`` the JWSs that hold.
        ``forSent: true`` stands on what came too late to count.
    """
    return {
        "digisosId": projection.state.digisos_id,
        "kommunenummer": projection.kommunenummer,
        "navEksternRefId": projection.nav_ekstern_ref_id,
        "status": projection.status,
        "oppdatert": timestamp(projection.oppdatert) if projection.oppdatert else None,
        "historikk": [_line(one) for one in projection.historikk],
        "kvitteringer": [ledd.jws for ledd in projection.verdicts.holds],
    }


def operator_view(projection: Projection) -> dict[str, Any]:
    """Return what operators are shown: the same, with each message, the failure's code and what waits or was refused.

    Whose the søknad is, is left out: an operator needs an id to look it up, not a person.
    """
    state = projection.state
    return citizen_view(projection) | {
        "kode": projection.kode,
        "mottatt": timestamp(projection.mottatt) if projection.mottatt else None,
        "meldinger": [_melding(one) for one in projection.meldinger],
        "venter": [{"id": one, "kode": code} for one, code in projection.verdicts.waits.items()],
        "underkjent": [{"id": one, "kode": error.code} for one, error in projection.verdicts.refused.items()],
        "oppdateringer": [
            {"meldingId": h.melding_id, "tidspunkt": timestamp(h.tidspunkt), "vist": h.vist, "dokumenter": h.dokumenter}
            for h in state.hendelser
        ],
    }


def bundle(projection: Projection, certificates: Iterable[x509.Certificate]) -> dict[str, Any]:
    """Return the kvitteringer with the certificates to verify them by, offline (``formidler kvittering verify``).

    Every link of the chain is there, also one that counts for nothing: without it the next would hang in the air.

    Args:
        projection: The søknad.
        certificates: Those that may have signed; only the ones that did are included.
    """
    links = connect(projection.state.kvitteringer).linked
    used = {ledd.nokkel_id for ledd in links}
    pems = [
        certificate_pem(certificate).decode("ascii") for certificate in certificates if nokkel_id(certificate) in used
    ]
    return {
        "digisosId": projection.state.digisos_id,
        "kvitteringer": [ledd.jws for ledd in links],
        "sertifikater": pems,
    }


def status_record(projection: Projection) -> StatusRecord | None:
    """Return what the portal reads from ``fiks.status.v1``; None while the søknad itself is not known."""
    if projection.kommunenummer is None or projection.status is None or projection.oppdatert is None:
        return None
    return StatusRecord(
        digisos_id=projection.state.digisos_id,
        kommunenummer=projection.kommunenummer,
        status=projection.status,
        oppdatert=projection.oppdatert,
        kode=projection.kode,
    )


def encode_view(view: dict[str, Any]) -> bytes:
    """Return the view as JSON, UTF-8, the same bytes for the same view."""
    return orjson.dumps(view)


def version_of(view: bytes) -> str:
    """Return a name for exactly this view: 16 hex digits that a rebuild from topics gives again."""
    return hashlib.sha256(view).hexdigest()[:VERSION_CHARS]


def _line(line: Innslag) -> dict[str, Any]:
    optional = {"kanal": line.kanal, "kode": line.kode, "utsteder": line.utsteder, "meldingId": line.melding_id}
    present: dict[str, Any] = {name: value for name, value in optional.items() if value is not None}
    if line.for_sent:
        present["forSent"] = True
    return {"tidspunkt": timestamp(line.tidspunkt), "type": line.type, "verdi": line.verdi} | present


def _melding(one: MeldingStatus) -> dict[str, Any]:
    return {
        "meldingId": one.melding.melding_id,
        "navEksternRefId": one.melding.nav_ekstern_ref_id,
        "kommunenummer": one.melding.kommunenummer,
        "sha256": one.melding.sha256,
        "akseptert": timestamp(one.melding.akseptert),
        "status": one.status,
        "kode": one.kode,
    }
