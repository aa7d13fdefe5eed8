"""What a run of the benchmark found, its summary, and the file that keeps all of it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ort_roialign.benchmarks.machine import Machine
from ort_roialign.benchmarks.measure import Timing, geometric_mean
from ort_roialign.benchmarks.thread_scaling import ThreadScaling
from ort_roialign.benchmarks.timed_point import (
    ONNXRUNTIME,
    PATH_LIMIT,
    TORCHVISION,
    Comparison,
    PointResult,
)
from ort_roialign.benchmarks.training import DIRECTIONS, TrainingResult

# Cores that other processes may keep busy; more makes times long and ratios wrong.
MOST_OTHER_CORES = 0.1
PEERS = (ONNXRUNTIME, TORCHVISION)
AnyResult = PointResult | TrainingResult


@dataclass(frozen=True)
class Results:
    """Everything that a run measured.

    Attributes:
        machine: where.
        points: workloads, then points of the sweep.
        training: operators in training.
    """

    machine: Machine
    points: tuple[PointResult, ...]
    training: tuple[TrainingResult, ...] = ()

    @property
    def workloads(self) -> list[PointResult]:
        """The points that are no part of the sweep."""
        return [result for result in self.points if not result.point.axis]

    @property
    def sweep(self) -> list[PointResult]:
        """The points of the sweep."""
        return [result for result in self.points if result.point.axis]

    def floor_seconds(self, result: PointResult) -> float:
        """Return the time that moving a point's data takes at the speed of copying."""
        return result.moved_bytes / self.machine.copy_bytes_per_second

    @property
    def compared(self) -> dict[str, list[Comparison]]:
        """The points with peers, in the groups that have a mean each."""
        groups: dict[str, list[Comparison]] = {
            "workloads": [*self.workloads],
            "sweep": [*self.sweep],
        }
        for direction in DIRECTIONS:
            comparisons = [result.directions[direction] for result in self.training]
            groups[f"training_{direction}"] = [c for c in comparisons if TORCHVISION in c.times]
        return groups

    @property
    def measured(self) -> list[AnyResult]:
        """The points of all parts."""
        return [*self.points, *self.training]

    @property
    def disturbed(self) -> list[AnyResult]:
        """The points while which other processes took more than a little of the machine."""
        return [result for result in self.measured if result.other_cores > MOST_OTHER_CORES]

    @property
    def worst_paths(self) -> list[PointResult]:
        """All points, the one with the worst choice of a path first."""
        return sorted(self.points, key=lambda result: result.path_ratio, reverse=True)

    @property
    def slow_paths(self) -> list[PointResult]:
        """The points whose chosen path is slower than the better one by more than the limit."""
        return [result for result in self.worst_paths if result.path_ratio > PATH_LIMIT]


def mean_speedup(results: Iterable[Comparison], contestant: str) -> float:
    """Return the geometric mean of a contestant's times over ours; NaN where it has none."""
    speedups = (result.speedup(contestant) for result in results)
    return geometric_mean(speedup for speedup in speedups if speedup is not None)


def write_json(results: Results, path: Path) -> None:
    """Write everything; times are in seconds a call."""
    text = json.dumps(_as_json(results), indent=1, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def _as_json(results: Results) -> dict[str, Any]:
    parts = {"workloads": results.workloads, "sweep": results.sweep}
    return {
        "machine": results.machine.facts,
        "summary": {
            "geometric_mean_speedup": {
                group: {
                    peer: mean_speedup(members, peer)
                    for peer in PEERS
                    if any(peer in member.times for member in members)
                }
                for group, members in results.compared.items()
            },
            "disturbed": {
                "limit_cores": MOST_OTHER_CORES,
                "points": [result.point.name for result in results.disturbed],
            },
            "paths": _paths_as_json(results),
        },
        **{
            part: [_point_as_json(results, member) for member in members]
            for part, members in parts.items()
        },
        "training": [_training_as_json(result) for result in results.training],
    }


def _paths_as_json(results: Results) -> dict[str, Any]:
    if not results.points:
        return {}
    return {
        "limit": PATH_LIMIT,
        "worst_point": results.worst_paths[0].point.name,
        "worst_ratio": results.worst_paths[0].path_ratio,
        "over_limit": [result.point.name for result in results.slow_paths],
    }


def _point_as_json(results: Results, result: PointResult) -> dict[str, Any]:
    point = result.point
    facts: dict[str, Any] = {
        "name": point.name,
        "description": point.description,
        "calls": result.calls,
        "moved_bytes": result.moved_bytes,
        "memory_floor": results.floor_seconds(result),
        "other_cores": result.other_cores,
        **_comparison_as_json(result),
        "paths": {
            "chosen": result.path,
            "better": result.better_path,
            "ratio": result.path_ratio,
            "times": _timings_as_json(result.path_times),
        },
    }
    if point.axis:
        facts |= {"axis": point.axis, "value": point.value}
    if result.variant_times:
        facts["variants"] = {
            "paths": result.variant_paths,
            "ratio_to_float32": {name: result.variant_ratio(name) for name in result.variant_times},
            "times": _timings_as_json(result.variant_times),
        }
    if result.scaling is not None:
        facts["threads"] = _scaling_as_json(result.scaling)
    return facts


def _training_as_json(result: TrainingResult) -> dict[str, Any]:
    return {
        "name": result.point.name,
        "description": result.point.description,
        "operator": result.point.operator,
        "calls": result.calls,
        "other_cores": result.other_cores,
        **{name: _comparison_as_json(times) for name, times in result.directions.items()},
    }


def _comparison_as_json(result: Comparison) -> dict[str, Any]:
    return {
        "times": _timings_as_json(result.times),
        "speedup": {peer: result.speedup(peer) for peer in PEERS if peer in result.times},
    }


def _scaling_as_json(scaling: ThreadScaling) -> dict[str, Any]:
    return {
        "times": {str(count): timing.facts for count, timing in scaling.times.items()},
        "matrix_product": {
            str(count): timing.facts for count, timing in scaling.machine_times.items()
        },
        "speedup": scaling.speedup,
        "matrix_product_speedup": scaling.machine_speedup,
        "speedup_on_free_cores": scaling.free_speedup,
        "rounds_on_free_cores": len(scaling.free_rounds),
    }


def _timings_as_json(timings: dict[str, Timing]) -> dict[str, Any]:
    return {name: timing.facts for name, timing in timings.items()}
