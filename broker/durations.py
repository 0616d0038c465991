"""Durations as people write them: ``20d``, ``36h``, ``1d12h``, ``90m``, ``15s``, or ISO 8601 (``P20D``, ``PT36H``)."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Final

from pydantic import BeforeValidator

from schemas.errors import InvalidNameError

_SHORT: Final = re.compile(r"(?:(\d+)d)?(?:(\d+)[ht])?(?:(\d+)m)?(?:(\d+)s)?", re.ASCII | re.IGNORECASE)
_ISO: Final = re.compile(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)S)?)?", re.ASCII | re.IGNORECASE)
_MOST: Final = timedelta(days=100 * 366)


def parse_duration(text: str) -> timedelta:
    """Return the duration that ``text`` names.

    Raises:
        InvalidNameError: It names none, or more than a hundred years.
    """
    match = _ISO.fullmatch(text.strip()) or _SHORT.fullmatch(text.strip())
    numbers = [int(number or 0) for number in match.groups()] if match else []
    if match is None or not any(match.groups()):
        raise InvalidNameError("varighet skrives som 20d, 36h, 1d12h, 90m eller P20D")
    days, hours, minutes, seconds = numbers
    try:
        duration = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
    except OverflowError:
        duration = _MOST * 2
    if duration > _MOST:
        raise InvalidNameError("varigheten er lengre enn hundre år")
    return duration


def format_duration(duration: timedelta) -> str:
    """Return ``duration`` in whole seconds as ``parse_duration`` reads it: ``1d12h``; ``0s`` for none."""
    seconds = round(duration.total_seconds())
    days, rest = divmod(seconds, 86_400)
    hours, rest = divmod(rest, 3_600)
    minutes, left = divmod(rest, 60)
    parts = [f"{number}{unit}" for number, unit in ((days, "d"), (hours, "h"), (minutes, "m"), (left, "s")) if number]
    return "".join(parts) or "0s"


def _parsed(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return parse_duration(value)
    except InvalidNameError as error:
        raise ValueError(str(error)) from None  # pydantic collects these


Duration = Annotated[timedelta, BeforeValidator(_parsed)]
"""A setting that is a duration: as text like ``parse_duration`` reads, or a number of seconds."""
