"""A detector on every operator of the family: a step of training, and both exporters after it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import tolerances
import torch
from exported_files import (
    assert_runs_equal_eager,
    attributes,
    export_with_free_sizes,
    random_boxes,
    random_maps,
)
from family_detector import NUM_CLASSES, FamilyDetector
from torch.nn import functional

from ort_roialign._signatures import OPERATORS

pytestmark = [
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:torch.*"),
]
FREE = {
    "images": {2: "height", 3: "width"},
    "boxes0": {0: "num_boxes0"},
    "boxes1": {0: "num_boxes1"},
}


def random_inputs(
    rng: np.random.Generator, counts: tuple[int, int] = (6, 5), height: int = 64, width: int = 96
) -> tuple[torch.Tensor, ...]:
    """Return two images and boxes of each."""
    boxes = (random_boxes(rng, count, height, width) for count in counts)
    return random_maps(rng, 2, 3, height, width), *boxes


def train_one_step(rng: np.random.Generator) -> tuple[FamilyDetector, list[float]]:
    """Return a detector after a step, its gradients kept, and the loss before and after."""
    torch.manual_seed(30)
    detector = FamilyDetector()
    inputs = random_inputs(rng)
    classes = torch.from_numpy(rng.integers(0, NUM_CLASSES, 11))
    shifts = random_maps(rng, 11, 4)

    def loss() -> torch.Tensor:
        scores, found = detector(*inputs)
        return functional.cross_entropy(scores, classes) + functional.smooth_l1_loss(found, shifts)

    before = loss()
    optimizer = torch.optim.SGD(detector.parameters(), lr=0.02)
    before.backward()
    optimizer.step()
    return detector, [before.item(), loss().item()]


def test_a_step_of_training_reaches_every_parameter(rng: np.random.Generator) -> None:
    detector, (before, after) = train_one_step(rng)
    for name, parameter in detector.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name
    assert after < before


@pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "torchscript"])
def test_the_trained_detector_exports(
    dynamo: bool, tmp_path: Path, rng: np.random.Generator
) -> None:
    detector, _ = train_one_step(rng)
    path = export_with_free_sizes(
        detector, random_inputs(rng), FREE, tmp_path / "detector.onnx", dynamo
    )
    graph = onnx.load(path).graph
    # One node a head, and none of an operator that stands in for one of the family's.
    expected = Counter(list(OPERATORS)) + Counter(["RoiAlign"])
    assert Counter(node.op_type for node in graph.node if node.domain == "ort_roialign") == expected
    reductions = [attributes(node)["mode"] for node in graph.node if node.op_type == "RoiAlign"]
    assert sorted(reductions) == ["avg", "max"]
    assert {node.domain for node in graph.node} == {"", "ort_roialign"}
    assert not {"MaxRoiPool", "GridSample", "If", "Loop"} & {node.op_type for node in graph.node}

    for counts, height, width in (((4, 9), 64, 96), ((7, 2), 80, 112), ((0, 3), 64, 96)):
        inputs = random_inputs(rng, counts, height, width)
        assert_runs_equal_eager(detector, path, inputs, tolerances.DETECTOR_OUTPUT)
