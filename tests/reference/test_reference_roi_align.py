"""`reference.roi_align` and its gradient against peers, hand-derived numbers and a plain loop."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import tolerances
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from plain_loop_roi_align import plain_loop
from torchvision.ops import roi_align as torchvision_roi_align

from ort_roialign.reference import roi_align, roi_align_grad

TRANSFORMATIONS = ("half_pixel", "output_half_pixel")
# Scales that are not powers of two make float32 and float64 coordinates differ.
SCALES = (0.25, float(np.float32(0.1)), 1.0)


def random_case(seed, dtype=np.float64, spatial_scale=0.25, num_rois=6):
    """Maps of two images, and boxes of which some reach outside and some are tiny."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((2, 3, 9, 11)).astype(dtype)
    corner_image = rng.uniform(-3, 9, (num_rois, 2)) / spatial_scale
    size_image = rng.uniform(0.05, 8, (num_rois, 2)) / spatial_scale
    rois = np.concatenate([corner_image, corner_image + size_image], axis=1).astype(dtype)
    return x, rois, rng.integers(0, 2, num_rois)


def with_torchvision(x, rois, batch_indices, size, scale, ratio, transformation):
    boxes = np.concatenate([batch_indices[:, np.newaxis].astype(rois.dtype), rois], axis=1)
    aligned = transformation == "half_pixel"
    return torchvision_roi_align(x, torch.from_numpy(boxes), size, scale, ratio, aligned)


@pytest.mark.parametrize("transformation", TRANSFORMATIONS)
@pytest.mark.parametrize("sampling_ratio", [0, 1, 2, 3])
@pytest.mark.parametrize("spatial_scale", SCALES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_average_equals_torchvision(dtype, spatial_scale, sampling_ratio, transformation):
    x, rois, batch_indices = random_case(sampling_ratio, dtype, spatial_scale)
    ours = roi_align(
        x,
        rois,
        batch_indices,
        output_height=3,
        output_width=4,
        sampling_ratio=sampling_ratio,
        spatial_scale=spatial_scale,
        coordinate_transformation_mode=transformation,
    )
    theirs = with_torchvision(
        torch.from_numpy(x),
        rois,
        batch_indices,
        (3, 4),
        spatial_scale,
        sampling_ratio,
        transformation,
    )
    assert ours.dtype == np.float64
    assert np.abs(ours).max() > 0.1
    assert_allclose(ours, theirs.numpy(), *tolerances.KERNEL[dtype])


@pytest.mark.parametrize("transformation", TRANSFORMATIONS)
@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_average_gradient_equals_torchvision_autograd(sampling_ratio, transformation):
    x, rois, batch_indices = random_case(seed=10)
    dy = np.random.default_rng(11).standard_normal((len(rois), 3, 3, 4))
    x_torch = torch.from_numpy(x).requires_grad_()
    y = with_torchvision(x_torch, rois, batch_indices, (3, 4), 0.25, sampling_ratio, transformation)
    y.backward(torch.from_numpy(dy))
    ours = roi_align_grad(
        dy,
        x,
        rois,
        batch_indices,
        output_height=3,
        output_width=4,
        sampling_ratio=sampling_ratio,
        spatial_scale=0.25,
        coordinate_transformation_mode=transformation,
    )
    assert_allclose(ours, x_torch.grad.numpy(), *tolerances.GRADIENT["float64"])


@pytest.mark.parametrize("transformation", TRANSFORMATIONS)
@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_average_equals_onnxruntime(sampling_ratio, transformation):
    x, rois, batch_indices = random_case(seed=20, dtype=np.float32, spatial_scale=SCALES[1])
    attributes = {
        "output_height": 3,
        "output_width": 4,
        "sampling_ratio": sampling_ratio,
        "spatial_scale": SCALES[1],
        "coordinate_transformation_mode": transformation,
    }
    inputs = {"X": x, "rois": rois, "batch_indices": batch_indices}
    infos = [
        onnx.helper.make_tensor_value_info(
            name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
        )
        for name, array in inputs.items()
    ]
    y_info = onnx.helper.make_tensor_value_info("Y", onnx.TensorProto.FLOAT, None)
    node = onnx.helper.make_node("RoiAlign", list(inputs), ["Y"], mode="avg", **attributes)
    model = onnx.helper.make_model(
        onnx.helper.make_graph([node], "g", infos, [y_info]),
        opset_imports=[onnx.helper.make_opsetid("", 16)],
        ir_version=8,
    )
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (theirs,) = session.run(None, inputs)
    ours = roi_align(x, rois, batch_indices, **attributes)
    assert_allclose(ours, theirs, *tolerances.KERNEL["float32"])


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("transformation", TRANSFORMATIONS)
@pytest.mark.parametrize("sampling_ratio", [0, 3])
def test_equals_plain_loop(mode, transformation, sampling_ratio):
    x, rois, batch_indices = random_case(seed=30, num_rois=4)
    attributes = {
        "mode": mode,
        "output_height": 2,
        "output_width": 3,
        "sampling_ratio": sampling_ratio,
        "spatial_scale": 0.25,
        "coordinate_transformation_mode": transformation,
    }
    ours = roi_align(x, rois, batch_indices, **attributes)
    expected = plain_loop(x, rois, batch_indices, **attributes)
    assert_allclose(ours, expected, *tolerances.KERNEL["float64"])


@pytest.mark.parametrize(
    ("mode", "first_row"),
    [
        # The box at (7, 5) is at (0.4375, 0.3125) on the map and made one cell large, so a bin is
        # 1/3 by 1/4 cell. The value at (x, y) is 5y + x: the average is that of the bin's centre,
        # 5 * (0.3125 + 1/6) + 0.5625 + pw / 4, the maximum that of the lower right sample,
        # 5 * (0.3125 + 1/4) + 0.625 + pw / 4.
        ("avg", [71 / 24, 77 / 24, 83 / 24, 89 / 24]),
        ("max", [3.4375, 3.6875, 3.9375, 4.1875]),
    ],
)
def test_box_without_size_derived_by_hand(mode, first_row):
    x = np.arange(75.0).reshape(1, 3, 5, 5)
    rois = np.array([[7, 5, 7, 5], [-10, 21, -10, 21]], np.float64)
    y = roi_align(
        x,
        rois,
        [0, 0],
        mode=mode,
        output_height=3,
        output_width=4,
        sampling_ratio=2,
        spatial_scale=1 / 16,
        coordinate_transformation_mode="output_half_pixel",
    )
    assert_allclose(y[0, 0, 0], first_row, *tolerances.KERNEL["float64"])
    assert_allclose(y[0, 1, 0], np.add(first_row, 25), *tolerances.KERNEL["float64"])


@pytest.mark.parametrize(
    ("transformation", "first", "last"),
    # One sample per half-cell bin, at 1.25 ... 2.75 (half a cell less with half_pixel): the value
    # at (x, y) is 5y + x, so 6 * 1.25 = 7.5 up to 6 * 2.75 = 16.5, and 3 less.
    [("output_half_pixel", 7.5, 16.5), ("half_pixel", 4.5, 13.5)],
)
def test_adaptive_grid_derived_by_hand(transformation, first, last):
    y = roi_align(
        np.arange(25.0).reshape(1, 1, 5, 5),
        [[1, 1, 3, 3]],
        [0],
        output_height=4,
        output_width=4,
        coordinate_transformation_mode=transformation,
    )
    assert_array_equal(y[0, 0, :, 0], first + 2.5 * np.arange(4))
    assert_array_equal(y[0, 0, 0], first + 0.5 * np.arange(4))
    assert y[0, 0, 3, 3] == last


def test_two_by_two_map_and_its_gradient_derived_by_hand():
    x = np.array([[[[1.0, 2.0], [3.0, 4.0]]]])
    attributes = {"output_height": 2, "output_width": 2, "sampling_ratio": 2}
    # Samples at -0.375, -0.125, 0.125, 0.375 on each axis; those below 0 are clamped to 0.
    y = roi_align(x, [[0, 0, 1, 1]], [0], **attributes)
    assert_array_equal(y, [[[[1.0, 1.25], [1.5, 1.75]]]])
    # Each axis gives the cells the weights 1 + 0.75 and 0.25 over both bins.
    dx = roi_align_grad(np.ones_like(y), x, [[0, 0, 1, 1]], [0], **attributes)
    assert_array_equal(dx, [[[[3.0625, 0.4375], [0.4375, 0.0625]]]])


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_gradient_equals_finite_differences(mode, sampling_ratio):
    x, rois, batch_indices = random_case(seed=40, num_rois=3)
    x = x[:, :2, :6, :6]
    dy = np.random.default_rng(41).standard_normal((3, 2, 2, 2))
    attributes = {
        "mode": mode,
        "output_height": 2,
        "output_width": 2,
        "sampling_ratio": sampling_ratio,
        "spatial_scale": 0.25,
    }
    # Both modes are linear in x while no maximum changes hands, so the step may be large.
    step = 2.0**-14
    expected = np.zeros_like(x)
    for cell in np.ndindex(x.shape):
        nudge = np.zeros_like(x)
        nudge[cell] = step
        above = roi_align(x + nudge, rois, batch_indices, **attributes)
        below = roi_align(x - nudge, rois, batch_indices, **attributes)
        expected[cell] = (dy * (above - below)).sum() / (2 * step)
    ours = roi_align_grad(dy, x, rois, batch_indices, **attributes)
    assert np.abs(ours).max() > 0.1
    assert_allclose(ours, expected, *tolerances.GRADIENT["float64"])


# Boxes in eighths of a cell, and as many bins and samples as a power of two: coordinates are exact,
# so that no rounding carries a sample over the border of the map. (An adaptive grid may have any
# number of samples; the properties that use one hold at the border too.)
eighths = st.integers(-40, 120).map(lambda eighth: eighth / 8)
boxes = st.tuples(eighths, eighths, st.integers(1, 80), st.integers(1, 80)).map(
    lambda box: [box[0], box[1], box[0] + box[2] / 8, box[1] + box[3] / 8]
)
attribute_sets = st.fixed_dictionaries(
    {
        "output_height": st.sampled_from([1, 2]),
        "output_width": st.sampled_from([1, 2, 4]),
        "sampling_ratio": st.sampled_from([0, 1, 2, 4]),
        "spatial_scale": st.sampled_from([0.5, 1.0]),
        "coordinate_transformation_mode": st.sampled_from(TRANSFORMATIONS),
    }
)
few_examples = settings(max_examples=40, deadline=None)


@few_examples
@given(boxes, attribute_sets, st.sampled_from(["avg", "max"]))
def test_constant_map_gives_the_constant_inside(box, attributes, mode):
    # Any box of the strategy lies within one cell of this map, shifted into it.
    box = [coordinate + 6 for coordinate in box]
    x = np.full((1, 1, 40, 40), 3.5)
    y = roi_align(x, [box], [0], mode=mode, **attributes)
    assert_allclose(y, 3.5, *tolerances.KERNEL["float64"])


@few_examples
@given(boxes, attribute_sets, st.sampled_from(["avg", "max"]), st.integers(0, 2**32 - 1))
def test_gradient_is_the_transpose(box, attributes, mode, seed):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((1, 2, 6, 7))
    y = roi_align(x, [box], [0], mode=mode, **attributes)
    dy = rng.standard_normal(y.shape)
    dx = roi_align_grad(dy, x, [box], [0], mode=mode, **attributes)
    # Also for the maximum, whose output is the winners' weights times x.
    assert_allclose((dy * y).sum(), (dx * x).sum(), *tolerances.GRADIENT["float64"])


@few_examples
@given(boxes, attribute_sets, st.sampled_from(["avg", "max"]))
def test_mirrored_box_gives_the_mirrored_crop(box, attributes, mode):
    attributes |= {"coordinate_transformation_mode": "half_pixel", "sampling_ratio": 2}
    x = np.random.default_rng(50).standard_normal((1, 2, 6, 7))
    x1, y1, x2, y2 = box
    crop = roi_align(x, [box], [0], mode=mode, **attributes)
    mirrored_x = roi_align(x, [[x2, y1, x1, y2]], [0], mode=mode, **attributes)
    mirrored_xy = roi_align(x, [[x2, y2, x1, y1]], [0], mode=mode, **attributes)
    assert_allclose(mirrored_x, crop[..., ::-1], *tolerances.KERNEL["float64"])
    assert_allclose(mirrored_xy, crop[..., ::-1, ::-1], *tolerances.KERNEL["float64"])


@few_examples
@given(boxes, attribute_sets, st.integers(0, 6), st.integers(0, 6))
def test_translation_moves_the_crop_with_the_map(box, attributes, shift_y_cells, shift_x_cells):
    x = np.random.default_rng(60).standard_normal((1, 1, 50, 50))
    box = [coordinate + 12 for coordinate in box]
    scale = attributes["spatial_scale"]
    shift_image = np.array([shift_x_cells, shift_y_cells, shift_x_cells, shift_y_cells]) / scale
    moved_map = np.roll(x, (shift_y_cells, shift_x_cells), axis=(2, 3))
    crop = roi_align(x, [box], [0], **attributes)
    moved = roi_align(moved_map, [box + shift_image], [0], **attributes)
    assert_allclose(moved, crop, *tolerances.KERNEL["float64"])
