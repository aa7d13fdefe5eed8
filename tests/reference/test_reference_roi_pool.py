"""`reference.roi_pool` and its gradient against torchvision, numbers by hand and edge cases."""

from __future__ import annotations

import numpy as np
import pytest
import tolerances
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_dtypes import bfloat16
from numpy.testing import assert_allclose, assert_array_equal
from torchvision.ops import roi_pool as torchvision_roi_pool

from ort_roialign.reference import roi_pool, roi_pool_grad

SCALES = (0.25, float(np.float32(0.1)), 1.0)


def random_case(seed, dtype=np.float64, spatial_scale=0.25, num_rois=8):
    """Maps of two images, and boxes of which some reach outside and some are mirrored."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((2, 3, 9, 11)).astype(dtype)
    rois = (rng.uniform(-4, 13, (num_rois, 4)) / spatial_scale).astype(dtype)
    return x, rois, rng.integers(0, 2, num_rois)


def with_torchvision(x, rois, batch_indices, size, scale):
    boxes = np.concatenate([batch_indices[:, np.newaxis].astype(rois.dtype), rois], axis=1)
    return torchvision_roi_pool(x, torch.from_numpy(boxes), size, scale)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("spatial_scale", SCALES)
@pytest.mark.parametrize("size", [(1, 1), (3, 4), (7, 7)])
def test_equals_torchvision(dtype, spatial_scale, size):
    x, rois, batch_indices = random_case(sum(size), dtype, spatial_scale)
    attributes = {"output_height": size[0], "output_width": size[1], "spatial_scale": spatial_scale}
    y, argmax = roi_pool(x, rois, batch_indices, **attributes)
    theirs = with_torchvision(torch.from_numpy(x), rois, batch_indices, size, spatial_scale)
    assert y.dtype == np.float64
    assert argmax.dtype == np.int64
    # The maximum of cells is a cell: nothing is rounded.
    assert_array_equal(y, theirs.numpy())
    assert (argmax >= 0).any()


@pytest.mark.parametrize("spatial_scale", SCALES)
def test_argmax_is_the_cell_of_the_maximum(spatial_scale):
    x, rois, batch_indices = random_case(20, spatial_scale=spatial_scale)
    y, argmax = roi_pool(
        x, rois, batch_indices, output_height=4, output_width=3, spatial_scale=spatial_scale
    )
    assert (argmax == -1).any()
    for roi, channel, ph, pw in np.ndindex(y.shape):
        cell = argmax[roi, channel, ph, pw]
        plane = x[batch_indices[roi], channel].ravel()
        assert y[roi, channel, ph, pw] == (plane[cell] if cell >= 0 else 0)


@pytest.mark.parametrize("spatial_scale", SCALES)
def test_gradient_equals_torchvision_autograd(spatial_scale):
    x, rois, batch_indices = random_case(30, spatial_scale=spatial_scale)
    dy = np.random.default_rng(31).standard_normal((len(rois), 3, 3, 4))
    x_torch = torch.from_numpy(x).requires_grad_()
    y = with_torchvision(x_torch, rois, batch_indices, (3, 4), spatial_scale)
    y.backward(torch.from_numpy(dy))
    ours = roi_pool_grad(
        dy,
        x,
        rois,
        batch_indices,
        output_height=3,
        output_width=4,
        spatial_scale=spatial_scale,
    )
    assert np.abs(ours).max() > 0.1
    assert_allclose(ours, x_torch.grad.numpy(), *tolerances.GRADIENT["float64"])


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(*[st.floats(-30, 60)] * 4), st.integers(1, 5), st.integers(1, 5), st.integers(0, 99)
)
def test_gradient_is_the_transpose(box, output_height, output_width, seed):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((1, 2, 6, 7))
    attributes = {
        "output_height": output_height,
        "output_width": output_width,
        "spatial_scale": 0.25,
    }
    y, _ = roi_pool(x, [box], [0], **attributes)
    dy = rng.standard_normal(y.shape)
    dx = roi_pool_grad(dy, x, [box], [0], **attributes)
    assert_allclose((dy * y).sum(), (dx * x).sum(), *tolerances.GRADIENT["float64"])


def test_two_by_two_map_derived_by_hand():
    # The box covers cells 0 and 1 of both axes, so a bin is one cell.
    x = np.array([[[[1.0, 2.0], [3.0, 4.0]]]])
    y, argmax = roi_pool(x, [[0, 0, 1, 1]], [0], output_height=2, output_width=2)
    assert_array_equal(y, x)
    assert_array_equal(argmax, [[[[0, 1], [2, 3]]]])


@pytest.mark.parametrize(
    ("begin_image", "end_image", "first_cell", "last_cell"),
    [
        (2.5, 4.5, 3, 5),  # halves go up here, not to even
        (0.5, 1.5, 1, 2),
        (-0.5, 0.49999999999999994, 0, 0),  # to -1 and to 0; adding 0.5 would make the latter 1
        (2.0, 2.0, 2, 2),  # at least one cell
        (4.0, 1.0, 4, 4),
        (-9.0, 99.0, 0, 7),
    ],
)
def test_rounding_and_the_inclusive_end(begin_image, end_image, first_cell, last_cell):
    for largest in range(8):
        row = np.zeros(8)
        row[largest] = 1
        expected = first_cell <= largest <= last_cell
        across, _ = roi_pool(row.reshape(1, 1, 1, 8), [[begin_image, 0, end_image, 0]], [0])
        down, _ = roi_pool(row.reshape(1, 1, 8, 1), [[0, begin_image, 0, end_image]], [0])
        assert across.item() == down.item() == expected


def test_bins_share_cells():
    # Three cells in two bins: 1.5 cells each, rounded outwards, so both have the middle cell.
    x = np.array([[[[1.0, 3.0, 2.0]]]])
    y, argmax = roi_pool(x, [[0, 0, 2, 0]], [0], output_width=2)
    assert_array_equal(y, [[[[3, 3]]]])
    assert_array_equal(argmax, [[[[1, 1]]]])
    dx = roi_pool_grad([[[[10, 5]]]], x, [[0, 0, 2, 0]], [0], output_width=2)
    assert_array_equal(dx, [[[[0, 15, 0]]]])


def test_empty_bins_and_boxes_outside():
    x = -np.ones((1, 1, 4, 4))
    y, argmax = roi_pool(x, [[2, 1, 9, 2], [50, 0, 60, 3]], [0, 0], output_width=2)
    assert_array_equal(y[:, 0, 0], [[-1, 0], [0, 0]])
    assert_array_equal(argmax[:, 0, 0], [[6, -1], [-1, -1]])
    dx = roi_pool_grad(np.ones_like(y), x, [[2, 1, 9, 2], [50, 0, 60, 3]], [0, 0], output_width=2)
    assert dx[0, 0, 1, 2] == dx.sum() == 1


@pytest.mark.parametrize("num_images", [0, 2])
def test_no_regions(num_images):
    x = np.ones((num_images, 3, 4, 5))
    y, argmax = roi_pool(x, np.zeros((0, 4)), [], output_height=2)
    assert y.shape == argmax.shape == (0, 3, 2, 1)
    assert_array_equal(roi_pool_grad(y, x, np.zeros((0, 4)), [], output_height=2), 0 * x)


def test_first_of_equals_and_first_not_a_number_win():
    x = np.zeros((1, 1, 4, 4))
    x[0, 0, 1, 2] = x[0, 0, 2, 1] = x[0, 0, 3, 3] = 5
    assert roi_pool(x, [[0, 0, 3, 3]], [0])[1].item() == 1 * 4 + 2
    x[0, 0, 2, 3] = x[0, 0, 3, 0] = np.nan
    y, argmax = roi_pool(x, [[0, 0, 3, 3]], [0])
    assert np.isnan(y.item())
    assert argmax.item() == 2 * 4 + 3


def test_minus_infinity_has_a_winner():
    x = np.full((1, 1, 2, 2), -np.inf)
    y, argmax = roi_pool(x, [[0, 1, 1, 1]], [0])
    assert y.item() == -np.inf
    assert argmax.item() == 2


@pytest.mark.parametrize("real", [np.float32, np.float64])
@pytest.mark.parametrize("half_image", [1e9, 1e15, 1e30])
def test_huge_boxes(half_image, real):
    x = np.random.default_rng(40).standard_normal((1, 1, 5, 6)).astype(real)
    box = np.array([[-half_image, -half_image, half_image, half_image]], real)
    y, argmax = roi_pool(x, box, [0], output_height=3, output_width=3, spatial_scale=2.0)
    assert y[0, 0, 1, 1] == x.max()
    assert argmax[0, 0, 1, 1] == x.argmax()
    assert np.count_nonzero(argmax >= 0) == 1


@pytest.mark.parametrize(
    ("dtype", "first_cell"),
    [("float32", 11), ("float16", 11), (bfloat16, 11), ("float64", 10)],
)
def test_type_of_the_coordinates(dtype, first_cell):
    # The scale 0.7 is the float32 0.699999988..., times 15 is 10.5 in float32, 10.49999982 in
    # float64.
    x = np.zeros((1, 1, 1, 20))
    x[..., first_cell] = 1
    x = x.astype(dtype)
    rois = np.array([[15, 0, 15, 0]], np.float32)
    y, argmax = roi_pool(x, rois, [0], spatial_scale=0.7)
    assert y.item() == 1
    assert argmax.item() == first_cell
