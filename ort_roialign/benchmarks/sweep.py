"""The sweep: one property of a call varied at a time, and some random combinations."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from ort_roialign.benchmarks.problems import Single
from ort_roialign.benchmarks.workloads import BASE, Point

# Axis -> its values. The base's own value is among them, and stands for the one point `sweep/base`.
AXES: Mapping[str, Sequence[float]] = MappingProxyType(
    {
        "rois": (1, 3, 10, 30, 100, 300, 1000, 4000),
        "channels": (1, 3, 16, 64, 256, 1024, 2048),
        "bins": (1, 3, 7, 14, 28),
        "sampling": (0, 1, 2, 4),
        "size": (0.5, 1, 2, 5, 10, 20, 50, 100),
    }
)
AXIS_TEXTS: Mapping[str, str] = MappingProxyType(
    {
        "rois": "number of boxes",
        "channels": "channels",
        "bins": "bins along each axis",
        "sampling": "samples a bin along each axis (0: adaptive)",
        "size": "sides of every box, in cells of a map of 100x100",
    }
)
BASE_AXIS = "base"
RANDOM_AXIS = "random"
QUICK_AXIS = "rois"
BASE_TEXT = "256 channels, 100x100 map, boxes of 1 to 100 cells, 7x7 bins, sampling 2"
RANDOM_SEED = 2017
RANDOM_POINTS = 10
# Samples of a call, all channels: some seconds for the slowest contestant.
MOST_SAMPLES = 1e8


def sweep() -> list[Point]:
    """Return the base, the points of each axis without the base, and random combinations."""
    points = [Point(f"sweep/{BASE_AXIS}", f"300 boxes, {BASE_TEXT}", BASE, BASE_AXIS, quick=True)]
    for axis, values in AXES.items():
        points += [
            Point(
                f"sweep/{axis}={value:g}",
                f"{AXIS_TEXTS[axis]}: {value:g}",
                problem,
                axis,
                value,
                quick=axis == QUICK_AXIS,
            )
            for value in values
            if (problem := _with(axis, value)) != BASE
        ]
    return [*points, *_random_points()]


def base_value(axis: str) -> float:
    """Return the base's value on an axis; NaN where it has no single one."""
    values = [value for value in AXES[axis] if _with(axis, value) == BASE]
    return values[0] if values else math.nan


def _with(axis: str, value: float) -> Single:
    match axis:
        case "rois":
            return replace(BASE, rois=int(value))
        case "channels":
            return replace(BASE, channels=int(value))
        case "bins":
            return replace(BASE, bins=int(value))
        case "sampling":
            return replace(BASE, sampling_ratio=int(value))
        case _:
            return replace(BASE, shortest_cells=value, longest_cells=value)


def _random_points() -> Iterator[Point]:
    rng = np.random.default_rng(RANDOM_SEED)
    number = 0
    while number < RANDOM_POINTS:
        problem = _random_problem(rng)
        samples_a_bin = 9 if problem.sampling_ratio == 0 else problem.sampling_ratio**2
        samples = problem.rois * problem.channels * problem.bins**2 * samples_a_bin
        if samples > MOST_SAMPLES:
            continue
        number += 1
        text = (
            f"{problem.channels} channels, {problem.height}x{problem.width} map, {problem.rois} "
            f"boxes of {problem.shortest_cells:.2g} to {problem.longest_cells:.2g} cells, "
            f"{problem.bins}x{problem.bins} bins, sampling {problem.sampling_ratio}"
        )
        yield Point(f"sweep/random-{number}", text, problem, RANDOM_AXIS, number)


def _random_problem(rng: np.random.Generator) -> Single:
    def log_uniform(low: float, high: float) -> int:
        return round(math.exp(rng.uniform(math.log(low), math.log(high))))

    height, width = log_uniform(10, 250), log_uniform(10, 250)
    shortest = float(rng.choice([0.5, 2, 8]))
    return Single(
        channels=log_uniform(1, 2048),
        height=height,
        width=width,
        rois=log_uniform(1, 4000),
        bins=int(rng.choice([1, 3, 7, 14, 28])),
        sampling_ratio=int(rng.choice([0, 1, 2, 4])),
        shortest_cells=shortest,
        longest_cells=float(max(shortest, max(height, width) / rng.choice([1, 4]))),
    )
