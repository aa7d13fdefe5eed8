"""What is measured in training: an operator forward and backward, and torchvision's beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ort_roialign.benchmarks.agreement import require_close
from ort_roialign.benchmarks.disturbance import Disturbance
from ort_roialign.benchmarks.element_types import FLOAT32
from ort_roialign.benchmarks.kernel_paths import PLAIN, forced_path, require_path
from ort_roialign.benchmarks.measure import Effort, measure_interleaved
from ort_roialign.benchmarks.problems import Array
from ort_roialign.benchmarks.timed_point import (
    INPUT_SEED,
    OURS,
    TORCHVISION,
    Comparison,
    PointSettings,
)
from ort_roialign.benchmarks.training_workloads import TrainingPoint

if TYPE_CHECKING:
    from ort_roialign.benchmarks.torch_contestants import TorchRunner

DIRECTIONS = ("forward", "backward")
# Some calls take a second, so this takes fewer rounds than the other parts.
ROUNDS_DIVISOR = 2


@dataclass(frozen=True)
class TrainingResult:
    """What was measured of an operator in training.

    Attributes:
        point: where.
        calls: sizes and attributes of each call.
        directions: each of `DIRECTIONS` -> the contestants' times.
        other_cores: cores that other processes kept busy meanwhile.
    """

    point: TrainingPoint
    calls: list[dict[str, Any]]
    directions: dict[str, Comparison]
    other_cores: float = 0.0


def measure_training(point: TrainingPoint, settings: PointSettings) -> TrainingResult:
    """Draw a point's inputs, check that all contestants agree on them, and time both directions.

    An operator that torchvision does not have is compared with its plain path.

    Args:
        point: what to measure.
        settings: how.

    Raises:
        OrtRoiAlignError: if results or gradients differ, or the plain path did not run.
    """
    import torch

    import ort_roialign.torch
    from ort_roialign.benchmarks.torch_contestants import IN_TORCHVISION, TorchRunner, invocations

    torch.set_num_threads(settings.threads)
    rng = np.random.default_rng(INPUT_SEED)
    calls = point.problem.calls(rng)
    prepared = invocations(point.operator, calls, rng)
    ours = TorchRunner(getattr(ort_roialign.torch, point.operator), prepared)
    runners = {OURS: ours}
    if settings.torchvision and point.operator in IN_TORCHVISION:
        from torchvision import ops

        runners[TORCHVISION] = TorchRunner(getattr(ops, point.operator), prepared)
        _check(point.name, TORCHVISION, ours.outputs(), runners[TORCHVISION].outputs())
    else:
        with forced_path(PLAIN):
            require_path(ours.forward, PLAIN, point.name)
            expected = ours.outputs()
        _check(point.name, OURS, expected, ours.outputs())
    disturbance = Disturbance()
    directions = _measure(runners, settings.effort)
    facts = [call.facts for call in calls]
    return TrainingResult(point, facts, directions, disturbance.cores())


def _check(
    point: str,
    contestant: str,
    expected: Mapping[str, list[Array]],
    actual: Mapping[str, list[Array]],
) -> None:
    for direction in DIRECTIONS:
        pairs = zip(expected[direction], actual[direction], strict=True)
        for number, (wanted, got) in enumerate(pairs):
            allowed = FLOAT32.tolerance * float(np.abs(wanted).max(initial=0))
            where = f"{point}, {direction}, result {number}"
            require_close(where, contestant, wanted, got, allowed)


def _measure(runners: Mapping[str, TorchRunner], effort: Effort) -> dict[str, Comparison]:
    calls: dict[str, Callable[[], object]] = {
        f"{direction} {name}": getattr(runner, direction)
        for direction in DIRECTIONS
        for name, runner in runners.items()
    }
    fewer = Effort(-(-effort.rounds // ROUNDS_DIVISOR), effort.seconds)
    times = measure_interleaved(calls, fewer)
    return {
        direction: Comparison({name: times[f"{direction} {name}"] for name in runners})
        for direction in DIRECTIONS
    }
