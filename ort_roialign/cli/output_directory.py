"""A directory for what a command writes, that is not left behind empty."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ort_roialign.errors import OrtRoiAlignError


@contextmanager
def output_directory(path: Path) -> Iterator[None]:
    """Make a directory for the block; remove it after a block that wrote nothing into it."""
    made = [directory for directory in (path, *path.parents) if not directory.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OrtRoiAlignError(f"cannot make the directory {path}: {error.strerror}") from error
    try:
        yield
    finally:
        for directory in made:
            with suppress(OSError):  # it is not empty, so it is wanted
                directory.rmdir()
