"""Models with our operators, run by `onnx.reference`; ONNX's own numbers for RoiAlign."""

from __future__ import annotations

import importlib
import subprocess
import sys

import ml_dtypes
import numpy as np
import onnx
import pytest
import tolerances
from numpy.testing import assert_allclose, assert_array_equal
from onnx import TensorProto, helper
from onnx.backend.test.case.node import roialign as onnx_cases
from onnx.reference import ReferenceEvaluator

import ort_roialign
from ort_roialign import reference
from ort_roialign.errors import InvalidArgumentError, MissingDependencyError
from ort_roialign.reference.onnx_ops import ONNX_OPS, RoiReferenceEvaluator

DOMAIN = "ort_roialign"
OPSETS = [helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, 1)]
FORWARD_INPUTS = ["X", "rois", "batch_indices"]


def model_of(nodes, inputs, outputs, functions=(), opsets=OPSETS):
    """A model whose values have no declared types, as the evaluator needs none."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, TensorProto.UNDEFINED, None) for name in inputs],
        [helper.make_tensor_value_info(name, TensorProto.UNDEFINED, None) for name in outputs],
    )
    return helper.make_model(graph, opset_imports=opsets, functions=list(functions))


def node_model(op_type, inputs, outputs, **attributes):
    node = helper.make_node(op_type, inputs, outputs, domain=DOMAIN, **attributes)
    return model_of([node], inputs, outputs)


def run(model, feeds):
    return ReferenceEvaluator(model, new_ops=list(ONNX_OPS)).run(None, feeds)


def feeds_of(dtype="float32", seed=0):
    rng = np.random.default_rng(seed)
    corners = rng.uniform(-2, 20, (5, 2))
    sizes = rng.uniform(1, 20, (5, 2))
    return {
        "X": rng.standard_normal((2, 3, 7, 8)).astype(dtype),
        "rois": np.concatenate([corners, corners + sizes], axis=1).astype(dtype),
        "batch_indices": rng.integers(0, 2, 5),
    }


ALIGN_ATTRIBUTES = {
    "mode": "max",
    "output_height": 2,
    "output_width": 3,
    "sampling_ratio": 2,
    "spatial_scale": 0.3,
    "coordinate_transformation_mode": "output_half_pixel",
}
POOL_ATTRIBUTES = {"output_height": 2, "output_width": 3, "spatial_scale": 0.3}


@pytest.mark.parametrize("attributes", [{}, ALIGN_ATTRIBUTES])
@pytest.mark.parametrize("dtype", ["float16", ml_dtypes.bfloat16, "float32", "float64"])
def test_roi_align_and_gradient(dtype, attributes):
    feeds = feeds_of(dtype)
    (y,) = run(node_model("RoiAlign", FORWARD_INPUTS, ["Y"], **attributes), feeds)
    assert y.dtype == feeds["X"].dtype
    assert_array_equal(y, reference.roi_align(*feeds.values(), **attributes).astype(dtype))
    assert np.abs(y.astype(np.float64)).max() > 0.1

    feeds = {"dY": np.random.default_rng(1).standard_normal(y.shape).astype(dtype), **feeds}
    (dx,) = run(node_model("RoiAlignGrad", list(feeds), ["dX"], **attributes), feeds)
    assert dx.dtype == feeds["X"].dtype
    assert_array_equal(dx, reference.roi_align_grad(*feeds.values(), **attributes).astype(dtype))


@pytest.mark.parametrize("attributes", [{}, POOL_ATTRIBUTES])
@pytest.mark.parametrize("dtype", ["float16", ml_dtypes.bfloat16, "float32", "float64"])
def test_roi_pool_and_gradient(dtype, attributes):
    feeds = feeds_of(dtype)
    y, argmax = run(node_model("RoiPool", FORWARD_INPUTS, ["Y", "argmax"], **attributes), feeds)
    expected_y, expected_argmax = reference.roi_pool(*feeds.values(), **attributes)
    assert y.dtype == feeds["X"].dtype
    assert argmax.dtype == np.int64
    assert_array_equal(y, expected_y.astype(dtype))
    assert_array_equal(argmax, expected_argmax)
    (y_alone,) = run(node_model("RoiPool", FORWARD_INPUTS, ["Y"], **attributes), feeds)
    assert_array_equal(y_alone, y)

    feeds = {"dY": np.random.default_rng(1).standard_normal(y.shape).astype(dtype), **feeds}
    (dx,) = run(node_model("RoiPoolGrad", list(feeds), ["dX"], **attributes), feeds)
    assert dx.dtype == feeds["X"].dtype
    assert_array_equal(dx, reference.roi_pool_grad(*feeds.values(), **attributes).astype(dtype))


def instance_of(op, node):
    return op(node, {"log": lambda *_: None, "opsets": {DOMAIN: 1}, "new_ops": None})


def test_roi_pool_returns_the_outputs_that_its_node_names():
    for outputs in (["Y"], ["Y", "argmax"]):
        roi_pool = next(op for op in ONNX_OPS if op.__name__ == "RoiPool")
        node = helper.make_node("RoiPool", FORWARD_INPUTS, outputs, domain=DOMAIN)
        assert len(instance_of(roi_pool, node).run(*feeds_of().values())) == len(outputs)


@pytest.mark.parametrize("op", ONNX_OPS)
def test_operators_take_no_defaults_from_onnx_schemas(op):
    assert op.op_domain == DOMAIN
    node = helper.make_node(op.__name__, FORWARD_INPUTS, ["Y"], domain=DOMAIN)
    assert instance_of(op, node).attributes_names_ == set()


def test_errors_keep_their_type_and_text():
    feeds = feeds_of() | {"batch_indices": np.array([0, 1, 2, 0, 0])}
    with pytest.raises(InvalidArgumentError, match=r"RoiAlign: batch_indices\[2\] must be in"):
        run(node_model("RoiAlign", FORWARD_INPUTS, ["Y"]), feeds)


def wrong_function(name):
    """A local function with an operator's name that computes something else: X itself."""
    return helper.make_function(
        DOMAIN,
        name,
        FORWARD_INPUTS,
        ["Y"],
        [helper.make_node("Identity", ["X"], ["Y"])],
        opset_imports=OPSETS,
        attributes=["output_height"],
    )


def calling_function():
    """A local function of another domain, whose body holds our operator."""
    inner = helper.make_node(
        "RoiAlign", FORWARD_INPUTS, ["Y"], domain=DOMAIN, output_width=3, mode="max"
    )
    linked = onnx.AttributeProto(
        name="output_height", type=onnx.AttributeProto.INT, ref_attr_name="bins_down"
    )
    inner.attribute.append(linked)
    return helper.make_function(
        "local",
        "Head",
        FORWARD_INPUTS,
        ["Y"],
        [inner],
        opset_imports=OPSETS,
        attributes=["bins_down"],
    )


@pytest.mark.parametrize("evaluator", [ReferenceEvaluator, RoiReferenceEvaluator])
def test_our_operator_comes_before_a_local_function_of_its_name(evaluator):
    node = helper.make_node("RoiAlign", FORWARD_INPUTS, ["Y"], domain=DOMAIN, output_height=2)
    model = model_of([node], FORWARD_INPUTS, ["Y"], functions=[wrong_function("RoiAlign")])
    feeds = feeds_of()
    # Without our operators the function runs.
    (y,) = ReferenceEvaluator(model).run(None, feeds)
    assert_array_equal(y, feeds["X"])
    (y,) = evaluator(model, new_ops=list(ONNX_OPS)).run(None, feeds)
    expected = reference.roi_align(*feeds.values(), output_height=2)
    assert_array_equal(y, expected.astype(np.float32))


@pytest.mark.parametrize("with_wrong_function", [False, True])
def test_our_operator_inside_a_local_function(with_wrong_function):
    node = helper.make_node("Head", FORWARD_INPUTS, ["Y"], domain="local", bins_down=2)
    functions = [wrong_function("RoiAlign")] * with_wrong_function + [calling_function()]
    model = model_of(
        [node],
        FORWARD_INPUTS,
        ["Y"],
        functions,
        opsets=[*OPSETS, helper.make_opsetid("local", 1)],
    )
    feeds = feeds_of()
    (y,) = RoiReferenceEvaluator(model).run(None, feeds)
    expected = reference.roi_align(*feeds.values(), output_height=2, output_width=3, mode="max")
    assert_array_equal(y, expected.astype(np.float32))


def test_our_operator_inside_a_branch():
    node = helper.make_node("RoiAlign", FORWARD_INPUTS, ["Y_then"], domain=DOMAIN)
    info = helper.make_tensor_value_info
    then_branch = helper.make_graph(
        [node], "then", [], [info("Y_then", TensorProto.UNDEFINED, None)]
    )
    identity = helper.make_node("Identity", ["X"], ["Y_else"])
    else_branch = helper.make_graph(
        [identity], "else", [], [info("Y_else", TensorProto.UNDEFINED, None)]
    )
    branch = helper.make_node(
        "If", ["condition"], ["Y"], then_branch=then_branch, else_branch=else_branch
    )
    model = model_of([branch], [*FORWARD_INPUTS, "condition"], ["Y"])
    feeds = feeds_of()
    expected = reference.roi_align(*feeds.values()).astype(np.float32)
    for evaluator in (
        ReferenceEvaluator(model, new_ops=list(ONNX_OPS)),
        RoiReferenceEvaluator(model),
    ):
        (y,) = evaluator.run(None, feeds | {"condition": np.array(True)})
        assert_array_equal(y, expected)


def published_cases(monkeypatch):
    """ONNX's own node tests of RoiAlign, by name: (node, inputs, expected outputs)."""
    cases = {}

    def record(node, inputs, outputs, name):
        cases[name] = (node, inputs, outputs)

    monkeypatch.setattr(onnx_cases, "expect", record)
    for export in ("aligned_false", "aligned_true", "mode_max"):
        getattr(onnx_cases.RoiAlign, f"export_roialign_{export}")()
    return cases


@pytest.mark.parametrize("name", ["test_roialign_aligned_false", "test_roialign_aligned_true"])
def test_numbers_that_onnx_publishes(name, monkeypatch):
    node, inputs, (expected,) = published_cases(monkeypatch)[name]
    node.domain = DOMAIN
    model = model_of([node], node.input, node.output)
    (y,) = run(model, dict(zip(node.input, inputs, strict=True)))
    assert_allclose(y, expected, *tolerances.PRINTED_4_DECIMALS)


def test_maximum_is_of_samples_where_onnx_publishes_one_of_corners(monkeypatch):
    node, inputs, (expected,) = published_cases(monkeypatch)["test_roialign_mode_max"]
    node.domain = DOMAIN
    (y,) = run(
        model_of([node], node.input, node.output), dict(zip(node.input, inputs, strict=True))
    )
    # With weights of at most 1, a weighted corner is never above the interpolated sample of a
    # map without negative values.
    assert (inputs[0] >= 0).all()
    assert (y >= expected - tolerances.PRINTED_4_DECIMALS.atol).all()
    assert (y > expected + 0.01).any()


def test_the_reference_does_not_import_onnx():
    code = "import sys, ort_roialign.reference; sys.exit('onnx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_missing_onnx_is_named(monkeypatch):
    module = "ort_roialign.reference.onnx_ops"
    monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "onnx.reference", None)
    with pytest.raises(MissingDependencyError, match=r"pip install onnx"):
        importlib.import_module(module)


def test_there_is_one_for_each_operator_of_the_plugin():
    names = [operator["name"] for operator in ort_roialign.build_info()["operators"]]
    assert sorted(op.__name__ for op in ONNX_OPS) == sorted(names)


def test_results_have_the_types_of_their_inputs():
    rng = np.random.default_rng(3)
    levels = {"spatial_scales": [0.5, 0.25], "output_height": 2, "output_width": 3}
    maps = [rng.standard_normal((1, 2, 8, 9)).astype(np.float16) for _ in range(2)]
    rois = np.array([[0, 0, 9, 9], [0, 0, 300, 400]], np.float32)
    dy = rng.standard_normal((2, 2, 2, 3)).astype(np.float16)
    feeds = {"dY": dy, "rois": rois, "batch_indices": np.array([0, 0]), "A": maps[0], "B": maps[1]}
    names = [*feeds]
    model = node_model("MultiScaleRoiAlignGrad", names, ["dA", "dB"], **levels)
    found = RoiReferenceEvaluator(model).run(None, feeds)
    expected = reference.multi_scale_roi_align_grad(*feeds.values(), **levels)
    assert [gradient.dtype for gradient in found] == [np.float16, np.float16]
    for gradient, wanted in zip(found, expected, strict=True):
        assert np.abs(wanted).max() > 0
        assert_array_equal(gradient, wanted.astype(np.float16))

    pool = {"output_height": 2, "output_width": 3, "spatial_scale": 0.5}
    feeds = {"dY": dy, "X": maps[0], "rois": rois, "batch_indices": np.array([0, 0])}
    model = node_model("PrRoiPoolGrad", [*feeds], ["dX", "drois"], **pool)
    dx, drois = RoiReferenceEvaluator(model).run(None, feeds)
    assert (dx.dtype, drois.dtype) == (np.float16, np.float32)


@pytest.mark.parametrize("attributes", [{}, {"threshold": 0.5, "padding": 0}])
def test_paste_masks(attributes):
    rng = np.random.default_rng(7)
    feeds = {
        "masks": rng.random((2, 1, 5, 6), dtype=np.float32),
        "boxes": np.array([[3, 4, 20, 15], [-2, 0, 9, 30]], np.float32),
        "image_size": np.array([20, 25]),
    }
    (y,) = run(node_model("PasteMasks", list(feeds), ["Y"], **attributes), feeds)
    expected = reference.paste_masks(*feeds.values(), **attributes)
    assert y.dtype == (np.uint8 if attributes else np.float32)
    assert_array_equal(y, expected.astype(y.dtype))
    assert 0 < y.mean() < 1
