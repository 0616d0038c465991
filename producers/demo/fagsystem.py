"""The simulated fagsystemer: their operators' switches, and what they have on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Fagsystem = Any
