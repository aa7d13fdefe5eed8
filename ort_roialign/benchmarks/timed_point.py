"""Everything that is measured at one point: contestants, paths, variants and threads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ort_roialign.benchmarks.agreement import require_agreement
from ort_roialign.benchmarks.disturbance import Disturbance
from ort_roialign.benchmarks.element_types import FLOAT32
from ort_roialign.benchmarks.kernel_paths import (
    PLAIN,
    forced_path,
    path_text,
    paths_taken,
    require_path,
)
from ort_roialign.benchmarks.measure import Effort, Timing, measure_interleaved
from ort_roialign.benchmarks.memory_floor import moved_bytes
from ort_roialign.benchmarks.problems import Array, Call
from ort_roialign.benchmarks.runners import (
    PLUGIN_DOMAIN,
    STANDARD_DOMAIN,
    Runner,
    SessionRunner,
    SessionSettings,
    TorchvisionRunner,
    bindable_types,
)
from ort_roialign.benchmarks.thread_scaling import ThreadScaling, measure_scaling
from ort_roialign.benchmarks.workloads import Point

OURS, ONNXRUNTIME, TORCHVISION = "ort_roialign", "onnxruntime", "torchvision"
CHOSEN = "chosen"
MAXIMUM = "max"
INPUT_SEED = 0
# A choice of a path that costs more than this is worth a look.
PATH_LIMIT = 1.15


@dataclass(frozen=True)
class PointSettings:
    """How points are measured.

    Attributes:
        threads: threads of every contestant.
        effort: how often each contestant runs.
        torchvision: whether torchvision takes part.
        scaling: whether large workloads also run on one thread.
    """

    threads: int
    effort: Effort
    torchvision: bool = True
    scaling: bool = False


@dataclass(frozen=True)
class Comparison:
    """Contestants that were timed in turn.

    Attributes:
        times: contestant -> its times.
    """

    times: dict[str, Timing]

    def speedup(self, contestant: str) -> float | None:
        """Return how many times as long as this package a contestant takes, by medians."""
        if contestant not in self.times:
            return None
        return self.times[contestant].median / self.times[OURS].median


@dataclass(frozen=True)
class PointResult(Comparison):
    """What was measured at a point.

    Attributes:
        point: where.
        calls: sizes and attributes of each call.
        moved_bytes: what the calls must read and write.
        path: the path that the library chose.
        path_times: `CHOSEN` and each path that takes this point -> times of this package.
        other_cores: cores that other processes kept busy meanwhile.
        variant_times: float32 averages, maxima and other types -> times of this package.
        variant_paths: likewise -> the path that the library chose.
        scaling: times of this package on one thread and on several.
    """

    point: Point
    calls: list[dict[str, Any]]
    moved_bytes: int
    path: str
    path_times: dict[str, Timing]
    other_cores: float = 0.0
    variant_times: dict[str, Timing] = field(default_factory=dict)
    variant_paths: dict[str, str] = field(default_factory=dict)
    scaling: ThreadScaling | None = None

    @property
    def better_path(self) -> str:
        """The faster one of the paths that take this point."""
        return min(self.point.paths, key=lambda path: self.path_times[path].median)

    @property
    def path_ratio(self) -> float:
        """The chosen path's time over that of the better one."""
        return self.path_times[CHOSEN].median / self.path_times[self.better_path].median

    def variant_ratio(self, variant: str) -> float | None:
        """Return a variant's time over that of float32 averages."""
        if variant not in self.variant_times:
            return None
        return self.variant_times[variant].median / self.variant_times["float32"].median


def measure_point(point: Point, settings: PointSettings) -> PointResult:
    """Draw a point's inputs, check that all contestants agree on them, and time them.

    Args:
        point: what to measure.
        settings: how.

    Raises:
        OrtRoiAlignError: if outputs differ, or a forced path did not run.
    """
    calls = point.problem.calls(np.random.default_rng(INPUT_SEED))
    ours = SessionRunner(calls, SessionSettings(PLUGIN_DOMAIN, settings.threads))
    expected = ours.outputs()
    contestants = _contestants(calls, settings, ours)
    _check_all(point.name, calls, expected, contestants)
    path_runners = _path_runners(point, calls, settings, ours)
    _check_all(point.name, calls, expected, path_runners)
    for path in point.paths:
        require_path(path_runners[path], path, point.name)
    disturbance = Disturbance()
    result = PointResult(
        point=point,
        calls=[call.facts for call in calls],
        moved_bytes=moved_bytes(calls),
        times=measure_interleaved(contestants, settings.effort),
        path=path_text(paths_taken(ours)),
        path_times=_measure_paths(path_runners, settings.effort),
    )
    del contestants, path_runners
    if point.variants:
        times, paths = _measure_variants(point.name, calls, settings, expected)
        result = replace(result, variant_times=times, variant_paths=paths)
    if point.large and settings.scaling:
        result = replace(result, scaling=_measure_threads(calls, settings))
    return replace(result, other_cores=disturbance.cores())


def _contestants(calls: list[Call], settings: PointSettings, ours: Runner) -> dict[str, Runner]:
    standard = SessionSettings(STANDARD_DOMAIN, settings.threads)
    contestants: dict[str, Runner] = {OURS: ours, ONNXRUNTIME: SessionRunner(calls, standard)}
    if settings.torchvision:
        contestants[TORCHVISION] = TorchvisionRunner(calls, settings.threads)
    return contestants


def _path_runners(
    point: Point, calls: list[Call], settings: PointSettings, ours: Runner
) -> dict[str, Runner]:
    runners: dict[str, Runner] = {CHOSEN: ours}
    for path in point.paths:
        with forced_path(path):
            runners[path] = SessionRunner(calls, SessionSettings(PLUGIN_DOMAIN, settings.threads))
    return runners


def _check_all(
    point: str, calls: list[Call], expected: list[Array], runners: Mapping[str, Runner]
) -> None:
    for name, runner in runners.items():
        outputs = runner.outputs()
        require_agreement(point, name, calls, expected, outputs, FLOAT32.tolerance)


def _measure_paths(runners: Mapping[str, Runner], effort: Effort) -> dict[str, Timing]:
    """Time the paths; where the chosen one seems wrong, a longer second measurement decides."""
    times = measure_interleaved(runners, effort)
    better = min(times[path].median for path in runners if path != CHOSEN)
    if times[CHOSEN].median > PATH_LIMIT * better:
        times = measure_interleaved(runners, Effort(3 * effort.rounds, 3 * effort.seconds))
    return times


def _measure_variants(
    point: str, calls: list[Call], settings: PointSettings, expected: list[Array]
) -> tuple[dict[str, Timing], dict[str, str]]:
    """Return the times and paths of float32 averages, of maxima and of the other types."""
    runners: dict[str, Callable[[], object]] = {}
    for name, element_type in bindable_types().items():
        session = SessionSettings(PLUGIN_DOMAIN, settings.threads, element_type=element_type)
        runner = SessionRunner(calls, session)
        outputs = runner.outputs()
        require_agreement(point, name, calls, expected, outputs, element_type.tolerance)
        runners[name] = runner
    maximum = SessionSettings(PLUGIN_DOMAIN, settings.threads, mode="max")
    with forced_path(PLAIN):  # no peer has the same maximum
        maxima = SessionRunner(calls, maximum).outputs()
    runner = SessionRunner(calls, maximum)
    require_agreement(point, MAXIMUM, calls, maxima, runner.outputs(), FLOAT32.tolerance)
    runners[MAXIMUM] = runner
    paths = {name: path_text(paths_taken(run)) for name, run in runners.items()}
    return measure_interleaved(runners, settings.effort), paths


def _measure_threads(calls: list[Call], settings: PointSettings) -> ThreadScaling:
    def runner(threads: int) -> Runner:
        return SessionRunner(calls, SessionSettings(PLUGIN_DOMAIN, threads))

    return measure_scaling(runner, settings.threads, settings.effort)
