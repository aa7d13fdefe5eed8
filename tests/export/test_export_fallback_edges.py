"""The fallback functions where they are easily wrong: defaults, NaN, bad input, huge boxes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import tolerances
from plugin import BFLOAT16, OUTPUTS, make_model

from ort_roialign import reference
from ort_roialign.errors import InvalidArgumentError
from ort_roialign.onnx_export import add_fallback

BOTH_WAYS = pytest.mark.parametrize("opset", [18, 22])  # with and without a built-in RoiAlign


def _model(operator: str, attributes: dict[str, Any], map_type: Any, opset: int) -> onnx.ModelProto:
    types = {
        "X": np.dtype(map_type),
        "rois": np.dtype(np.float32),
        "batch_indices": np.dtype(np.int64),
    }
    model = make_model(operator, attributes, types)
    model.opset_import[0].version = opset
    return add_fallback(model)


def _run_without_plugin(
    operator: str,
    attributes: dict[str, Any],
    inputs: tuple[np.ndarray[Any, Any], ...],
    opset: int,
) -> list[np.ndarray[Any, Any]]:
    x, rois, batch_indices = inputs
    model = _model(operator, attributes, x.dtype, opset)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    x = x.astype(np.float32) if x.dtype == BFLOAT16 else x
    feeds = {"X": x, "rois": rois, "batch_indices": batch_indices}
    results: list[np.ndarray[Any, Any]] = session.run(list(OUTPUTS[operator]), feeds)
    return results


def _inputs(rng: np.random.Generator) -> tuple[np.ndarray[Any, Any], ...]:
    x = rng.standard_normal((2, 3, 6, 7)).astype(np.float32)
    rois = np.array([[0, 0, 3, 3], [-2, -3, 5, 9], [1, 1, 4, 5]], np.float32)
    return x, rois, np.array([0, 1, 0])


@BOTH_WAYS
@pytest.mark.parametrize(
    "attributes", [{}, {"output_height": 2}, {"mode": "max"}, {"sampling_ratio": 2}]
)
def test_roi_align_with_default_attributes(
    attributes: dict[str, Any], opset: int, rng: np.random.Generator
) -> None:
    inputs = _inputs(rng)
    (actual,) = _run_without_plugin("RoiAlign", attributes, inputs, opset)
    expected = reference.roi_align(*inputs, **attributes)
    np.testing.assert_allclose(actual, expected, *tolerances.KERNEL["float32"])


@BOTH_WAYS
@pytest.mark.parametrize("attributes", [{}, {"output_width": 2}, {"spatial_scale": 0.5}])
def test_roi_pool_with_default_attributes(
    attributes: dict[str, Any], opset: int, rng: np.random.Generator
) -> None:
    inputs = _inputs(rng)
    actual, argmax = _run_without_plugin("RoiPool", attributes, inputs, opset)
    expected, expected_argmax = reference.roi_pool(*inputs, **attributes)
    np.testing.assert_array_equal(actual, expected.astype(np.float32))
    np.testing.assert_array_equal(argmax, expected_argmax)


@BOTH_WAYS
def test_nan_is_the_maximum(opset: int, rng: np.random.Generator) -> None:
    x, rois, batch_indices = _inputs(rng)
    x[0, 0, 1, 1] = np.nan
    bins = {"output_height": 2, "output_width": 2}
    inputs = (x, rois, batch_indices)
    pooled, argmax = _run_without_plugin("RoiPool", bins, inputs, opset)
    expected, expected_argmax = reference.roi_pool(*inputs, **bins)
    assert np.isnan(expected).any()
    np.testing.assert_array_equal(pooled, expected.astype(np.float32))
    np.testing.assert_array_equal(argmax, expected_argmax)
    attributes = {**bins, "mode": "max", "sampling_ratio": 2}
    (aligned,) = _run_without_plugin("RoiAlign", attributes, inputs, opset)
    expected = reference.roi_align(*inputs, **attributes)
    assert np.isnan(expected).any()
    np.testing.assert_allclose(aligned, expected, *tolerances.KERNEL["float32"])


@BOTH_WAYS
@pytest.mark.parametrize(
    ("operator", "attributes"), [("RoiAlign", {"mode": "max"}), ("RoiPool", {})]
)
@pytest.mark.parametrize("index", [-1, 2])
def test_batch_index_out_of_range_fails(
    index: int, operator: str, attributes: dict[str, Any], opset: int, rng: np.random.Generator
) -> None:
    x, rois, _ = _inputs(rng)
    with pytest.raises(Exception, match="out of data bounds"):
        _run_without_plugin(operator, attributes, (x, rois[:1], np.array([index])), opset)


@pytest.mark.parametrize("far", [1e6, 2e9, 3e9, 1e20])
def test_roi_pool_of_a_huge_box(far: float, rng: np.random.Generator) -> None:
    x, _, batch_indices = _inputs(rng)
    rois = np.array([[-far, -far, far, far], [0, 0, far, 3], [-far, 1, 2, 3]], np.float32)
    inputs = (x, rois, batch_indices)
    actual, argmax = _run_without_plugin("RoiPool", {"output_height": 2}, inputs, 18)
    expected, expected_argmax = reference.roi_pool(*inputs, output_height=2)
    np.testing.assert_array_equal(actual, expected.astype(np.float32))
    np.testing.assert_array_equal(argmax, expected_argmax)


@pytest.mark.parametrize("map_type", [np.float16, BFLOAT16])
def test_half_maps_with_float32_boxes(map_type: Any, rng: np.random.Generator) -> None:
    x, rois, batch_indices = _inputs(rng)
    inputs = (x.astype(map_type), rois, batch_indices)
    tolerance = tolerances.KERNEL[np.dtype(map_type).name]
    (aligned,) = _run_without_plugin("RoiAlign", {"output_height": 2}, inputs, 18)
    np.testing.assert_allclose(aligned, reference.roi_align(*inputs, output_height=2), *tolerance)
    pooled, _ = _run_without_plugin("RoiPool", {"output_height": 2}, inputs, 18)
    np.testing.assert_array_equal(pooled, reference.roi_pool(*inputs, output_height=2)[0])


@pytest.mark.parametrize(
    ("attributes", "text"),
    [
        ({"mode": "maximum"}, 'RoiAlign: attribute mode must be "avg" or "max"; got "maximum"'),
        ({"sampling_ratio": -1}, "RoiAlign: attribute sampling_ratio must be at least 0; got -1"),
    ],
)
def test_bad_attribute_is_refused(attributes: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        _model("RoiAlign", attributes, np.float32, 18)
    assert str(caught.value) == text
