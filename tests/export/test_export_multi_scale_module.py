"""MultiScaleRoIAlign of this package in both exporters: one node, and no size fixed.

A detector with it is in `test_export_detectors.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from exported_files import (
    assert_runs_equal_eager,
    attributes,
    export_with_free_sizes,
    random_boxes,
    random_maps,
    roi_nodes,
)
from torch import Tensor

import ort_roialign.torch as ops

pytestmark = [
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:torch.*"),
]
EXPORTERS = pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "torchscript"])
FREE = {
    "fine": {2: "height", 3: "width"},
    "coarse": {2: "coarse_height", 3: "coarse_width"},
    "boxes0": {0: "num_boxes0"},
    "boxes1": {0: "num_boxes1"},
}


class Pyramid(torch.nn.Module):
    """The pooler on two maps and the boxes of two images, one of three maps not being pooled."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = ops.MultiScaleRoIAlign(
            ["fine", "coarse"], (3, 2), 2, canonical_scale=100, canonical_level=3
        )

    def forward(self, fine: Tensor, coarse: Tensor, boxes0: Tensor, boxes1: Tensor) -> Any:
        maps = {"fine": fine, "other": 2 * fine, "coarse": coarse}
        sizes = [(fine.shape[2] * 4, fine.shape[3] * 4)] * 2
        return self.pool(maps, [boxes0, boxes1], sizes)


def _inputs(
    rng: np.random.Generator, counts: tuple[int, int], height: int, width: int
) -> tuple[Tensor, ...]:
    fine = random_maps(rng, 2, 3, 2 * height, 2 * width)
    coarse = random_maps(rng, 2, 3, height, width)
    return fine, coarse, *(random_boxes(rng, n, 8 * height, 8 * width) for n in counts)


def _origins(graph: onnx.GraphProto, value: str) -> set[str]:
    """The graph's inputs that a value is computed from."""
    producers = {output: node for node in graph.node for output in node.output}
    if value not in producers:
        return {value} & {each.name for each in graph.input}
    return set[str]().union(*(_origins(graph, each) for each in producers[value].input))


@EXPORTERS
def test_one_node_for_any_sizes(dynamo: bool, tmp_path: Path, rng: np.random.Generator) -> None:
    module = Pyramid()
    example = _inputs(rng, (6, 5), 16, 20)
    path = export_with_free_sizes(module, example, FREE, tmp_path / "pyramid.onnx", dynamo)
    assert module.pool.scales is None, "an export leaves the module as it was"
    graph = onnx.load(path).graph
    (node,) = roi_nodes(onnx.load(path))
    assert node.op_type == "MultiScaleRoiAlign"
    assert len(node.input) == len(set(node.input)) == 4
    rois, batch_indices, *maps = node.input
    assert maps == ["fine", "coarse"]
    assert _origins(graph, rois) == {"boxes0", "boxes1"}
    assert _origins(graph, batch_indices) <= {"boxes0", "boxes1"}
    assert not {"RoiAlign", "If", "Loop", "NonZero"} & {each.op_type for each in graph.node}
    given = attributes(node)
    assert given["spatial_scales"] == [0.25, 0.125]
    assert (given["min_level"], given["max_level"]) == (2, 3)
    assert (given["canonical_scale"], given["canonical_level"]) == (100.0, 3)
    assert given["coordinate_transformation_mode"] == "output_half_pixel"
    for counts, height, width in (((6, 5), 16, 20), ((9, 0), 10, 26), ((0, 0), 11, 9)):
        assert_runs_equal_eager(module, path, _inputs(rng, counts, height, width))
