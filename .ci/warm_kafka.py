"""Get Kafka ready: find Java, fetch the jars, and start and stop a broker once, which leaves the archive of its classes."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from broker.embedded.cds import class_archive
from broker.embedded.jars import find_jars
from broker.embedded.java import find_java
from broker.embedded.server import EmbeddedKafka
from schemas.errors import MeldingsformidlerError


def main() -> int:
    """Return 0 when a broker has started and stopped, or did so before."""
    try:
        archive = class_archive(find_jars(os.environ), find_java(os.environ), os.environ)
        if archive.path.exists():
            return 0
        sys.stderr.write("oppsett: starter Kafka en gang, så neste start går fort\n")
        with tempfile.TemporaryDirectory(prefix="formidler-kafka-") as folder, EmbeddedKafka(Path(folder)):
            pass
    except MeldingsformidlerError as error:
        sys.stderr.write(f"oppsett: feil: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
