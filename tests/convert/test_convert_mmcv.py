"""mmcv's and mmdeploy's operators against the kernels that stand in for them, and known numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import tolerances
from hand_made import POOLED_INPUTS, SCALE, Array, draw, model_of, own_nodes, run, with_images
from onnx import TensorProto, helper

from ort_roialign.convert import convert_with_report
from ort_roialign.convert._sessions import foreign_domains
from ort_roialign.convert._translated import is_translated

KERNEL = tolerances.KERNEL["float32"]
SIZE = {"output_height": 2, "output_width": 3}
SAMPLED = {**SIZE, "spatial_scale": SCALE, "sampling_ratio": 2}
STRIDES = [4.0, 8.0, 16.0]
POOLED = {"pooled_height": 2, "pooled_width": 3, "spatial_scale": SCALE}
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
    ("MMCVRoIAlignRotated", "mmcv", ["x", "rois"], {**SAMPLED, "aligned": 0}, "RoiAlignRotated"),
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
        POOLED,
        "PrRoiPool",
    ),
    (
        "MMCVDeformRoIPool",
        "mmcv",
        ["x", "rois", "offset"],
        {**POOLED, "sampling_ratio": 2.0, "gamma": 0.2},
        "DeformRoiPool",
    ),
    (
        "MMCVDeformRoIPool",
        "mmcv",
        ["x", "rois"],
        {**POOLED, "sampling_ratio": 0.0},
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
    attributes = {**POOLED, "sampling_ratio": 2.0}
    original = mmcv_model("MMCVDeformRoIPool", "mmcv", ["x", "rois", "nothing"], **attributes)
    converted, _ = convert_with_report(original)
    (node,) = own_nodes(converted)
    assert len(node.input) == 3
    assert [each.name for each in converted.graph.initializer] == []
    without = mmcv_model("MMCVDeformRoIPool", "mmcv", ["x", "rois"], **attributes)
    feeds = draw_mmcv(rng, rotated=False)
    feeds = {name: feeds[name] for name in ("x", "rois")}
    for expected in run(without, feeds, ["mmcv"]) + run(original, feeds, ["mmcv"]):
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
            "with aligned=1 it moves boxes by half a cell and yet makes "
            "them at least one cell wide and high, which no operator of ort_roialign does; it runs "
            "as it is in a session with the domain mmdeploy",
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
            "X must be as many maps as attribute featmap_strides has numbers, 2; got 3",
        ),
        (
            "MMCVMultiLevelRoiAlign",
            "mmdeploy",
            {**PYRAMID, "featmap_strides": [4.0, 0.0, 8.0]},
            "featmap_strides must be finite and greater than 0",
        ),
        (
            "MMCVMultiLevelRoiAlign",
            "mmdeploy",
            SIZE,
            "featmap_strides must have one number for each map",
        ),
        (
            "MMCVMultiLevelRoiAlign",
            "mmdeploy",
            {**PYRAMID, "featmap_strides": [4, 8, 16]},
            "attribute featmap_strides must be a list of floats; got a list of integers",
        ),
        (
            "MMCVDeformRoIPool",
            "mmcv",
            {**POOLED, "sampling_ratio": 1.5},
            "sampling_ratio must be a whole number from 0 to 1.67772e+07; got 1.5",
        ),
        (
            "MMCVRoiAlign",
            "mmcv",
            {"output_height": "2"},
            "MMCVRoiAlign: attribute output_height must be an integer; got a string",
        ),
        ("MMCVRoiAlign", "mmcv", {"output_width": 2.0}, "must be an integer; got a float"),
        ("MMCVRoiAlign", "mmcv", {"mode": 1}, "mode must be a string; got an integer"),
        ("MMCVRoiAlign", "mmcv", {"mode": "mean"}, 'mode must be "avg" or "max"; got "mean"'),
        ("MMCVRoiAlign", "mmcv", {"aligned": [1, 2]}, "an integer; got a list of integers"),
        (
            "MMCVRoIAlignRotated",
            "mmcv",
            {"spatial_scale": helper.make_tensor("t", TensorProto.FLOAT, [], [1.0])},
            "spatial_scale must be a float; got one of type TENSOR",
        ),
        ("PrRoIPool", "mmcv", {"pooled_height": 0}, "pooled_height must be at least 1; got 0"),
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


@pytest.mark.parametrize(
    ("operator", "inputs"),
    [
        ("MMCVRoiAlign", ["x"]),
        ("MMCVRoiAlign", ["x", ""]),
        ("MMCVRoiAlign", ["", "rois"]),
        ("MMCVRoiAlign", ["x", "rois", "offset"]),
        ("MMCVRoiAlign", []),
        ("MMCVMultiLevelRoiAlign", ["", *MAP_NAMES]),
        ("MMCVMultiLevelRoiAlign", ["rois", "x0", "", "x2"]),
        ("MMCVMultiLevelRoiAlign", ["rois"]),
        ("MMCVMultiLevelRoiAlign", []),
    ],
)
def test_missing_inputs(operator, inputs):
    pyramid = "Level" in operator
    attributes = {**PYRAMID, "featmap_strides": STRIDES} if pyramid else SAMPLED
    domain = "mmdeploy" if pyramid else "mmcv"
    original = mmcv_model(operator, domain, inputs, **attributes)
    converted, report = convert_with_report(original)
    assert converted == original
    (left,) = report.left
    assert "it must have" in left.reason or "must be as many maps" in left.reason


@pytest.mark.parametrize("name", ["output_height", "mode", "spatial_scale"])
def test_attributes_of_a_functions_caller(name):
    node = helper.make_node("MMCVRoiAlign", ["x", "rois"], ["y"], name="pool", domain="mmcv")
    kind = {"output_height": "INT", "mode": "STRING", "spatial_scale": "FLOAT"}[name]
    given = onnx.AttributeProto(name=name, ref_attr_name="set_outside")
    given.type = onnx.AttributeProto.AttributeType.Value(kind)
    node.attribute.append(given)
    imports = [helper.make_opsetid("", 16), helper.make_opsetid("mmcv", 1)]
    function = helper.make_function(
        "mine", "Pool", ["x", "rois"], ["y"], [node], imports, attributes=["set_outside"]
    )
    call = helper.make_node("Pool", ["x", "rois"], ["y"], domain="mine")
    shapes = {"x": POOLED_INPUTS["x"], "rois": (TensorProto.FLOAT, ("num_rois", 5))}
    original = model_of([call], shapes, functions=[function])
    converted, report = convert_with_report(original)
    assert converted == original
    (left,) = report.left
    assert f"attribute {name} must be" in left.reason
    assert left.reason.endswith("got one that the caller of a function sets")


def test_unknown_attributes_do_not_count():
    tensor = helper.make_tensor("t", TensorProto.FLOAT, [1], [1.0])
    original = mmcv_model("MMCVRoiAlign", "mmcv", ["x", "rois"], **SAMPLED, note=tensor)
    converted, report = convert_with_report(original)
    assert report.left == []
    assert "note" not in [each.name for each in own_nodes(converted)[0].attribute]


@pytest.mark.parametrize("scale", [0.1, 1 / 3, 1.0, 1e-30, 7e30, 16777217.0])
def test_floats_are_kept_to_the_bit(scale):
    given = {**POOLED, "spatial_scale": scale, "gamma": -scale}
    converted, _ = convert_with_report(
        mmcv_model("MMCVDeformRoIPool", "mmcv", ["x", "rois"], **given)
    )
    values = {each.name: each.f for each in own_nodes(converted)[0].attribute}
    assert values["spatial_scale"] == np.float32(scale)
    assert values["gamma"] == -np.float32(scale)


def test_the_library_is_asked_which_operators_there_are():
    def known(domain: str, operator: str) -> bool:
        return is_translated(ir.Node(domain, operator, []))

    assert known("mmcv", "MMCVRoiAlign")
    assert known("mmdeploy", "MMCVMultiLevelRoiAlign")
    assert not known("mmcv", "MMCVBorderAlign")
    assert not known("", "RoiAlign")


def test_a_name_in_another_domain_is_told():
    model = mmcv_model("MMCVRoiAlign", "mmdeploy", ["x", "rois"], output_height=2, output_width=2)
    _, report = convert_with_report(model)
    (left,) = report.left
    assert left.operator == "mmdeploy::MMCVRoiAlign"
    assert left.reason == "its name is known in the domain mmcv"


def test_a_function_of_the_models_own_is_no_operator_of_mmcvs(tmp_path):
    node = helper.make_node("Relu", ["x"], ["y"])
    function = helper.make_function(
        "mmcv", "MMCVRoiAlign", ["x", "rois"], ["y"], [node], [helper.make_opsetid("", 17)]
    )
    model = mmcv_model("MMCVRoiAlign", "mmcv", ["x", "rois"])
    model.functions.append(function)
    onnx.save(model, tmp_path / "in.onnx")
    assert foreign_domains(tmp_path / "in.onnx") == []
    _, report = convert_with_report(model)
    assert not report.converted
    assert report.left == []
