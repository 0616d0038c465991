"""Options that several commands share, so that they mean and say the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from broker.supervisor.layout import DEFAULT_FOLDER, DEFAULT_FOLDER_ENV

DataOption = Annotated[
    Path,
    typer.Option(
        "--data",
        envvar=DEFAULT_FOLDER_ENV,
        help="Mappen som `formidler up` holder alt i.",
        file_okay=False,
        default_factory=lambda: DEFAULT_FOLDER,
        show_default=str(DEFAULT_FOLDER),
    ),
]

JsonOption = Annotated[bool, typer.Option("--json", help="Skriv JSON, for maskiner.")]
