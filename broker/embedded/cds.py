"""An archive of the classes that a Kafka start loads (AppCDS), so that a start takes a third of the time.

Java writes it at the end of a run that was told to, for one class path and one Java version. It is a by-product: the first
broker that stops in good order leaves it, and where there is none Kafka starts all the same.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from broker.embedded.cache import cache_folder
from broker.embedded.jars import class_path_id

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from broker.embedded.java import Java


@dataclass(frozen=True, slots=True)
class ClassArchive:
    """One archive: its final place, and where this run would write it."""

    path: Path
    draft: Path

    def options(self) -> list[str]:
        """Return Java's options: use the archive, or write it when there is none."""
        if self.path.exists():
            return [f"-XX:SharedArchiveFile={self.path}", "-Xshare:auto"]
        return [f"-XX:ArchiveClassesAtExit={self.draft}"]

    def keep(self) -> None:
        """Put what this run wrote in its place; whoever comes second replaces an equal file."""
        with contextlib.suppress(FileNotFoundError):
            self.draft.replace(self.path)

    def drop(self) -> None:
        """Remove what a run that was killed may have half written."""
        self.draft.unlink(missing_ok=True)


def class_archive(jars: tuple[Path, ...], java: Java, environment: Mapping[str, str]) -> ClassArchive:
    """Return the archive for these jars and this Java; it may not exist yet."""
    folder = cache_folder(environment) / "cds"
    folder.mkdir(exist_ok=True)
    name = f"{class_path_id(jars)}-{java.version}"
    return ClassArchive(folder / f"{name}.jsa", folder / f".{name}.{os.getpid()}.jsa")
