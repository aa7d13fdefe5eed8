"""What several commands have in common: options, and errors as text."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ort_roialign.errors import OrtRoiAlignError

Threads = Annotated[
    int, typer.Option(min=0, help="Threads to compute with; 0: as many as there are cores.")
]

Libraries = Annotated[
    list[Path],
    typer.Option(
        "--library",
        exists=True,
        dir_okay=False,
        help="Library with other custom operators of the model; may be repeated.",
    ),
]


@contextmanager
def errors_as_text() -> Iterator[None]:
    """End the command with the text of an expected error, without a traceback."""
    try:
        yield
    except (OrtRoiAlignError, OSError) as error:  # such as a disk that is full
        console = Console(stderr=True)
        console.print(f"Error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None
