"""Norway's kommuner and their NAV offices, as the package carries them (``broker/data``)."""

from __future__ import annotations

import csv
from functools import cache
from importlib.resources import files
from typing import Final

from schemas.names import Enhetsnummer, Kommunenummer, Organisasjonsnummer

_WEIGHTS: Final = (3, 2, 7, 6, 5, 4, 3, 2)


@cache
def kommune_names() -> dict[Kommunenummer, str]:
    """Return the official name of each of the 357 kommuner of 2024, by number."""
    return {Kommunenummer(row["kommunenummer"]): row["navn"] for row in _rows("kommuner.csv")}


@cache
def offices(kommunenummer: Kommunenummer) -> dict[Enhetsnummer, str]:
    """Return the names of the kommune's NAV offices, by enhetsnummer; empty when we know none."""
    found = (row for row in _rows("navkontor.csv") if row["kommunenummer"] == kommunenummer)
    return {Enhetsnummer(row["enhetsnummer"]): row["navn"] for row in found}


def made_up_organisasjonsnummer(seed: int) -> Organisasjonsnummer:
    """Return a well-formed organisasjonsnummer that stands for no real organisation's, for the local set-up.

    Args:
        seed: Up to five digits, for example a kommunenummer. Real numbers begin with 8 or 9; these begin with 1.
    """
    for filler in range(100):
        digits = f"1{seed:05d}{filler:02d}"
        check = 11 - sum(int(digit) * weight for digit, weight in zip(digits, _WEIGHTS, strict=True)) % 11
        if check != 10:  # noqa: PLR2004 - modulus 11 has no digit for ten; the next filler has one
            return Organisasjonsnummer(f"{digits}{check % 11}")
    raise AssertionError("one in eleven fillers has no check digit, never a hundred in a row")


def _rows(name: str) -> list[dict[str, str]]:
    text = files("broker").joinpath("data", name).read_text("utf-8")
    return list(csv.DictReader(text.splitlines()))
