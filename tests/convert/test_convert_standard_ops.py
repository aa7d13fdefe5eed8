"""ONNX's RoiAlign and MaxRoiPool become this package's, and everything around them stays."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import tolerances
from hand_made import (
    POOLED_INPUTS,
    SCALE,
    attributes,
    draw,
    model_of,
    own_nodes,
    roi_align_model,
    run,
    with_images,
)
from onnx import TensorProto, helper, numpy_helper

from ort_roialign import reference
from ort_roialign.convert import convert, convert_file, convert_with_report
from ort_roialign.errors import InvalidArgumentError

KERNEL = tolerances.KERNEL["float32"]
MODE = "coordinate_transformation_mode"


@pytest.mark.parametrize("sampling_ratio", [0, 2])
@pytest.mark.parametrize(
    ("opset", "mode"),
    [(10, None), (11, None), (16, None), (16, "output_half_pixel"), (16, "half_pixel"), (21, None)],
)
def test_average_stays_what_onnxruntime_computes(rng, opset, mode, sampling_ratio):
    given = {"sampling_ratio": sampling_ratio} | ({} if mode is None else {MODE: mode})
    original = roi_align_model(opset, **given)
    converted, report = convert_with_report(original)
    onnx.checker.check_model(converted)
    (node,) = own_nodes(converted)
    assert (node.op_type, node.name) == ("RoiAlign", "pool")
    assert list(node.input) == ["x", "rois", "images"]
    default = "half_pixel" if opset >= 16 else "output_half_pixel"
    assert attributes(node).get(MODE, "half_pixel") == (mode or default)
    assert report.warnings == report.left == []
    assert report.counts == {("ai.onnx::RoiAlign", "RoiAlign"): 1}
    feeds = draw(rng)
    np.testing.assert_allclose(run(converted, feeds)[0], run(original, feeds)[0], *KERNEL)


def test_a_maximum_is_now_that_of_interpolated_samples_and_is_reported(rng):
    converted, report = convert_with_report(roi_align_model(16, mode="max", sampling_ratio=2))
    assert len(report.warnings) == 1
    assert "pool: mode max took the largest weighted corner" in report.warnings[0]
    feeds = draw(rng)
    expected = reference.roi_align(
        feeds["x"],
        feeds["rois"],
        feeds["images"],
        mode="max",
        output_height=3,
        output_width=4,
        spatial_scale=SCALE,
        sampling_ratio=2,
    )
    np.testing.assert_allclose(run(converted, feeds)[0], expected, *KERNEL)


def test_a_model_of_opset_22_loads_after_conversion(rng):
    original = roi_align_model(22, sampling_ratio=2)
    feeds = draw(rng)
    with pytest.raises(Exception, match="RoiAlign"):
        run(original, feeds)
    expected = run(roi_align_model(21, sampling_ratio=2), feeds)
    np.testing.assert_allclose(run(convert(original), feeds), expected, *KERNEL)


@pytest.mark.parametrize("opset", [11, 16])
def test_boxes_moved_by_half_a_cell_become_half_pixel(rng, opset):
    mode = {MODE: "output_half_pixel"} if opset == 16 else {}
    original = roi_align_model(opset, 0.5 / SCALE, sampling_ratio=2, **mode)
    converted, report = convert_with_report(original)
    (node,) = converted.graph.node
    assert list(node.input) == ["x", "rois", "images"]
    assert [each.name for each in converted.graph.initializer] == []
    assert "pool: Sub(rois, 0.5 / spatial_scale) became half_pixel" in report.warnings[0]
    feeds = draw(rng)
    expected = run(roi_align_model(16, sampling_ratio=2, **{MODE: "half_pixel"}), feeds)[0]
    actual = run(converted, feeds)[0]
    np.testing.assert_allclose(actual, expected, *KERNEL)
    # Boxes of a cell and more give what they gave; narrower ones were widened to a cell.
    wide = (feeds["rois"][:, 2:] - feeds["rois"][:, :2] > 1.01 / SCALE).all(axis=1)
    assert 0 < wide.sum() < len(wide)
    before = run(original, feeds)[0]
    np.testing.assert_allclose(actual[wide], before[wide], *KERNEL)
    assert np.abs(actual[~wide] - before[~wide]).max() > 0.01


@pytest.mark.parametrize(
    ("shift", "fold_shift"),
    [
        (0.5 / SCALE, False),
        (0.5 / SCALE * 1.001, True),
        (0.5, True),
    ],
)
def test_other_shifts_stay(rng, shift, fold_shift):
    original = roi_align_model(11, shift, sampling_ratio=2)
    converted = convert(original, fold_shift=fold_shift)
    assert [node.op_type for node in converted.graph.node] == ["Sub", "RoiAlign"]
    feeds = draw(rng)
    np.testing.assert_allclose(run(converted, feeds)[0], run(original, feeds)[0], *KERNEL)


@pytest.mark.parametrize(
    ("shape", "folds"),
    [
        ((4,), True),
        ((1, 4), True),
        ((1, 1), True),
        ((4, 1), False),
        ((4, 4), False),
        ((1, 1, 4), False),
    ],
)
def test_only_a_shift_of_all_boxes_is_folded(rng, shape, folds):
    original = roi_align_model(11, np.full(shape, 0.5 / SCALE), sampling_ratio=2)
    original.graph.input[1].type.tensor_type.shape.dim[0].dim_value = 4
    converted = convert(original)
    assert [node.op_type for node in converted.graph.node] == ["Sub"] * (not folds) + ["RoiAlign"]


def test_a_shift_before_half_pixel_stays_and_is_reported(rng):
    original = roi_align_model(16, 0.5 / SCALE, sampling_ratio=2)
    converted, report = convert_with_report(original)
    assert "moved by half a cell twice" in report.warnings[0]
    feeds = draw(rng)
    np.testing.assert_allclose(run(converted, feeds)[0], run(original, feeds)[0], *KERNEL)


@pytest.mark.parametrize("opset", [10, 16])
def test_max_roi_pool_is_what_onnxruntime_computes(rng, opset):
    node = helper.make_node(
        "MaxRoiPool", ["x", "rois"], ["y"], pooled_shape=[3, 4], spatial_scale=SCALE
    )
    inputs = {"x": POOLED_INPUTS["x"], "rois": (TensorProto.FLOAT, ("num_rois", 5))}
    original = model_of([node], inputs, opset=opset)
    converted, report = convert_with_report(original)
    onnx.checker.check_model(converted)
    assert report.counts == {("ai.onnx::MaxRoiPool", "RoiPool"): 1}
    feeds = draw(rng, rows=200)
    # Halves of a cell, which rounding decides, and a box outside the map.
    feeds["rois"][::2] = np.round(feeds["rois"][::2] / 2) * 2
    feeds["rois"][1] = [500, 500, 600, 600]
    given = {"x": feeds["x"], "rois": with_images(feeds)}
    np.testing.assert_array_equal(run(converted, given)[0], run(original, given)[0])


def test_a_max_roi_pool_without_a_shape_is_left():
    node = helper.make_node("MaxRoiPool", ["x", "rois"], ["y"], name="pool", pooled_shape=[3])
    original = model_of([node], {"x": POOLED_INPUTS["x"], "rois": (1, ("num_rois", 5))})
    converted, report = convert_with_report(original)
    assert converted == original
    (left,) = report.left
    assert (left.node, left.operator) == ("pool", "ai.onnx::MaxRoiPool")
    assert "pooled_shape must be height and width of 1 to 2147483647; got [3]" in left.reason


def in_branches(node: onnx.NodeProto) -> onnx.ModelProto:
    """Make a model whose node is the branch of an If, and reads values from outside."""
    result = helper.make_tensor_value_info("z", TensorProto.FLOAT, None)
    other = helper.make_node("RoiAlign", ["x", "rois", "images"], ["z"], output_height=3)
    branches = {
        "then_branch": helper.make_graph([node], "then", [], [result]),
        "else_branch": helper.make_graph([other], "else", [], [result]),
    }
    chosen = helper.make_node("If", ["condition"], ["y"], **branches)
    return model_of([chosen], {"condition": (TensorProto.BOOL, ()), **POOLED_INPUTS})


def test_subgraphs_are_converted(rng):
    original = in_branches(helper.make_node("RoiAlign", ["x", "rois", "images"], ["z"]))
    converted, report = convert_with_report(original)
    assert report.counts == {("ai.onnx::RoiAlign", "RoiAlign"): 2}
    for condition in (True, False):
        feeds = {"condition": np.array(condition), **draw(rng)}
        np.testing.assert_allclose(run(converted, feeds)[0], run(original, feeds)[0], *KERNEL)


def test_functions_are_converted_with_attributes_of_their_callers(rng):
    pool = helper.make_node("RoiAlign", ["x", "rois", "images"], ["y"], sampling_ratio=2)
    pool.attribute.append(
        onnx.AttributeProto(
            name="spatial_scale", ref_attr_name="scale", type=onnx.AttributeProto.FLOAT
        )
    )
    function = helper.make_function(
        "mine", "Pool", ["x", "rois", "images"], ["y"], [pool],
        [helper.make_opsetid("", 16)], ["scale"],
    )  # fmt: skip
    call = helper.make_node("Pool", ["x", "rois", "images"], ["y"], domain="mine", scale=SCALE)
    original = model_of([call], POOLED_INPUTS, functions=[function])
    converted, report = convert_with_report(original)
    assert report.converted
    onnx.checker.check_model(converted)
    (node,) = converted.functions[0].node
    assert node.domain == "ort_roialign"
    feeds = draw(rng)
    np.testing.assert_allclose(run(converted, feeds)[0], run(original, feeds)[0], *KERNEL)


def test_what_is_not_converted_stays(rng):
    original = roi_align_model(16, sampling_ratio=2)
    helper.set_model_props(original, {"author": "nobody", "trained": "never"})
    original.graph.doc_string = "the graph"
    pool = original.graph.node[0]
    pool.doc_string = "the node"
    pool.metadata_props.append(onnx.StringStringEntryProto(key="from", value="line 7"))
    unused = onnx.numpy_helper.from_array(np.ones(3, np.float32), "unused")
    original.graph.initializer.append(unused)
    before = original.SerializeToString()
    converted = convert(original)
    assert original.SerializeToString() == before
    for name in ("producer_name", "producer_version", "doc_string", "ir_version"):
        assert getattr(converted, name) == getattr(original, name), name
    assert converted.metadata_props == original.metadata_props
    assert converted.graph.doc_string == "the graph"
    assert list(converted.graph.input) == list(original.graph.input)
    assert list(converted.graph.output) == list(original.graph.output)
    assert list(converted.graph.initializer) == [unused]
    (node,) = converted.graph.node
    assert (node.doc_string, node.metadata_props) == ("the node", pool.metadata_props)
    opsets = {each.domain: each.version for each in converted.opset_import}
    assert opsets == {"": 16, "ort_roialign": 1}


def test_nothing_to_convert():
    relu = helper.make_node("Relu", ["x"], ["y"])
    original = model_of([relu], {"x": POOLED_INPUTS["x"]})
    converted, report = convert_with_report(original)
    assert converted == original
    assert not report.converted
    assert report.nodes_before == report.nodes_after == 1


def test_an_operator_that_the_model_defines_itself_is_left():
    body = helper.make_node("Relu", ["input"], ["y"])
    function = helper.make_function(
        "mmcv", "MMCVRoiAlign", ["input", "rois"], ["y"], [body], [helper.make_opsetid("", 16)]
    )
    call = helper.make_node("MMCVRoiAlign", ["x", "rois"], ["y"], domain="mmcv")
    inputs: Any = {name: POOLED_INPUTS[name] for name in ("x", "rois")}
    original = model_of([call], inputs, functions=[function])
    assert convert(original) == original


def test_a_path_is_refused(tmp_path):
    with pytest.raises(InvalidArgumentError, match=r"convert: model must be an onnx.ModelProto"):
        convert(tmp_path / "model.onnx")


def test_a_node_without_its_inputs_is_left():
    node = helper.make_node("RoiAlign", ["x", "rois"], ["y"], name="pool")
    original = model_of([node], {name: POOLED_INPUTS[name] for name in ("x", "rois")})
    converted, report = convert_with_report(original)
    assert converted == original
    assert report.left[0].reason == "it must have 3 inputs; got ['x', 'rois']"


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"mode": 3}, "attribute mode must be of type str; got 3"),
        ({"mode": "median"}, 'attribute mode must be "avg" or "max"; got "median"'),
        ({MODE: 1.0}, f"attribute {MODE} must be of type str; got 1.0"),
        ({"spatial_scale": 1}, "attribute spatial_scale must be "),
        (
            {"spatial_scale": 0.0},
            "attribute spatial_scale must be finite and greater than 0; got 0",
        ),
        ({"sampling_ratio": -1}, "attribute sampling_ratio must be at least 0; got -1"),
    ],
)
@pytest.mark.parametrize("shift", [None, 2.0])
def test_attributes_that_no_kernel_takes_are_left(attributes, reason, shift):
    original = roi_align_model(16, shift, **attributes)
    converted, report = convert_with_report(original)
    (left,) = report.left
    assert reason in left.reason
    assert converted == original


@pytest.mark.parametrize("mode", ["AVG", "Max"])
def test_a_mode_may_be_of_capital_letters(rng, mode):
    converted, report = convert_with_report(roi_align_model(16, mode=mode, sampling_ratio=1))
    assert ("largest weighted corner" in " ".join(report.warnings)) == (mode == "Max")
    feeds = draw(rng)
    expected = run(convert(roi_align_model(16, mode=mode.lower(), sampling_ratio=1)), feeds)[0]
    np.testing.assert_array_equal(run(converted, feeds)[0], expected)


def sparse_model() -> onnx.ModelProto:
    model = roi_align_model(16)
    values = numpy_helper.from_array(np.array([2.5], np.float32), "sparse")
    places = numpy_helper.from_array(np.array([1]), "places")
    sparse = helper.make_sparse_tensor(values, places, [4])
    model.graph.sparse_initializer.append(sparse)
    return model


def trained_model() -> onnx.ModelProto:
    model = roi_align_model(16)
    model.training_info.add().algorithm.name = "step"
    return model


@pytest.mark.parametrize(
    ("make", "found"), [(sparse_model, "sparse initializers sparse"), (trained_model, "training")]
)
def test_what_would_be_lost_is_refused(tmp_path, make, found):
    message = f"model must have neither sparse initializers nor training steps; got .*{found}"
    with pytest.raises(InvalidArgumentError, match=message):
        convert(make())
    onnx.save(make(), tmp_path / "in.onnx")
    with pytest.raises(InvalidArgumentError, match=message):
        convert_file(tmp_path / "in.onnx", tmp_path / "out.onnx")


def test_an_opset_that_has_no_roi_align():
    converted, report = convert_with_report(roi_align_model(9))
    (left,) = report.left
    assert left.reason == "ONNX has RoiAlign since opset 10; the model is of opset 9"
    assert not own_nodes(converted)
