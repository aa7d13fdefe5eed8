"""`reference.ps_roi_pool` and its gradient: torchvision, numbers by hand and edge cases."""

from __future__ import annotations

import numpy as np
import pytest
import tolerances
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_dtypes import bfloat16
from numpy.testing import assert_allclose, assert_array_equal
from torchvision.ops import ps_roi_pool as torchvision_ps_roi_pool

from ort_roialign.errors import InvalidArgumentError
from ort_roialign.reference._ps_roi_pool import ps_roi_pool, ps_roi_pool_grad

SCALES = (0.25, float(np.float32(0.1)), 1.0)
SIZES = ((1, 1), (2, 3), (7, 2))
OPERATORS = [("PsRoiPool", ps_roi_pool, False), ("PsRoiPoolGrad", ps_roi_pool_grad, True)]


def random_case(seed, size, dtype=np.float64, spatial_scale=0.25, num_rois=8):
    """Maps of two images for two output channels, and boxes: some outside, some mirrored."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((2, 2 * size[0] * size[1], 9, 11)).astype(dtype)
    rois = (rng.uniform(-4, 13, (num_rois, 4)) / spatial_scale).astype(dtype)
    return x, rois, rng.integers(0, 2, num_rois)


def with_torchvision(x, rois, batch_indices, size, scale):
    boxes = np.concatenate([batch_indices[:, np.newaxis].astype(rois.dtype), rois], axis=1)
    y = torchvision_ps_roi_pool(torch.from_numpy(x), torch.from_numpy(boxes), size, scale)
    return y.numpy()


def attributes_of(size, spatial_scale=1.0):
    return {"output_height": size[0], "output_width": size[1], "spatial_scale": spatial_scale}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("spatial_scale", SCALES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_equals_torchvision(dtype, spatial_scale, size):
    x, rois, batch_indices = random_case(sum(size), size, dtype, spatial_scale)
    ours = ps_roi_pool(x, rois, batch_indices, **attributes_of(size, spatial_scale))
    theirs = with_torchvision(x, rois, batch_indices, size, spatial_scale)
    assert ours.dtype == np.float64
    assert np.abs(ours).max() > 0.1
    assert_allclose(ours, theirs, *tolerances.KERNEL[dtype])


@pytest.mark.parametrize("spatial_scale", SCALES)
def test_rounding_equals_torchvision_at_halves(spatial_scale):
    # Edges of the scaled boxes are at halves of cells, where roundings differ.
    x, _, batch_indices = random_case(5, (2, 3), num_rois=30)
    halves = np.random.default_rng(6).integers(-6, 26, (30, 4)) / 2
    rois = halves / spatial_scale
    assert_array_equal(rois * spatial_scale, halves)
    ours = ps_roi_pool(x, rois, batch_indices, **attributes_of((2, 3), spatial_scale))
    theirs = with_torchvision(x, rois, batch_indices, (2, 3), spatial_scale)
    assert_allclose(ours, theirs, *tolerances.KERNEL["float64"])


@pytest.mark.parametrize("size", SIZES)
def test_gradient_equals_finite_differences(size):
    x, rois, batch_indices = random_case(10, size)
    dy = np.random.default_rng(11).standard_normal((8, 2, *size))
    attributes = attributes_of(size, 0.25)
    # The operator is linear in x, so the step may be large, and one cell of each channel at once:
    # a channel's outputs are its own.
    step = 2.0**-14
    expected = np.zeros_like(x)
    position = np.arange(x.shape[1])
    channel, ph, pw = np.unravel_index(position, (2, *size))
    for image, row, column in np.ndindex(x.shape[0], *x.shape[2:]):
        nudge = np.zeros_like(x)
        nudge[image, :, row, column] = step
        above = ps_roi_pool(x + nudge, rois, batch_indices, **attributes)
        below = ps_roi_pool(x - nudge, rois, batch_indices, **attributes)
        slopes = (dy * (above - below)).sum(axis=0) / (2 * step)
        expected[image, :, row, column] = slopes[channel, ph, pw]
    ours = ps_roi_pool_grad(dy, x, rois, batch_indices, **attributes)
    assert np.abs(ours).max() > 0.1
    assert_allclose(ours, expected, *tolerances.GRADIENT["float64"])


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(*[st.floats(-30, 60)] * 4), st.integers(1, 4), st.integers(1, 4), st.integers(0, 99)
)
def test_gradient_is_the_transpose(box, output_height, output_width, seed):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((1, 2 * output_height * output_width, 6, 7))
    attributes = attributes_of((output_height, output_width), 0.25)
    y = ps_roi_pool(x, [box], [0], **attributes)
    dy = rng.standard_normal(y.shape)
    dx = ps_roi_pool_grad(dy, x, [box], [0], **attributes)
    assert_allclose((dy * y).sum(), (dx * x).sum(), *tolerances.GRADIENT["float64"])


@pytest.mark.parametrize(
    ("begin_image", "end_image", "cells"),
    [
        (2.5, 4.5, [3, 4]),  # halves go up here, not to even; the end does not belong
        (0.5, 1.5, [1]),
        (-1.5, 1.0, [0]),
        (2.0, 2.0, [2]),  # at least one cell
        (4.0, 1.0, [4]),
        (-0.5, 0.25, []),  # that one cell is number -1
        (6.0, 9.0, [6]),  # bins end before the last cell, number 7
        (7.0, 9.0, []),
        (-9.0, 99.0, [0, 1, 2, 3, 4, 5, 6]),
    ],
)
def test_rounding_and_the_ends(begin_image, end_image, cells):
    for chosen in range(8):
        # Two lanes, as of one nothing would be read.
        lanes = np.zeros((2, 8))
        lanes[:, chosen] = 1
        expected = 1 / len(cells) if chosen in cells else 0
        across = ps_roi_pool(lanes.reshape(1, 1, 2, 8), [[begin_image, 0, end_image, 1]], [0])
        down = ps_roi_pool(lanes.T.reshape(1, 1, 8, 2), [[0, begin_image, 1, end_image]], [0])
        assert across.item() == down.item() == expected


def test_bins_share_cells_of_their_own_channels():
    # Three cells in two bins: 1.5 cells each, rounded outwards, so both have the middle cell. The
    # last row and column are not read.
    rows = [[[1, 3, 2, 9], [9, 9, 9, 9]], [[10, 30, 20, 9], [9, 9, 9, 9]]]
    x = np.array([rows], np.float64)
    box, attributes = [[0, 0, 3, 1]], {"output_width": 2}
    assert_array_equal(ps_roi_pool(x, box, [0], **attributes), [[[[2, 25]]]])
    dx = ps_roi_pool_grad([[[[10, 6]]]], x, box, [0], **attributes)
    assert_array_equal(dx[0, :, 0], [[5, 5, 0, 0], [0, 3, 3, 0]])
    assert_array_equal(dx[0, :, 1], np.zeros((2, 4)))


def test_each_bin_reads_the_channel_of_its_position():
    # Channel number k holds the constant k, so a bin tells which one it read.
    numbers = np.arange(3.0 * 2 * 5)
    x = np.broadcast_to(numbers[:, np.newaxis, np.newaxis], (1, 30, 7, 7))
    y = ps_roi_pool(x, [[1, 1, 6, 4]], [0], **attributes_of((2, 5)))
    assert_array_equal(y, numbers.reshape(1, 3, 2, 5))
    dy = np.zeros_like(y)
    dy[0, 1, 1, 3] = 1
    dx = ps_roi_pool_grad(dy, x, [[1, 1, 6, 4]], [0], **attributes_of((2, 5)))
    assert_array_equal(np.flatnonzero(dx.sum(axis=(0, 2, 3))), [(1 * 2 + 1) * 5 + 3])


def test_boxes_outside_and_empty_bins():
    x = np.ones((1, 2, 4, 4))
    rois, attributes = [[1, 1, 5, 2], [50, 0, 60, 3], [-9, 0, -1, 3]], {"output_width": 2}
    y = ps_roi_pool(x, rois, [0, 0, 0], **attributes)
    # The first box's bins are cells 1 and 2, and 3 and 4, which are not read.
    assert_array_equal(y[:, 0, 0], [[1, 0], [0, 0], [0, 0]])
    dx = ps_roi_pool_grad(np.ones_like(y), x, rois, [0, 0, 0], **attributes)
    assert_array_equal(dx[0, 0, 1], [0, 0.5, 0.5, 0])
    assert dx.sum() == 1


def test_map_of_one_cell_is_never_read():
    x = np.ones((1, 1, 1, 1))
    box = np.array([[0.0, 0.0, 1.0, 1.0]])
    assert ps_roi_pool(x, box, [0]).item() == 0
    assert with_torchvision(x, box, np.array([0]), (1, 1), 1.0).item() == 0


@pytest.mark.parametrize("num_images", [0, 2])
def test_no_regions(num_images):
    x = np.ones((num_images, 12, 4, 5))
    y = ps_roi_pool(x, np.zeros((0, 4)), [], **attributes_of((2, 3)))
    assert y.shape == (0, 2, 2, 3)
    dx = ps_roi_pool_grad(y, x, np.zeros((0, 4)), [], **attributes_of((2, 3)))
    assert_array_equal(dx, 0 * x)


def test_maps_without_channels():
    x = np.zeros((1, 0, 4, 5))
    y = ps_roi_pool(x, [[0, 0, 2, 2]], [0], **attributes_of((2, 3)))
    assert y.shape == (1, 0, 2, 3)
    assert ps_roi_pool_grad(y, x, [[0, 0, 2, 2]], [0], **attributes_of((2, 3))).shape == x.shape


@pytest.mark.parametrize("real", [np.float32, np.float64])
@pytest.mark.parametrize("half_image", [1e9, 1e15, 1e30])
def test_huge_boxes(half_image, real):
    x = np.random.default_rng(40).standard_normal((1, 9, 5, 6)).astype(real)
    box = np.array([[-half_image, -half_image, half_image, half_image]], real)
    attributes = attributes_of((3, 3), spatial_scale=2.0)
    y = ps_roi_pool(x, box, [0], **attributes)
    # Only the middle bin reaches the map, and has all but the last row and column.
    expected = np.zeros((1, 1, 3, 3))
    expected[0, 0, 1, 1] = x[0, 4, :-1, :-1].astype(np.float64).mean()
    assert_allclose(y, expected, *tolerances.KERNEL["float64"])
    dx = ps_roi_pool_grad(np.ones_like(y), x, box, [0], **attributes)
    assert np.count_nonzero(dx) == 4 * 5


def test_not_a_number_and_infinity_reach_the_bins_that_have_them():
    x, _, _ = random_case(50, (1, 2))
    x[0, 3, 2, 4] = np.nan  # output channel 1, bin 1
    x[0, 0, 0, 1] = np.inf  # output channel 0, bin 0
    x[0, :, -1, :] = np.nan  # not read
    box = [[0, 0, 8, 9]]
    y = ps_roi_pool(x, box, [0], output_width=2)
    assert y[0, 0, 0, 0] == np.inf
    assert_array_equal(np.argwhere(np.isnan(y)), [[0, 1, 0, 1]])
    x[0, 0, 1, 1] = -np.inf
    assert np.isnan(ps_roi_pool(x, box, [0], output_width=2)[0, 0, 0, 0])

    dx = ps_roi_pool_grad([[[[0, 0]], [[0, np.nan]]]], x, box, [0], output_width=2)
    assert_array_equal(np.unique(np.argwhere(np.isnan(dx))[:, 1]), [3])


@pytest.mark.parametrize(
    ("dtype", "first_cell"),
    [("float32", 11), ("float16", 11), (bfloat16, 11), ("float64", 10)],
)
def test_type_of_the_coordinates(dtype, first_cell):
    # The scale 0.7 is the float32 0.699999988..., times 15 is 10.5 in float32, 10.49999982 in
    # float64.
    x = np.zeros((1, 1, 2, 20))
    x[..., first_cell] = 1
    x = x.astype(dtype)
    rois = np.array([[15, 0, 15, 0]], np.float32)
    assert ps_roi_pool(x, rois, [0], spatial_scale=0.7).item() == 1


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
        ps_roi_pool_grad(np.ones((1, 12, 2, 3)), x, [[0, 0, 4, 4]], [0], **attributes_of((2, 3)))
    assert str(raised.value) == (
        "PsRoiPoolGrad: dY must have shape [num_rois, channels, output_height, output_width]"
        " = [1, 2, 2, 3]; got [1, 12, 2, 3]"
    )
