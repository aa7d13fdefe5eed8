"""mmcv's and mmdeploy's operators against the kernels that stand in for them, and known numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import tolerances
from hand_made import POOLED_INPUTS, SCALE, Array, draw, model_of, own_nodes, run, with_images
from onnx import TensorProto, helper

from ort_roialign.convert import convert_with_report

KERNEL = tolerances.KERNEL["float32"]
SIZE = {"output_height": 2, "output_width": 3}
SAMPLED = {**SIZE, "spatial_scale": SCALE, "sampling_ratio": 2}
STRIDES = [4.0, 8.0, 16.0]
PYRAMID = {**SIZE, "sampling_ratio": 2, "featmap_strides": STRIDES}
MAPS = {f"x{number}": (24 >> number, 32 >> number) for number in range(3)}


def mmcv_model(operator: str, domain: str, inputs: list[str], **attributes: Any) -> onnx.ModelProto:
    columns = 6 if "Rotated" in operator else 5
    shapes: dict[str, Any] = {
        "x": POOLED_INPUTS["x"],
        "rois": (TensorProto.FLOAT, ("num_rois", columns)),
        "offset": (TensorProto.FLOAT, ("num_rois", 2, 2, 3)),
        **{name: (TensorProto.FLOAT, (2, 3, *size)) for name, size in MAPS.items()},
    }
    node = helper.make_node(operator, inputs, ["y"], name="pool", domain=domain, **attributes)
    constants = {"nothing": np.zeros(0, np.float32)} if "nothing" in inputs else {}
    return model_of([node], {n: shapes[n] for n in inputs if n in shapes}, constants, opset=11)


def draw_mmcv(rng: np.random.Generator, rotated: bool) -> dict[str, Array]:
    feeds = draw(rng)
    rois = with_images(feeds)
    if rotated:
        sides = np.exp(rng.uniform(0, 5.5, (len(rois), 2)))
        angles = rng.uniform(-4, 4, (len(rois), 1))
        rois = np.concatenate([rois[:, :3], sides, angles], axis=1).astype(np.float32)
    maps = {n: rng.standard_normal((2, 3, *s)).astype(np.float32) for n, s in MAPS.items()}
    offset = rng.standard_normal((len(rois), 2, 2, 3)).astype(np.float32)
    return {"x": feeds["x"], "rois": rois, "offset": offset, **maps}


MAP_NAMES = list(MAPS)
CASES: list[tuple[str, str, list[str], dict[str, Any], str]] = [
    ("MMCVRoiAlign", "mmcv", ["x", "rois"], SAMPLED, "RoiAlign"),
    ("MMCVRoiAlign", "mmcv", ["x", "rois"], {**SAMPLED, "aligned": 0, "mode": "max"}, "RoiAlign"),
    (
        "MMCVRoIAlignRotated",
        "mmdeploy",
        ["x", "rois"],
        {**SAMPLED, "aligned": 0},
        "RoiAlignRotated",
    ),
    (
        "MMCVRoIAlignRotated",
        "mmdeploy",
        ["x", "rois"],
        {**SAMPLED, "aligned": 1, "clockwise": 1},
        "RoiAlignRotated",
    ),
    (
        "MMCVMultiLevelRoiAlign",
        "mmdeploy",
        ["rois", *MAP_NAMES],
        {**PYRAMID, "aligned": 1, "finest_scale": 20, "pool_mode": 1},
        "MultiScaleRoiAlign",
    ),
    (
        "MMCVMultiLevelRoiAlign",
        "mmdeploy",
        ["rois", *MAP_NAMES],
        {**PYRAMID, "aligned": 0, "finest_scale": 20, "pool_mode": 0, "roi_scale_factor": -1.0},
        "MultiScaleRoiAlign",
    ),
    (
        "MMCVMultiLevelRotatedRoiAlign",
        "mmdeploy",
        ["rois", *MAP_NAMES],
        {**PYRAMID, "aligned": 0, "finest_scale": 20, "clockwise": 1},
        "MultiScaleRoiAlignRotated",
    ),
    (
        "PrRoIPool",
        "mmcv",
        ["x", "rois"],
        {"pooled_height": 2, "pooled_width": 3, "spatial_scale": SCALE},
        "PrRoiPool",
    ),
    (
        "MMCVDeformRoIPool",
        "mmcv",
        ["x", "rois", "offset"],
        {**SIZE, "spatial_scale": SCALE, "sampling_ratio": 2.0, "gamma": 0.2},
        "DeformRoiPool",
    ),
    (
        "MMCVDeformRoIPool",
        "mmcv",
        ["x", "rois"],
        {**SIZE, "spatial_scale": SCALE, "sampling_ratio": 0.0},
        "DeformRoiPool",
    ),
]


@pytest.mark.parametrize(("operator", "domain", "inputs", "attributes", "own"), CASES)
def test_every_operator(rng, operator, domain, inputs, attributes, own):
    original = mmcv_model(operator, domain, inputs, **attributes)
    converted, report = convert_with_report(original)
    onnx.checker.check_model(converted)
    assert report.counts == {(f"{domain}::{operator}", own): 1}
    assert report.left == []
    assert [node.op_type for node in own_nodes(converted)] == [own]
    assert all(node.domain in ("", "ort_roialign") for node in converted.graph.node)
    feeds = draw_mmcv(rng, "Rotated" in operator)
    feeds = {name: feeds[name] for name in inputs}
    expected = run(original, feeds, domains=[domain])[0]
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(run(converted, feeds)[0], expected, *KERNEL)


def test_an_empty_offset_is_none(rng):
    attributes = {**SIZE, "spatial_scale": SCALE, "sampling_ratio": 2.0}
    original = mmcv_model("MMCVDeformRoIPool", "mmcv", ["x", "rois", "nothing"], **attributes)
    converted, _ = convert_with_report(original)
    (node,) = own_nodes(converted)
    assert len(node.input) == 3
    assert [each.name for each in converted.graph.initializer] == []
    without = mmcv_model("MMCVDeformRoIPool", "mmcv", ["x", "rois"], **attributes)
    feeds = draw_mmcv(rng, rotated=False)
    feeds = {name: feeds[name] for name in ("x", "rois")}
    expected = run(without, feeds, domains=["mmcv"])[0]
    np.testing.assert_allclose(run(converted, feeds)[0], expected, *KERNEL)


SMALL = np.array([[[[1, 2], [3, 4]]]], np.float32)
UNIT_BOX = np.array([[0, 0, 0, 1, 1]], np.float32)
TURNED = np.array([[0, 0.5, 0.5, 1, 1, np.pi / 2]], np.float32)


@pytest.mark.parametrize(
    ("operator", "domain", "rois", "attributes", "expected"),
    [
        (
            "MMCVRoiAlign",
            "mmcv",
            UNIT_BOX,
            {"output_height": 2, "output_width": 2, "sampling_ratio": 2, "aligned": 1},
            [[1, 1.25], [1.5, 1.75]],
        ),
        (
            "MMCVRoIAlignRotated",
            "mmdeploy",
            TURNED,
            {"output_height": 2, "output_width": 2, "sampling_ratio": 2, "aligned": 1},
            [[1.5, 1], [1.75, 1.25]],
        ),
        (
            "PrRoIPool",
            "mmcv",
            UNIT_BOX,
            {"pooled_height": 2, "pooled_width": 2},
            [[1.75, 2.25], [2.75, 3.25]],
        ),
    ],
)
def test_numbers_of_mmcvs_own_tests(operator, domain, rois, attributes, expected):
    model = mmcv_model(operator, domain, ["x", "rois"], spatial_scale=1.0, **attributes)
    del model.graph.input[0].type.tensor_type.shape.dim[:]
    for size in SMALL.shape:
        model.graph.input[0].type.tensor_type.shape.dim.add().dim_value = size
    converted, _ = convert_with_report(model)
    np.testing.assert_allclose(run(converted, {"x": SMALL, "rois": rois})[0], [[expected]], *KERNEL)


@pytest.mark.parametrize(
    ("operator", "domain", "attributes", "reason"),
    [
        (
            "MMCVMultiLevelRotatedRoiAlign",
            "mmdeploy",
            {**PYRAMID, "aligned": 1},
            "runs as it is in a session with domains=['mmdeploy']",
        ),
        (
            "MMCVMultiLevelRoiAlign",
            "mmdeploy",
            {**PYRAMID, "roi_scale_factor": 2.0},
            "roi_scale_factor must be 1",
        ),
        (
            "MMCVMultiLevelRoiAlign",
            "mmdeploy",
            {**PYRAMID, "featmap_strides": [4.0, 8.0]},
            "one positive number for each of 3 maps",
        ),
        (
            "MMCVDeformRoIPool",
            "mmcv",
            {**SIZE, "sampling_ratio": 1.5},
            "sampling_ratio must be a whole number; got 1.5",
        ),
    ],
)
def test_what_no_operator_does_is_left(operator, domain, attributes, reason):
    inputs = ["rois", *MAP_NAMES] if "Level" in operator else ["x", "rois"]
    original = mmcv_model(operator, domain, inputs, **attributes)
    converted, report = convert_with_report(original)
    assert converted == original
    (left,) = report.left
    assert (left.node, left.operator) == ("pool", f"{domain}::{operator}")
    assert reason in left.reason
