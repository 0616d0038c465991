"""A package of any size is sealed and opened in constant memory; the benchmark measures the same for 150 MB."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "_memory_crypto.py"


def test_30_mb_are_sealed_and_opened_within_8_mib_over_idle() -> None:
    done = subprocess.run([sys.executable, SCRIPT, "30"], capture_output=True, text=True, check=True)

    assert 0 <= float(done.stdout) <= 8
