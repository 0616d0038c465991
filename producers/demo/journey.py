"""One søknad's way through the day, as the citizen saw it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from producers.demo.plan import PlannedSoknad, Role
from schemas.names import DigisosId

DONE: Final = "FERDIGBEHANDLET"
REFUSED: Final = frozenset({Role.AVVISES, Role.ENDRES})


@dataclass
class Journey:
    """What happened to one søknad.

    Attributes:
        planned: What was sent.
        digisos_id: The answer to the submission.
        repeated: The answer when it was sent once more, for the one that is.
        sent_at: When the submission was begun.
        view: The citizen's latest view.
    """

    planned: PlannedSoknad
    sent_at: datetime
    digisos_id: DigisosId | None = None
    repeated: DigisosId | None = None
    view: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def status(self) -> str:
        """What the citizen sees; empty before the first answer."""
        return str(self.view.get("status", ""))

    @property
    def codes(self) -> list[str]:
        """The codes of the answers that were not the end, oldest first."""
        return [str(line["kode"]) for line in self.history if line.get("kode")]

    @property
    def history(self) -> list[dict[str, Any]]:
        """The view's history, oldest first."""
        return list(self.view.get("historikk", []))

    @property
    def answered(self) -> bool:
        """Whether the kommune's side has said anything."""
        return any(line["type"] == "kvittering" for line in self.history)

    @property
    def ended(self) -> bool:
        """Whether it has come as far as it will today."""
        return bool(self.codes) if self.planned.role in REFUSED else self.status == DONE

    def timeline(self) -> list[tuple[float, str]]:
        """Return ``(seconds after it was sent, what happened)``, oldest first."""
        lines = [(datetime.fromisoformat(line["tidspunkt"]), line) for line in self.history]
        return [
            ((at - self.sent_at).total_seconds(), line["verdi"] + (f" ({line['kode']})" if line.get("kode") else ""))
            for at, line in lines
            if line["type"] != "sak" or line["verdi"] != "MOTTATT"  # the case repeats what the kvittering said
        ]
