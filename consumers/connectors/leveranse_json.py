"""``leveranse.json``: what our connectors tell a fagsystem about a søknad, beside its files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from broker.clock import timestamp

if TYPE_CHECKING:
    from consumers.connector import Leveranse


def leveranse_json(forsendelse: Leveranse) -> bytes:
    """Return the document, UTF-8. Fields are added, never changed."""
    document = {
        "meldingId": forsendelse.melding_id,
        "digisosId": forsendelse.digisos_id,
        "kommunenummer": forsendelse.kommunenummer,
        "navEksternRefId": forsendelse.nav_ekstern_ref_id,
        "enhetsnummer": forsendelse.enhetsnummer,
        "hastegrad": forsendelse.hastegrad,
        "type": forsendelse.type,
        "innsendt": timestamp(forsendelse.innsendt),
        "avsender": forsendelse.avsender,
        "filer": [
            {"filnavn": file.name, "mimetype": file.mimetype, "storrelse": file.size, "sha256": file.sha256}
            for file in forsendelse.files
        ],
    }
    return json.dumps(document, ensure_ascii=False, indent=2).encode()
