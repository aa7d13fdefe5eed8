"""The functions of standard operators give the operators' results, and get into a model rightly."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import onnx
import pytest
import tolerances
from onnx import TensorProto, helper
from running import Run, run_on_kernels, run_session, run_without_plugin

import ort_roialign
from ort_roialign import reference
from ort_roialign.errors import InvalidArgumentError
from ort_roialign.onnx_export import add_fallback, fallback_function

TYPES = {
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
    "float16": TensorProto.FLOAT16,
    "bfloat16": TensorProto.BFLOAT16,
}
AVG = {
    "mode": "avg",
    "output_height": 3,
    "output_width": 4,
    "sampling_ratio": 2,
    "spatial_scale": 0.125,
    "coordinate_transformation_mode": "half_pixel",
}
POOL = {"output_height": 3, "output_width": 4, "spatial_scale": 0.125}


def one_node_model(
    name: str,
    attributes: dict[str, Any],
    *,
    opset: int = 18,
    x_type: int = TensorProto.FLOAT,
    rois_type: int = TensorProto.FLOAT,
    num_outputs: int = 1,
    fallback: bool = True,
) -> onnx.ModelProto:
    outputs = [("Y", x_type), ("argmax", TensorProto.INT64)][:num_outputs]
    inputs = [
        ("X", x_type, ["N", "C", "H", "W"]),
        ("rois", rois_type, ["R", 4]),
        ("batch_indices", TensorProto.INT64, ["R"]),
    ]
    node = helper.make_node(
        name, [i[0] for i in inputs], [o[0] for o in outputs], domain="ort_roialign", **attributes
    )
    pooled = ["R", "C", attributes["output_height"], attributes["output_width"]]
    graph = helper.make_graph(
        [node],
        "one_node",
        [helper.make_tensor_value_info(*i) for i in inputs],
        [helper.make_tensor_value_info(*o, pooled) for o in outputs],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("ort_roialign", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    return add_fallback(model) if fallback else model


def maps_and_rois(rng: np.random.Generator, dtype: type = np.float32) -> tuple[Any, Any, Any]:
    """Return X [2, 5, 14, 20] and RoIs of every kind for stride 8 (an image of 112 x 160)."""
    x = rng.standard_normal((2, 5, 14, 20)).astype(dtype)
    corner = rng.uniform(-30, 150, (20, 2))
    random = np.concatenate([corner, corner + rng.uniform(-40, 120, (20, 2))], 1)
    special = [
        [40, 40, 40, 40],  # no area
        [60, 20, 30, 70],  # only the width is negative
        [20, 70, 60, 30],  # only the height is negative
        [60, 70, 30, 20],  # both are
        [0, 0, 160, 112],  # the whole image
        [-500, -500, -400, -400],  # wholly outside
        [-3.9, -3.9, 8.1, 12.3],  # within a cell of the border
    ]
    rois = np.concatenate([random, special]).astype(dtype)
    return x, rois, rng.integers(0, 2, len(rois))


@pytest.mark.parametrize("opset", [16, 17, 18, 19, 20, 21, 22, 23])
@pytest.mark.parametrize("mode", ["avg", "max"])
def test_roi_align_matches_reference(opset: int, mode: str, rng: np.random.Generator) -> None:
    inputs = maps_and_rois(rng)
    frames = ("half_pixel", "output_half_pixel")
    for sampling_ratio, frame in itertools.product((0, 2), frames):
        attributes = {
            **AVG,
            "mode": mode,
            "sampling_ratio": sampling_ratio,
            "coordinate_transformation_mode": frame,
        }
        model = one_node_model("RoiAlign", attributes, opset=opset)
        onnx.checker.check_model(model, full_check=True)
        actual = run_without_plugin(model, *inputs)["Y"]
        expected = reference.roi_align(*inputs, **attributes)
        np.testing.assert_allclose(actual, expected, *tolerances.KERNEL["float32"])


@pytest.mark.parametrize("opset", [18, 22])
@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_roi_align_float64(
    opset: int, mode: str, sampling_ratio: int, rng: np.random.Generator
) -> None:
    inputs = maps_and_rois(rng, np.float64)
    attributes = {**AVG, "mode": mode, "sampling_ratio": sampling_ratio}
    double = TensorProto.DOUBLE
    model = one_node_model("RoiAlign", attributes, opset=opset, x_type=double, rois_type=double)
    actual = run_without_plugin(model, *inputs)["Y"]
    expected = reference.roi_align(*inputs, **attributes)
    assert actual.dtype == np.float64
    np.testing.assert_allclose(actual, expected, *tolerances.KERNEL["float64"])


@pytest.mark.parametrize("opset", [18, 22])
@pytest.mark.parametrize("mode", ["avg", "max"])
def test_roi_align_float16_maps_with_float32_boxes(
    opset: int, mode: str, rng: np.random.Generator
) -> None:
    x, rois, batch_indices = maps_and_rois(rng)
    x = x.astype(np.float16)
    attributes = {**AVG, "mode": mode}
    model = one_node_model("RoiAlign", attributes, opset=opset, x_type=TensorProto.FLOAT16)
    actual = run_without_plugin(model, x, rois, batch_indices)["Y"]
    expected = reference.roi_align(x, rois, batch_indices, **attributes)
    assert actual.dtype == np.float16
    np.testing.assert_allclose(actual, expected, *tolerances.KERNEL["float16"])


@pytest.mark.parametrize("opset", [18, 22])
def test_roi_align_by_hand(opset: int) -> None:
    # X[y, x] = 5 y + x, so interpolation is exact: a bin is the value at its centre. half_pixel:
    # the box 1..3 begins at 0.5, has 4 bins of 0.5 cell, centres 0.75, 1.25, 1.75, 2.25.
    # First bin: 5 * 0.75 + 0.75 = 4.5; one bin to the right adds 0.5, one down 2.5.
    x = np.arange(25, dtype=np.float32).reshape(1, 1, 5, 5)
    rois = np.array([[1, 1, 3, 3]], np.float32)
    attributes = {**AVG, "output_height": 4, "output_width": 4, "sampling_ratio": 0}
    attributes["spatial_scale"] = 1.0
    expected = 4.5 + 0.5 * np.arange(4) + 2.5 * np.arange(4)[:, None]
    for mode in ("avg", "max"):  # one sample a bin: both modes give it
        model = one_node_model("RoiAlign", {**attributes, "mode": mode}, opset=opset)
        actual = run_without_plugin(model, x, rois, np.zeros(1, np.int64))["Y"]
        np.testing.assert_array_equal(actual[0, 0], expected.astype(np.float32))


@pytest.mark.parametrize("opset", [16, 18, 20, 22, 23])
def test_roi_pool_matches_reference(opset: int, rng: np.random.Generator) -> None:
    inputs = maps_and_rois(rng)
    model = one_node_model("RoiPool", POOL, opset=opset, num_outputs=2)
    onnx.checker.check_model(model, full_check=True)
    actual = run_without_plugin(model, *inputs)
    expected, expected_argmax = reference.roi_pool(*inputs, **POOL)
    np.testing.assert_array_equal(actual["Y"], expected.astype(np.float32))
    np.testing.assert_array_equal(actual["argmax"], expected_argmax)


def test_roi_pool_without_argmax(rng: np.random.Generator) -> None:
    inputs = maps_and_rois(rng, np.float64)
    double = TensorProto.DOUBLE
    model = one_node_model("RoiPool", POOL, x_type=double, rois_type=double)
    actual = run_without_plugin(model, *inputs)["Y"]
    np.testing.assert_array_equal(actual, reference.roi_pool(*inputs, **POOL)[0])


@pytest.mark.parametrize("opset", [18, 22])
@pytest.mark.parametrize("images", [2, 0])
@pytest.mark.parametrize(
    ("name", "attributes"),
    [("RoiAlign", AVG), ("RoiAlign", {**AVG, "mode": "max"}), ("RoiPool", POOL)],
    ids=["avg", "max", "pool"],
)
def test_no_rois(
    name: str,
    attributes: dict[str, Any],
    images: int,
    opset: int,
    run: Run,
    rng: np.random.Generator,
) -> None:
    x, rois, batch_indices = maps_and_rois(rng)
    model = one_node_model(name, attributes, opset=opset)
    actual = run(model, x[:images], rois[:0], batch_indices[:0])["Y"]
    assert actual.shape == (0, 5, 3, 4)


def test_kernels_and_functions_agree(rng: np.random.Generator) -> None:
    inputs = maps_and_rois(rng)
    for mode, sampling_ratio in itertools.product(("avg", "max"), (0, 3)):
        attributes = {**AVG, "mode": mode, "sampling_ratio": sampling_ratio}
        model = one_node_model("RoiAlign", attributes)
        kernels, function = run_on_kernels(model, *inputs), run_without_plugin(model, *inputs)
        np.testing.assert_allclose(kernels["Y"], function["Y"], *tolerances.KERNEL["float32"])


def test_the_kernel_goes_before_the_function(rng: np.random.Generator) -> None:
    # A function that gives X's maximum everywhere would show.
    model = one_node_model("RoiAlign", AVG, fallback=False)
    model.functions.append(
        onnx.parser.parse_function(
            '<opset_import: ["": 18], domain: "ort_roialign">'
            "RoiAlign <mode, output_height, output_width, sampling_ratio, spatial_scale,"
            " coordinate_transformation_mode> (X, rois, batch_indices) => (Y) {"
            " Y = ReduceMax<keepdims = 1>(X) }"
        )
    )
    inputs = maps_and_rois(rng)
    session = ort_roialign.InferenceSession(model.SerializeToString())
    expected = reference.roi_align(*inputs, **AVG)
    actual = run_session(session, *inputs)["Y"]
    np.testing.assert_allclose(actual, expected, *tolerances.KERNEL["float32"])


def test_add_fallback_adds_what_is_used_once() -> None:
    model = one_node_model("RoiPool", POOL, fallback=False)
    model.ir_version = 7
    assert add_fallback(model) is model
    assert [(f.domain, f.name) for f in model.functions] == [("ort_roialign", "RoiPool")]
    assert model.ir_version == 8  # functions exist since 8
    before = model.SerializeToString()
    assert add_fallback(model).SerializeToString() == before


def test_add_fallback_keeps_a_function_that_is_there() -> None:
    model = one_node_model("RoiAlign", AVG)
    model.functions[0].doc_string = "the user's own"
    assert [f.doc_string for f in add_fallback(model).functions] == ["the user's own"]


def test_add_fallback_looks_into_subgraphs_and_functions() -> None:
    inner = one_node_model("RoiAlign", AVG, fallback=False).graph
    del inner.input[:]
    condition = helper.make_node("Constant", [], ["c"], value=helper.make_tensor("t", 9, [], [1]))
    branch = helper.make_node("If", ["c"], ["Y"], then_branch=inner, else_branch=inner)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ort_roialign", 1)]
    graph = helper.make_graph([condition, branch], "g", [], list(inner.output))
    model = helper.make_model(graph, opset_imports=opsets)
    assert [f.name for f in add_fallback(model).functions] == ["RoiAlign"]

    pool = one_node_model("RoiPool", POOL, fallback=False).graph.node
    wrapper = helper.make_function(
        "user", "Wrapper", ["X", "rois", "batch_indices"], ["Y"], pool, opsets
    )
    model = helper.make_model(
        helper.make_graph([], "g", [], []), opset_imports=opsets, functions=[wrapper]
    )
    assert [f.name for f in add_fallback(model).functions] == ["Wrapper", "RoiPool"]


def test_add_fallback_leaves_other_models_alone() -> None:
    relu = helper.make_node("Relu", ["x"], ["y"])
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in "xy"]
    graph = helper.make_graph([relu], "g", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 9)])
    before = model.SerializeToString()
    assert add_fallback(model).SerializeToString() == before


def test_errors_name_what_is_allowed() -> None:
    with pytest.raises(InvalidArgumentError, match=r"name must be one of .*'RoiAlign'.*got 'Nms'"):
        fallback_function("Nms")
    with pytest.raises(InvalidArgumentError, match="opset_version must be at least 16; got 15"):
        fallback_function("RoiAlign", 15)
    with pytest.raises(InvalidArgumentError, match="opset 16 or later; got 13"):
        add_fallback(one_node_model("RoiAlign", AVG, opset=13, fallback=False))
