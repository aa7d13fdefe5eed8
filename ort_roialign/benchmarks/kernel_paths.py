"""The two ways in which the CPU kernels pool: how to force one, and how to see which one ran."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import ort_roialign
from ort_roialign.errors import OrtRoiAlignError

FORCE_VARIABLE = "ORT_ROIALIGN_FORCE_PATH"
DIRECT, PACKED = "direct", "packed"
# Cell by cell, for checking the other two.
PLAIN = "plain"


def refuse_forced_path() -> None:
    """Check that the environment leaves the choice of a path to the library.

    Raises:
        OrtRoiAlignError: if it does not.
    """
    forced = os.environ.get(FORCE_VARIABLE)
    if forced:
        raise OrtRoiAlignError(
            f"ort-roialign bench forces paths itself, so {FORCE_VARIABLE} must not be set; "
            f"got {forced}"
        )


@contextmanager
def forced_path(path: str) -> Iterator[None]:
    """Let sessions created in the block take one path, and restore the environment after it."""
    before = os.environ.get(FORCE_VARIABLE)
    os.environ[FORCE_VARIABLE] = path
    try:
        yield
    finally:
        if before is None:
            del os.environ[FORCE_VARIABLE]
        else:
            os.environ[FORCE_VARIABLE] = before


def paths_taken(run: Callable[[], object]) -> Counter[str]:
    """Run something and return how many of its calls of RoIAlign took which path.

    Raises:
        OrtRoiAlignError: if kernels of another instruction set ran than those the library names.
    """
    before = ort_roialign.cpu_state()
    run()
    after = ort_roialign.cpu_state()
    paths: Counter[str] = Counter()
    for isa, calls in after["calls"].items():
        new = {path: count - before["calls"][isa][path] for path, count in calls.items()}
        if isa != after["isa"] and any(new.values()):
            raise OrtRoiAlignError(f"kernels of {isa} ran, where those of {after['isa']} should")
        paths.update({path: count for path, count in new.items() if count})
    return paths


def require_path(run: Callable[[], object], path: str, point: str) -> None:
    """Run something and check that all its calls took one path.

    Args:
        run: what to run.
        path: the path that was forced.
        point: what runs, for the message.

    Raises:
        OrtRoiAlignError: if another path ran, or none.
    """
    paths = paths_taken(run)
    if set(paths) != {path}:
        raise OrtRoiAlignError(
            f"{point}: path {path} was forced, but {path_text(paths) or 'none'} ran"
        )


def path_text(paths: Counter[str]) -> str:
    """Return `packed`, or `direct and packed` for calls that differ."""
    return " and ".join(sorted(paths))
