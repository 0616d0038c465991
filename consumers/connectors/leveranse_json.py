"""``leveranse.json``: what our connectors tell a fagsystem about a søknad, beside its files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from broker.clock import timestamp

if TYPE_CHECKING:
    from consumers.connector import Leveranse


def leveranse_json(leveranse: Leveranse) -> bytes:
    """Return the document, UTF-8. Fields are added, never changed."""
    document = {
        "meldingId": leveranse.melding_id,
        "digisosId": leveranse.digisos_id,
        "kommunenummer": leveranse.kommunenummer,
        "navEksternRefId": leveranse.nav_ekstern_ref_id,
        "enhetsnummer": leveranse.enhetsnummer,
        "hastegrad": leveranse.hastegrad,
        "type": leveranse.type,
        "innsendt": timestamp(leveranse.innsendt),
        "avsender": leveranse.avsender,
        "filer": [
            {"filnavn": file.name, "mimetype": file.mimetype, "storrelse": file.size, "sha256": file.sha256}
            for file in leveranse.files
        ],
    }
    return json.dumps(document, ensure_ascii=False, indent=2).encode()
