"""`reference.ps_roi_align` and its gradient: torchvision, numbers by hand and edge cases."""

from __future__ import annotations

import numpy as np
import pytest
import tolerances
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_dtypes import bfloat16
from numpy.testing import assert_allclose, assert_array_equal
from torchvision.ops import ps_roi_align as torchvision_ps_roi_align

from ort_roialign.errors import InvalidArgumentError
from ort_roialign.reference._ps_roi_align import ps_roi_align, ps_roi_align_grad

# Scales that are not powers of two make float32 and float64 coordinates differ.
SCALES = (0.25, float(np.float32(0.1)), 1.0)
SIZES = ((1, 1), (2, 3), (4, 1))
OPERATORS = [("PsRoiAlign", ps_roi_align, False), ("PsRoiAlignGrad", ps_roi_align_grad, True)]


def random_case(seed, size, dtype=np.float64, spatial_scale=0.25, num_rois=6):
    """Maps of two images for two output channels, and boxes of which some reach outside."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((2, 2 * size[0] * size[1], 9, 11)).astype(dtype)
    corner_image = rng.uniform(-3, 9, (num_rois, 2)) / spatial_scale
    size_image = rng.uniform(0.05, 8, (num_rois, 2)) / spatial_scale
    rois = np.concatenate([corner_image, corner_image + size_image], axis=1).astype(dtype)
    return x, rois, rng.integers(0, 2, num_rois)


def with_torchvision(x, rois, batch_indices, size, scale, ratio):
    boxes = np.concatenate([batch_indices[:, np.newaxis].astype(rois.dtype), rois], axis=1)
    return torchvision_ps_roi_align(x, torch.from_numpy(boxes), size, scale, ratio)


def attributes_of(size, spatial_scale=1.0, sampling_ratio=0):
    return {
        "output_height": size[0],
        "output_width": size[1],
        "sampling_ratio": sampling_ratio,
        "spatial_scale": spatial_scale,
    }


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("sampling_ratio", [0, 1, 3])
@pytest.mark.parametrize("spatial_scale", SCALES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_equals_torchvision(dtype, spatial_scale, sampling_ratio, size):
    x, rois, batch_indices = random_case(sampling_ratio, size, dtype, spatial_scale)
    if sampling_ratio:
        rois[-1] = rois[-1][[2, 1, 0, 3]]  # mirrored
    ours = ps_roi_align(
        x, rois, batch_indices, **attributes_of(size, spatial_scale, sampling_ratio)
    )
    theirs = with_torchvision(
        torch.from_numpy(x), rois, batch_indices, size, spatial_scale, sampling_ratio
    )
    assert ours.dtype == np.float64
    assert np.abs(ours).max() > 0.1
    assert_allclose(ours, theirs.numpy(), *tolerances.KERNEL[dtype])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_gradient_equals_torchvision_autograd(sampling_ratio, size):
    x, rois, batch_indices = random_case(10, size)
    dy = np.random.default_rng(11).standard_normal((len(rois), 2, *size))
    x_torch = torch.from_numpy(x).requires_grad_()
    y = with_torchvision(x_torch, rois, batch_indices, size, 0.25, sampling_ratio)
    y.backward(torch.from_numpy(dy))
    ours = ps_roi_align_grad(
        dy, x, rois, batch_indices, **attributes_of(size, 0.25, sampling_ratio)
    )
    assert np.abs(ours).max() > 0.1
    assert_allclose(ours, x_torch.grad.numpy(), *tolerances.GRADIENT["float64"])


def test_two_by_two_map_and_its_gradient_derived_by_hand():
    # Samples at -0.375, -0.125, 0.125, 0.375 on each axis; those below 0 are clamped to 0. On each
    # axis the first bin is cell 0, the second 3/4 of cell 0 and 1/4 of cell 1. In the map 1 2 3 4
    # the bins are 1, 1.25, 1.5, 1.75; channel k holds k + 1 times that map.
    x = np.arange(1.0, 5).reshape(1, 4, 1, 1) * np.array([[1.0, 2.0], [3.0, 4.0]])
    attributes = attributes_of((2, 2), sampling_ratio=2)
    y = ps_roi_align(x, [[0, 0, 1, 1]], [0], **attributes)
    assert_array_equal(y, [[[[1.0, 2 * 1.25], [3 * 1.5, 4 * 1.75]]]])
    dx = ps_roi_align_grad(np.ones_like(y), x, [[0, 0, 1, 1]], [0], **attributes)
    assert_array_equal(
        dx[0],
        [
            [[1, 0], [0, 0]],
            [[0.75, 0.25], [0, 0]],
            [[0.75, 0], [0.25, 0]],
            [[9 / 16, 3 / 16], [3 / 16, 1 / 16]],
        ],
    )


def test_each_bin_reads_the_channel_of_its_position():
    # Channel number k holds the constant k, so a bin tells which one it read.
    channels, output_height, output_width = 3, 2, 5
    numbers = np.arange(float(channels * output_height * output_width))
    x = np.broadcast_to(numbers[:, np.newaxis, np.newaxis], (1, len(numbers), 6, 6))
    attributes = attributes_of((output_height, output_width))
    y = ps_roi_align(x, [[1, 1, 5, 4]], [0], **attributes)
    expected = numbers.reshape(1, channels, output_height, output_width)
    assert_allclose(y, expected, *tolerances.KERNEL["float64"])
    dy = np.zeros_like(y)
    dy[0, 1, 1, 3] = 1
    dx = ps_roi_align_grad(dy, x, [[1, 1, 5, 4]], [0], **attributes)
    assert_array_equal(np.flatnonzero(dx.sum(axis=(0, 2, 3))), [(1 * 2 + 1) * 5 + 3])


@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_gradient_equals_finite_differences(sampling_ratio):
    x, rois, batch_indices = random_case(20, (2, 1), num_rois=3)
    x = x[:, :, :5, :6]
    dy = np.random.default_rng(21).standard_normal((3, 2, 2, 1))
    attributes = attributes_of((2, 1), 0.25, sampling_ratio)
    # The operator is linear in x, so the step may be large.
    step = 2.0**-14
    expected = np.zeros_like(x)
    for cell in np.ndindex(x.shape):
        nudge = np.zeros_like(x)
        nudge[cell] = step
        above = ps_roi_align(x + nudge, rois, batch_indices, **attributes)
        below = ps_roi_align(x - nudge, rois, batch_indices, **attributes)
        expected[cell] = (dy * (above - below)).sum() / (2 * step)
    ours = ps_roi_align_grad(dy, x, rois, batch_indices, **attributes)
    assert np.abs(ours).max() > 0.1
    assert_allclose(ours, expected, *tolerances.GRADIENT["float64"])


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(*[st.floats(-20, 40)] * 4),
    st.sampled_from([(1, 2), (3, 2)]),
    st.integers(0, 3),
    st.integers(0, 99),
)
def test_gradient_is_the_transpose(box, size, sampling_ratio, seed):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((1, 2 * size[0] * size[1], 6, 7))
    attributes = attributes_of(size, 0.25, sampling_ratio)
    y = ps_roi_align(x, [box], [0], **attributes)
    dy = rng.standard_normal(y.shape)
    dx = ps_roi_align_grad(dy, x, [box], [0], **attributes)
    assert_allclose((dy * y).sum(), (dx * x).sum(), *tolerances.GRADIENT["float64"])


@pytest.mark.parametrize("box", [[2, 1, 2, 4], [1, 2, 4, 2], [4, 1, 2, 3], [1, 3, 3, 2]])
def test_adaptive_grid_of_a_box_without_area_is_empty(box):
    x, _, _ = random_case(30, (2, 2))
    attributes = attributes_of((2, 2))
    y = ps_roi_align(x, [box], [1], **attributes)
    assert_array_equal(y, np.zeros((1, 2, 2, 2)))
    assert_array_equal(ps_roi_align_grad(np.ones_like(y), x, [box], [1], **attributes), 0 * x)


def test_torchvision_gives_no_number_for_an_empty_grid():
    # Where we differ on purpose; no longer so if this fails.
    x, _, _ = random_case(31, (1, 1))
    rois = np.array([[2.0, 1.0, 2.0, 4.0]])
    theirs = with_torchvision(torch.from_numpy(x), rois, np.array([0]), (1, 1), 1.0, 0)
    assert np.isnan(theirs.numpy()).all()


def test_mirrored_box_gives_the_mirrored_crop():
    # All channels of a plane are equal, so that a bin may be compared with another position's.
    plane = np.random.default_rng(40).standard_normal((1, 1, 6, 7))
    x = np.repeat(plane, 6, axis=1)
    attributes = attributes_of((2, 3), sampling_ratio=2)
    crop = ps_roi_align(x, [[0.5, 1.25, 5.0, 6.0]], [0], **attributes)
    mirrored = ps_roi_align(x, [[5.0, 6.0, 0.5, 1.25]], [0], **attributes)
    assert np.abs(crop - mirrored).max() > 0.1
    assert_allclose(mirrored, crop[..., ::-1, ::-1], *tolerances.KERNEL["float64"])


@pytest.mark.parametrize("num_images", [0, 2])
def test_no_regions(num_images):
    x = np.ones((num_images, 12, 4, 5))
    y = ps_roi_align(x, np.zeros((0, 4)), [], **attributes_of((2, 3)))
    assert y.shape == (0, 2, 2, 3)
    dx = ps_roi_align_grad(y, x, np.zeros((0, 4)), [], **attributes_of((2, 3)))
    assert_array_equal(dx, 0 * x)


def test_maps_without_channels():
    x = np.zeros((1, 0, 4, 5))
    y = ps_roi_align(x, [[0, 0, 2, 2]], [0], **attributes_of((2, 3)))
    assert y.shape == (1, 0, 2, 3)
    dx = ps_roi_align_grad(y, x, [[0, 0, 2, 2]], [0], **attributes_of((2, 3)))
    assert dx.shape == x.shape


def test_boxes_outside_and_partly_outside():
    x = np.ones((1, 2, 5, 5))
    y = ps_roi_align(x, [[50, 0, 60, 4], [-9, 0.5, 3, 2.5]], [0, 0], **attributes_of((1, 2)))
    # Six samples a bin across, one cell apart: at -9 ... -4 all outside, at -3 ... 2 two of them.
    assert_allclose(y[:, 0, 0], [[0, 0], [0, 4 / 6]], *tolerances.KERNEL["float64"])


def test_a_billion_pixels():
    # Each bin has 1e9 samples per axis, one cell apart; only the middle bin reaches the map, with
    # samples at -1, 0, ... 6 down and -1, 0, ... 7 across.
    x = np.ones((1, 9, 6, 7))
    box = [[-1.5e9, -1.5e9, 1.5e9, 1.5e9]]
    y = ps_roi_align(x, box, [0], **attributes_of((3, 3)))
    expected = np.zeros((1, 1, 3, 3))
    expected[0, 0, 1, 1] = 8 * 9
    assert_allclose(y * 1e18, expected, *tolerances.KERNEL["float64"])
    dx = ps_roi_align_grad(1e18 * np.ones_like(y), x, box, [0], **attributes_of((3, 3)))
    assert_allclose(dx[0].sum(axis=(1, 2)), expected.ravel(), *tolerances.GRADIENT["float64"])


@pytest.mark.parametrize("real", [np.float32, np.float64])
@pytest.mark.parametrize("half_image", [1e9, 1e30, 3e38])
def test_boxes_that_overflow_stay_finite(half_image, real):
    x = np.ones((1, 9, 6, 7), real)
    box = np.array([[-half_image, -half_image, half_image, half_image]], real)
    attributes = attributes_of((3, 3), spatial_scale=2.0)
    y = ps_roi_align(x, box, [0], **attributes)
    assert ((y >= 0) & (y <= 1)).all()
    dx = ps_roi_align_grad(np.ones_like(y), x, box, [0], **attributes)
    assert ((dx >= 0) & (dx <= 1)).all()


def test_not_a_number_reaches_its_own_bin_only():
    x, _, _ = random_case(50, (2, 2))
    x[0, 5, 2, 3] = np.nan  # output channel 1, bin (0, 1)
    y = ps_roi_align(x, [[0, 0, 9, 9]], [0], **attributes_of((2, 2)))
    assert np.isfinite(y).all()  # cell (2, 3) is left of that bin
    y = ps_roi_align(x, [[-6, 0, 9, 9]], [0], **attributes_of((2, 2)))
    assert_array_equal(np.argwhere(np.isnan(y)), [[0, 1, 0, 1]])

    dy = np.zeros((1, 2, 2, 2))
    dy[0, 1, 0, 1] = np.nan
    dx = ps_roi_align_grad(dy, x, [[0, 0, 9, 9]], [0], **attributes_of((2, 2)))
    assert_array_equal(np.unique(np.argwhere(np.isnan(dx))[:, 1]), [5])


@pytest.mark.parametrize(
    ("dtype", "value"),
    [("float32", 1), ("float16", 1), (bfloat16, 1), ("float64", 0)],
)
def test_type_of_the_coordinates(dtype, value):
    # The scale 0.1 is the float32 0.100000001490..., times 105 is 10.5 in float32 but 10.50000016
    # in float64: the sample is at 10, on the border of the map, or just outside it.
    x = np.ones((1, 1, 10, 10), dtype)
    rois = np.array([[105, 5, 105, 5]], np.float32)
    assert ps_roi_align(x, rois, [0], sampling_ratio=1, spatial_scale=0.1) == value


@pytest.mark.parametrize(("name", "function", "needs_dy"), OPERATORS)
@pytest.mark.parametrize(
    ("changed", "text"),
    [
        (
            {"x": np.ones((2, 13, 5, 6))},
            "X must have a multiple of output_height * output_width = 6 channels; "
            "got [2, 13, 5, 6]",
        ),
        (
            {"x": np.ones((3, 5, 6))},
            "X must have shape [num_images, channels, height, width]; got [3, 5, 6]",
        ),
        ({"rois": np.ones((2, 5))}, "rois must have shape [num_rois, 4]; got [2, 5]"),
        ({"batch_indices": [0, 2]}, "batch_indices[1] must be in [0, 2); got 2"),
        ({"output_height": 0}, "attribute output_height must be at least 1; got 0"),
        ({"output_width": -3}, "attribute output_width must be at least 1; got -3"),
        ({"sampling_ratio": -1}, "attribute sampling_ratio must be at least 0; got -1"),
        (
            {"spatial_scale": 0.0},
            "attribute spatial_scale must be finite and greater than 0; got 0",
        ),
    ],
)
def test_errors(name, function, needs_dy, changed, text):
    arguments = {
        "x": np.ones((2, 12, 5, 6)),
        "rois": np.array([[0.0, 0, 4, 4], [1, 1, 3, 3]]),
        "batch_indices": np.array([0, 1]),
        **attributes_of((2, 3)),
    }
    if needs_dy:
        arguments["dy"] = np.ones((2, 2, 2, 3))
    function(**arguments)
    with pytest.raises(InvalidArgumentError) as raised:
        function(**(arguments | changed))
    assert str(raised.value) == f"{name}: {text}"


def test_shape_of_the_output_gradient():
    x = np.ones((1, 12, 5, 6))
    with pytest.raises(InvalidArgumentError) as raised:
        # As many channels as X has, which the output has not.
        ps_roi_align_grad(np.ones((1, 12, 2, 3)), x, [[0, 0, 4, 4]], [0], **attributes_of((2, 3)))
    assert str(raised.value) == (
        "PsRoiAlignGrad: dY must have shape [num_rois, channels, output_height, output_width]"
        " = [1, 2, 2, 3]; got [1, 12, 2, 3]"
    )
