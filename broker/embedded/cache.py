"""Where downloads and archives lie between runs: the user's cache folder, so that a second clone pays nothing.

A folder in it is made in full beside its place, then renamed: whoever finds it finds it whole.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def cache_folder(environment: Mapping[str, str]) -> Path:
    """Return our folder in the XDG cache, made if need be: ``$XDG_CACHE_HOME`` or ``~/.cache``, then ``meldingsformidler``."""
    root = environment.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    folder = Path(root) / "meldingsformidler"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def ensure_folder(folder: Path, make: Callable[[Path], None]) -> Path:
    """Return ``folder``, made by ``make`` if it is not there.

    One process at a time makes it; the others wait. What fails half-way leaves nothing.

    Args:
        folder: Its final place.
        make: Fills the empty folder that it is given.
    """
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if folder.is_dir():
            return folder
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            make(temporary)
            temporary.chmod(0o755)
            temporary.rename(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return folder
