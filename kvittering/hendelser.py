"""Case updates: opening what the connector sealed for the sender's innsyn, and reading what the citizen is to be shown.

Rules:

1. A hendelse counts only if its package opens with the innsyn key, is signed by a certificate that the katalog holds for
   the kommune's connector, and says itself which søknad, update, kommune and type it is (``forsendelse.json``).
2. Nothing from inside leaves this module but statuses, their times and the number of documents. The package itself is kept
   sealed, as it was received.
3. The signer is judged at the time of the update, and when Kafka appended it (``chain``, rule 1c), not at the time of reading: a
   replay must give the same answer.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Final

from broker.clock import to_milliseconds
from crypto.certificates import nokkel_id
from crypto.envelope import check_forsendelse, open_package
from crypto.spool import Spool
from crypto.trust import Trust
from kvittering.facts import Sakshendelse, Statusendring
from schemas.codec import decode
from schemas.digisos_soker_json import (
    FERDIGBEHANDLET,
    FILENAME,
    UNDER_BEHANDLING,
    DigisosSoker,
    SaksStatus,
    SoknadsStatus,
    VedtakFattet,
    parse_digisos_soker,
)
from schemas.errors import InvalidDocumentError, MismatchError, PackageMissingError, UnsealError
from schemas.forsendelse import FILENAME as FORSENDELSE
from schemas.forsendelse import Forsendelse
from schemas.names import Kommunenummer, Sha256
from schemas.records import HENDELSE_DIGISOS_SOKER, HendelseRecord

if TYPE_CHECKING:
    from crypto.envelope import OpenedPackage
    from crypto.keys import KeyRing
    from kvittering.chain import Konnektor

MAX_DIGISOS_SOKER_BYTES: Final = 4 * 1024 * 1024
"""The file holds the whole history of a case; real ones are some tens of kilobytes."""


def read_hendelse(
    value: bytes, *, kommunenummer: Kommunenummer, konnektor: Konnektor, keys: KeyRing, lagret: datetime
) -> Sakshendelse:
    """Open and verify a case update (rule 1).

    Args:
        value: The record's value, Avro in the Confluent wire format.
        kommunenummer: Whose topic it was read from.
        konnektor: Who may sign in this kommune's name.
        keys: The innsyn keys.
        lagret: When Kafka appended the record: a certificate that had ended or was revoked by then signs nothing more.

    Raises:
        UnknownSchemaError: Not a hendelse record, or of a type that we do not know.
        DecodeError: The record cannot be read.
        MismatchError: It is another kommune's or connector's, or the package is not the one that the record names.
        PackageMissingError: The package is not in the record: case updates must be.
        UnsealError: The package does not open, or its signer is not the kommune's.
        InvalidDocumentError: There is no digisos-soker.json in it, or it breaks its format.
    """
    record = decode(HendelseRecord, value)
    if record.kommunenummer != kommunenummer:
        raise MismatchError("hendelsen gjelder en annen kommune enn emnet den kom på")
    if record.type != HENDELSE_DIGISOS_SOKER:
        raise InvalidDocumentError("hendelse", "type", "er ikke en type som kan vises")
    if record.pakke is None:
        raise PackageMissingError("hendelsens pakke er ikke i meldingen")
    if Sha256.of(record.pakke) != record.sha256:
        raise MismatchError("hendelsens pakke er ikke den som meldingen oppgir")
    with Spool() as spool:
        spool.write(record.pakke)
        spool.finish()
        trust = Trust(pinned=konnektor.in_time(record.tidspunkt, lagret))
        with open_package(spool, keys=keys, trust=trust, now=record.tidspunkt) as opened:
            check_forsendelse(_as_exact_as_a_record(opened.forsendelse), record.forsendelse())
            if record.avsender != konnektor.owner(nokkel_id(opened.signer)):
                raise MismatchError("hendelsens avsender er ikke konnektoren som eier sertifikatet")
            return _read(opened, record)


def _read(opened: OpenedPackage, record: HendelseRecord) -> Sakshendelse:
    documents = [file.name for file in opened.files if file.name not in {FILENAME, FORSENDELSE}]
    try:
        dokument = parse_digisos_soker(opened.read_bytes(FILENAME, MAX_DIGISOS_SOKER_BYTES))
    except (KeyError, StopIteration):
        raise InvalidDocumentError(FILENAME, "", "mangler i pakken") from None
    except ValueError:
        raise InvalidDocumentError(FILENAME, "", "er for stor") from None
    return Sakshendelse(
        melding_id=record.melding_id,
        digisos_id=record.digisos_id,
        kommunenummer=record.kommunenummer,
        avsender=record.avsender,
        tidspunkt=record.tidspunkt,
        statuser=statuses(dokument),
        vist=case_status(dokument),
        dokumenter=len(documents),
    )


def statuses(dokument: DigisosSoker) -> tuple[Statusendring, ...]:
    """Return every soknadsStatus in the file, by instant.

    Raises:
        InvalidDocumentError: A hendelsestidspunkt has the right form, but is no time that there is.
    """
    return tuple(
        Statusendring(status=hendelse.status, tidspunkt=_moment(hendelse.hendelsestidspunkt))
        for hendelse in dokument.in_order()
        if isinstance(hendelse, SoknadsStatus)
    )


def _moment(hendelsestidspunkt: str) -> datetime:
    try:
        return datetime.fromisoformat(hendelsestidspunkt)
    except ValueError:
        raise InvalidDocumentError(
            FILENAME, "hendelser.hendelsestidspunkt", "er ikke et tidspunkt som finnes"
        ) from None


def case_status(dokument: DigisosSoker) -> str | None:
    """Return what the citizen is to be shown, or None when the file does not say.

    It is the latest soknadsStatus, but FERDIGBEHANDLET is shown as UNDER_BEHANDLING while any sak is open: without a vedtak,
    and with status UNDER_BEHANDLING, which is also what a sak without a status has.

    Source: navikt/sosialhjelp-innsyn-api, domain/DigisosSoker.kt.
    """
    latest = dokument.latest_status()
    return UNDER_BEHANDLING if latest == FERDIGBEHANDLET and _has_open_sak(dokument) else latest


def _has_open_sak(dokument: DigisosSoker) -> bool:
    saker: dict[str, str] = {}
    decided: set[str] = set()
    for hendelse in dokument.in_order():
        if isinstance(hendelse, SaksStatus):
            saker[hendelse.referanse] = hendelse.status or UNDER_BEHANDLING
        elif isinstance(hendelse, VedtakFattet):
            decided.add(hendelse.saksreferanse)
    return any(status == UNDER_BEHANDLING for referanse, status in saker.items() if referanse not in decided)


def _as_exact_as_a_record(forsendelse: Forsendelse | None) -> Forsendelse | None:
    """Return it with the time cut to whole milliseconds, which is all that a record can say."""
    if forsendelse is None:
        raise UnsealError
    return forsendelse.model_copy(update={"opprettet": to_milliseconds(forsendelse.opprettet)})
