"""Files that appear when they are finished, with their weights before them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ort_roialign.errors import InvalidArgumentError


def check_place(path: Path, argument: str) -> None:
    """Check that a file may be written at a path.

    Args:
        path: of the file.
        argument: what the path is in the error, such as "export: path".

    Raises:
        InvalidArgumentError: if the path lies in no directory, or is one.
    """
    if not path.parent.is_dir() or path.is_dir():
        found = "which is a directory" if path.is_dir() else "whose directory is not there"
        raise InvalidArgumentError(
            f"{argument} must be a file in a directory that exists; got {str(path)!r}, {found}"
        )


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield a path to write a model to; it and all files beside it are moved to their places.

    Until then they are in a directory of their own, and are gone if an error ends the block.
    """
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as directory:
        unfinished = Path(directory) / path.name
        yield unfinished
        # The model comes last: what is there under its name always has its weights beside it.
        for each in sorted(Path(directory).iterdir(), key=lambda file: file == unfinished):
            os.replace(each, path.parent / each.name)
