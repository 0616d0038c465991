from __future__ import annotations

import re
from pathlib import Path

from typer.testing import CliRunner

from broker.cli.konvolutt import app

PAGE = Path(__file__).parents[4] / "docs/konvolutt.md"


def test_every_option_on_the_vendors_page_exists() -> None:
    page = PAGE.read_text("utf-8")
    helped = "".join(
        CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"}).stdout
        for command in ("seal", "open", "inspect")
    )
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", page))
    assert len(named) > 10
    assert {option for option in named if option not in helped} == set()
