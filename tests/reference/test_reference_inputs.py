"""The errors of the reference operators, word by word: the kernels raise the same texts."""

from __future__ import annotations

import numpy as np
import pytest

from ort_roialign import reference
from ort_roialign.errors import InvalidArgumentError, OrtRoiAlignError

# Operator, function, and whether the first argument is dY.
OPERATORS = [
    ("RoiAlign", reference.roi_align, False),
    ("RoiAlignGrad", reference.roi_align_grad, True),
    ("RoiPool", reference.roi_pool, False),
    ("RoiPoolGrad", reference.roi_pool_grad, True),
]
ALIGN_OPERATORS = OPERATORS[:2]
GRADIENTS = OPERATORS[1::2]
SIZE = {"output_height": 7, "output_width": 7}


def good_tensors():
    """Two images, two regions; `dY` belongs to 7x7 bins."""
    rng = np.random.default_rng(0)
    return {
        "dy": rng.standard_normal((2, 3, 7, 7)).astype(np.float32),
        "x": rng.standard_normal((2, 3, 5, 6)).astype(np.float32),
        "rois": np.array([[0, 0, 4, 4], [1, 1, 3, 3]], np.float32),
        "batch_indices": np.array([0, 1]),
    }


def error_of(function, needs_dy, tensors=None, **attributes):
    arguments = good_tensors() | (tensors or {})
    if not needs_dy:
        del arguments["dy"]
    with pytest.raises(InvalidArgumentError) as raised:
        function(**arguments, **(SIZE | attributes))
    return str(raised.value)


@pytest.mark.parametrize(("name", "function", "needs_dy"), OPERATORS)
@pytest.mark.parametrize(
    ("tensors", "text"),
    [
        (
            {"x": np.ones((3, 5, 6))},
            "X must have shape [num_images, channels, height, width]; got [3, 5, 6]",
        ),
        ({"x": np.float32(1)}, "X must have shape [num_images, channels, height, width]; got []"),
        ({"rois": np.ones((12, 5))}, "rois must have shape [num_rois, 4]; got [12, 5]"),
        ({"rois": np.ones(4)}, "rois must have shape [num_rois, 4]; got [4]"),
        (
            {"rois": np.ones((12, 4))},
            "batch_indices must have shape [num_rois] = [12]; got [2]",
        ),
        (
            {"batch_indices": np.zeros((2, 1), np.int64)},
            "batch_indices must have shape [num_rois] = [2]; got [2, 1]",
        ),
        (
            {"x": np.ones((1, 3, 0, 5), np.float32)},
            "X must have height and width of at least 1; got [1, 3, 0, 5]",
        ),
        (
            {"x": np.ones((1, 3, 5, 0), np.float32)},
            "X must have height and width of at least 1; got [1, 3, 5, 0]",
        ),
        ({"batch_indices": [0, 5]}, "batch_indices[1] must be in [0, 2); got 5"),
        ({"batch_indices": [-1, 0]}, "batch_indices[0] must be in [0, 2); got -1"),
        (
            {"x": np.ones((0, 3, 5, 5), np.float32)},
            "batch_indices[0] must be in [0, 0); got 0",
        ),
        (
            {"rois": np.array([[0, 0, 1, 1], [0, np.nan, 1, 2]])},
            "rois[1] must have finite coordinates; got [0, nan, 1, 2]",
        ),
        (
            {"rois": np.array([[0.5, 1e20, -np.inf, 1 / 3], [0, 0, 1, 1]])},
            "rois[0] must have finite coordinates; got [0.5, 1e+20, -inf, 0.333333]",
        ),
        (
            {"x": np.ones((2, 3, 5, 5), np.int64)},
            "X must be of type float16, bfloat16, float32 or float64; got int64",
        ),
        (
            {"batch_indices": np.array([0.0, 1.0])},
            "batch_indices must be of type int64; got float64",
        ),
    ],
)
def test_tensors(name, function, needs_dy, tensors, text):
    assert error_of(function, needs_dy, tensors) == f"{name}: {text}"


@pytest.mark.parametrize(("name", "function", "needs_dy"), OPERATORS)
@pytest.mark.parametrize(
    ("attributes", "text"),
    [
        ({"output_height": 0}, "attribute output_height must be at least 1; got 0"),
        ({"output_width": -3}, "attribute output_width must be at least 1; got -3"),
        (
            {"spatial_scale": 0.0},
            "attribute spatial_scale must be finite and greater than 0; got 0",
        ),
        (
            {"spatial_scale": -0.25},
            "attribute spatial_scale must be finite and greater than 0; got -0.25",
        ),
        (
            {"spatial_scale": float("nan")},
            "attribute spatial_scale must be finite and greater than 0; got nan",
        ),
        # An attribute is a float32.
        (
            {"spatial_scale": 1e300},
            "attribute spatial_scale must be finite and greater than 0; got inf",
        ),
    ],
)
def test_attributes(name, function, needs_dy, attributes, text):
    assert error_of(function, needs_dy, **attributes) == f"{name}: {text}"


@pytest.mark.parametrize(("name", "function", "needs_dy"), ALIGN_OPERATORS)
@pytest.mark.parametrize(
    ("attributes", "text"),
    [
        ({"mode": "median"}, 'attribute mode must be "avg" or "max"; got "median"'),
        ({"sampling_ratio": -1}, "attribute sampling_ratio must be at least 0; got -1"),
        (
            {"coordinate_transformation_mode": "x"},
            "attribute coordinate_transformation_mode must be "
            '"half_pixel" or "output_half_pixel"; got "x"',
        ),
    ],
)
def test_attributes_of_roi_align(name, function, needs_dy, attributes, text):
    assert error_of(function, needs_dy, **attributes) == f"{name}: {text}"


@pytest.mark.parametrize(("name", "function", "needs_dy"), GRADIENTS)
def test_shape_of_the_output_gradient(name, function, needs_dy):
    text = error_of(function, needs_dy, {"dy": np.ones((2, 3, 7, 6))})
    assert text == (
        f"{name}: dY must have shape [num_rois, channels, output_height, output_width]"
        " = [2, 3, 7, 7]; got [2, 3, 7, 6]"
    )


def test_errors_are_value_errors_of_the_package():
    assert issubclass(InvalidArgumentError, ValueError)
    assert issubclass(InvalidArgumentError, OrtRoiAlignError)
