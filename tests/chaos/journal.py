"""What the load did, written down before and after each step: the checker's only source of what should be there.

One JSON object a line. ``sender`` stands before a submission is begun and ``akseptert`` after its 202, so that a submission
without an answer is known to be one that may or may not have come through.

Shares no code with the product.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Ventet = Literal["MOTTATT", "AVVIST", "DOD", "PAPIR", "ETT"]
"""How a message must end. ``ETT``: in any one of these ways, as long as it is one."""


@dataclass
class Entry:
    """One message.

    Attributes:
        run: Which run of which scenario sent it.
        ref: The sender's own id.
        kommunenummer: The receiver.
        person: Whose it is; made up.
        files: SHA-256 in hex of each file that the fagsystem must end up with, by name.
        ventet: How it must end.
        digisos_id: The søknad's id; None until somebody has told us.
        accepted: Whether it was answered with 202.
        refused: What it was refused with.
        nr: Its place in its søknad: 0 for the søknad, then each ettersendelse.
    """

    run: str
    ref: str
    kommunenummer: str
    person: str
    files: dict[str, str]
    ventet: Ventet = "MOTTATT"
    digisos_id: str | None = None
    accepted: bool = False
    refused: str | None = None
    nr: int = 0


@dataclass(frozen=True)
class Poison:
    """A record that somebody laid on a topic and that must become a dead letter.

    Attributes:
        run: Which run laid it there.
        topic: Where.
        digest: SHA-256 in hex of its value.
        digisos_id: The søknad that its key names, if it names one.
    """

    run: str
    topic: str
    digest: str
    digisos_id: str | None


@dataclass
class Story:
    """Everything that a journal tells."""

    entries: dict[str, Entry] = field(default_factory=dict[str, Entry])
    poison: list[Poison] = field(default_factory=list[Poison])

    def of_run(self, run: str) -> Story:
        """Return what one run did."""
        return Story(
            {ref: entry for ref, entry in self.entries.items() if entry.run == run},
            [one for one in self.poison if one.run == run],
        )

    def tell(self, line: dict[str, Any]) -> None:
        """Take in one line."""
        match line.pop("hva"):
            case "sender":
                self.entries[line["ref"]] = Entry(**line)
            case "akseptert":
                entry = self.entries[line["ref"]]
                entry.accepted, entry.digisos_id = True, line["digisos_id"]
            case "avslatt":
                self.entries[line["ref"]].refused = line["hvorfor"]
            case "gift":
                self.poison.append(Poison(**line))
            case "venter":
                self.entries[line["ref"]].ventet = line["ventet"]
            case other:
                raise ValueError(other)


class Journal:
    """A story that is written down while it happens.

    Args:
        path: The file; continued if it is there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.story = read_journal(path) if path.exists() else Story()

    def sends(self, entry: Entry) -> None:
        """Note that a submission is about to begin."""
        known = {"run", "ref", "kommunenummer", "person", "files", "ventet", "digisos_id", "nr"}
        self._write({"hva": "sender", **{name: value for name, value in vars(entry).items() if name in known}})

    def accepted(self, ref: str, digisos_id: str) -> None:
        """Note a 202, or the answer that the reference was accepted before."""
        self._write({"hva": "akseptert", "ref": ref, "digisos_id": digisos_id})

    def refused(self, ref: str, why: str) -> None:
        """Note a refusal."""
        self._write({"hva": "avslatt", "ref": ref, "hvorfor": why})

    def expects(self, ref: str, ventet: Ventet) -> None:
        """Change how a message must end, since something was done to it."""
        self._write({"hva": "venter", "ref": ref, "ventet": ventet})

    def poisons(self, poison: Poison) -> None:
        """Note what is about to be laid on a topic."""
        self._write({"hva": "gift", **vars(poison)})

    def _write(self, line: dict[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
        self.story.tell(line)


def read_journal(path: Path) -> Story:
    """Return the story in a file."""
    story = Story()
    for line in path.read_text("utf-8").splitlines():
        story.tell(json.loads(line))
    return story
