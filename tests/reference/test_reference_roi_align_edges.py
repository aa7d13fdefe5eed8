"""`reference.roi_align` and its gradient in the cases where implementations tend to differ."""

from __future__ import annotations

import numpy as np
import pytest
import tolerances
import torch
from ml_dtypes import bfloat16
from numpy.testing import assert_allclose, assert_array_equal
from plain_loop_roi_align import plain_loop
from torchvision.ops import roi_align as torchvision_roi_align

from ort_roialign.reference import roi_align, roi_align_grad

MODES = ("avg", "max")


def random_map(seed, shape=(1, 2, 6, 7)):
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("num_images", [0, 2])
def test_no_regions(mode, num_images):
    x = random_map(0, (num_images, 3, 4, 5))
    empty_boxes, empty_indices = np.zeros((0, 4)), np.zeros(0, np.int64)
    attributes = {"mode": mode, "output_height": 2, "output_width": 3}
    y = roi_align(x, empty_boxes, empty_indices, **attributes)
    assert y.shape == (0, 3, 2, 3)
    dx = roi_align_grad(y, x, empty_boxes, empty_indices, **attributes)
    assert_array_equal(dx, np.zeros_like(x))


@pytest.mark.parametrize("mode", MODES)
def test_maps_without_channels_and_without_cells(mode):
    y = roi_align(np.zeros((1, 0, 4, 5)), [[0, 0, 2, 2]], [0], mode=mode, output_width=3)
    assert y.shape == (1, 0, 1, 3)
    assert roi_align(np.zeros((1, 2, 0, 5)), np.zeros((0, 4)), [], mode=mode).shape == (0, 2, 1, 1)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "box", [[2, 1, 2, 4], [1, 2, 4, 2], [4, 1, 2, 3], [1, 3, 3, 2], [4, 3, 1, 1]]
)
def test_adaptive_grid_of_a_box_without_area_is_empty(mode, box):
    x = random_map(1)
    attributes = {"mode": mode, "output_height": 2, "output_width": 2}
    y = roi_align(x, [box], [0], **attributes)
    assert_array_equal(y, np.zeros((1, 2, 2, 2)))
    assert_array_equal(roi_align_grad(np.ones_like(y), x, [box], [0], **attributes), 0 * x)


@pytest.mark.parametrize("mode", MODES)
def test_output_half_pixel_makes_a_mirrored_box_one_cell_large(mode):
    x = random_map(2)
    attributes = {"mode": mode, "coordinate_transformation_mode": "output_half_pixel"}
    y = roi_align(x, [[4, 3, 1, 1]], [0], **attributes)
    assert_array_equal(y, roi_align(x, [[4, 3, 5, 4]], [0], **attributes))
    assert (y != 0).all()


def test_samples_outside_count_as_zero():
    # Four samples per axis at -1.5, -0.5, 0.5, 1.5 of a map of ones: the first is outside.
    x = np.ones((1, 1, 5, 5))
    box, attributes = [[-1.5, -1.5, 2.5, 2.5]], {"sampling_ratio": 4}
    assert_allclose(
        roi_align(x, box, [0], **attributes), [[[[9 / 16]]]], *tolerances.KERNEL["float64"]
    )
    assert_array_equal(roi_align(-x, box, [0], mode="max", **attributes), [[[[0.0]]]])


@pytest.mark.parametrize(
    ("coordinate", "value"),
    # The map is 1 2 4 8; a single sample lies half a cell before the coordinate.
    [
        (-0.5, 1),  # sample at -1: still inside, clamped to the first cell
        (-0.5 - 2**-40, 0),
        (0.25, 1),  # clamped
        (1.75, 2.5),  # a quarter of the way from 2 to 4
        (3.0, 6),  # half-way from 4 to 8
        (3.5, 8),  # the last cell's centre
        (4.25, 8),  # past the last centre, still inside
        (4.5, 8),  # sample at the extent: inside
        (4.5 + 2**-40, 0),
    ],
)
@pytest.mark.parametrize("mode", MODES)
def test_borders_of_the_map(coordinate, value, mode):
    row = np.array([1.0, 2.0, 4.0, 8.0])
    box_x, box_y = [[coordinate, 0.5, coordinate, 0.5]], [[0.5, coordinate, 0.5, coordinate]]
    attributes = {"mode": mode, "sampling_ratio": 1}
    assert roi_align(row.reshape(1, 1, 1, 4), box_x, [0], **attributes) == value
    assert roi_align(row.reshape(1, 1, 4, 1), box_y, [0], **attributes) == value


@pytest.mark.parametrize(
    ("dtype", "value"),
    [("float32", 1), ("float16", 1), (bfloat16, 1), ("float64", 0)],
)
def test_type_of_the_coordinates(dtype, value):
    # The scale 0.1 is the float32 0.100000001490..., times 105 is 10.5 in float32 but 10.50000016
    # in float64: the sample is at 10, on the border of the map, or just outside it.
    x = np.ones((1, 1, 10, 10), dtype)
    rois = np.array([[105, 5, 105, 5]], np.float32)
    assert roi_align(x, rois, [0], sampling_ratio=1, spatial_scale=0.1) == value


def test_boxes_of_half_types_are_widened():
    x = random_map(3).astype(np.float16)
    rois = np.array([[0.1, 0.7, 5.3, 4.9]], np.float16)
    narrow = roi_align(x, rois, [0], output_height=2, spatial_scale=0.7)
    wide = roi_align(
        x.astype(np.float32), rois.astype(np.float32), [0], output_height=2, spatial_scale=0.7
    )
    assert_array_equal(narrow, wide)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("box", [[-150, -90, 170, 110], [-3, -200, 5, 60], [2, 1, 300, 4]])
def test_large_boxes_equal_the_sum_over_all_samples(mode, box):
    x = random_map(4)
    attributes = {
        "mode": mode,
        "output_height": 2,
        "output_width": 3,
        "sampling_ratio": 0,
        "spatial_scale": 0.25,
        "coordinate_transformation_mode": "half_pixel",
    }
    ours = roi_align(x, [box], [0], **attributes)
    assert_allclose(ours, plain_loop(x, [box], [0], **attributes), *tolerances.KERNEL["float64"])
    dy = np.random.default_rng(5).standard_normal(ours.shape)
    dx = roi_align_grad(dy, x, [box], [0], **attributes)
    assert_allclose((dy * ours).sum(), (dx * x).sum(), *tolerances.GRADIENT["float64"])


def count_inside_near_the_map(extent_cells, real):
    """Samples of the middle bin of `test_a_billion_pixels` on the map, looked at one by one."""
    samples = np.arange(500_000_000 - 5000, 500_000_000 + 5000)
    begin = real(-1.5e9) - real(0.5)
    bin_size = (real(1.5e9) - real(0.5) - begin) / real(3)
    in_bin = (samples.astype(real) + real(0.5)) * bin_size / real(1_000_000_000)
    coordinates = begin + real(1) * bin_size + in_bin
    return np.count_nonzero((coordinates >= -1) & (coordinates <= extent_cells))


@pytest.mark.parametrize(
    ("real", "in_height", "in_width"), [(np.float64, 8, 9), (np.float32, 0, 0)]
)
def test_a_billion_pixels(real, in_height, in_width):
    # Each bin has 1e9 samples per axis, one cell apart; only the middle bin reaches the map, with
    # samples at -1, 0, ... 6 down and -1, 0, ... 7 across. Float32 has steps of 32 cells there.
    if real is np.float32:
        in_height, in_width = (count_inside_near_the_map(extent, real) for extent in (6, 7))
        assert 16 <= in_height <= 64
    else:
        assert count_inside_near_the_map(6, real) == in_height
    x = np.ones((1, 1, 6, 7), real)
    box = np.array([[-1.5e9, -1.5e9, 1.5e9, 1.5e9]], real)
    attributes = {"output_height": 3, "output_width": 3}
    expected = np.zeros((1, 1, 3, 3))
    expected[0, 0, 1, 1] = 1
    y = roi_align(x, box, [0], **attributes)
    assert_allclose(y * 1e18 / (in_height * in_width), expected, *tolerances.KERNEL["float64"])

    assert_array_equal(roi_align(x, box, [0], mode="max", **attributes), expected)
    assert_array_equal(roi_align(-x, box, [0], mode="max", **attributes), 0 * expected)
    dx = roi_align_grad(expected, x, box, [0], mode="max", **attributes)
    assert_allclose(dx.sum(), 1, *tolerances.GRADIENT["float64"])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("half", [1e12, 1e30, 3e38])
def test_boxes_that_overflow_stay_finite(mode, half):
    x = random_map(6).astype(np.float32)
    box = np.array([[-half, -half, half, half]], np.float32)
    y = roi_align(x, box, [0], mode=mode, output_height=3, output_width=3, spatial_scale=2.0)
    assert np.isfinite(y).all()
    assert np.abs(y).max() <= np.abs(x).max()


def box_of_one_sample(coordinate_y, coordinate_x):
    """A box whose only sample, with sampling_ratio 1, is at the given coordinates of the map."""
    return [coordinate_x + 0.5, coordinate_y + 0.5, coordinate_x + 0.5, coordinate_y + 0.5]


def one_sample(x, coordinate_y, coordinate_x, mode):
    box = box_of_one_sample(coordinate_y, coordinate_x)
    return roi_align(x, [box], [0], mode=mode, sampling_ratio=1).item()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("coordinate_y", "coordinate_x", "is_nan"),
    [
        (1.5, 1.5, True),
        # The upper neighbours have the weight 0, and 0 * NaN is NaN.
        (1.0, 1.0, True),
        (2.0, 2.0, True),
        (2.0, 3.0, False),
        (3.0, 2.0, False),
        (0.999, 1.0, False),
    ],
)
def test_not_a_number_reaches_the_samples_that_touch_it(coordinate_y, coordinate_x, is_nan, mode):
    x = random_map(7, (1, 1, 5, 5))
    x[0, 0, 2, 2] = np.nan
    assert np.isnan(one_sample(x, coordinate_y, coordinate_x, mode)) == is_nan
    box = torch.tensor([[0, *box_of_one_sample(coordinate_y, coordinate_x)]], dtype=torch.float64)
    theirs = torchvision_roi_align(torch.from_numpy(x), box, 1, 1.0, 1, True)
    assert np.isnan(theirs.item()) == is_nan


@pytest.mark.parametrize("mode", MODES)
def test_not_a_number_does_not_reach_samples_outside_the_map(mode):
    x = random_map(8, (1, 1, 5, 5))
    x[0, 0, 0, 0] = np.nan
    assert one_sample(x, -1.5, 2.0, mode) == 0
    # Six samples per axis, one cell apart, three outside; the others touch rows 2 to 4 only.
    y = roi_align(x, [[3, 3, 9, 9]], [0], mode=mode)
    assert np.isfinite(y).all()


def test_not_a_number_wins_the_maximum_wherever_it_is():
    for row, column in np.ndindex(4, 4):
        x = random_map(9, (1, 1, 4, 4))
        x[0, 0, row, column] = np.nan
        assert np.isnan(roi_align(x, [[0, 0, 4, 4]], [0], mode="max"))
        assert np.isnan(roi_align(x, [[-9, -9, 9, 9]], [0], mode="max"))


@pytest.mark.parametrize("mode", MODES)
def test_infinity_is_carried_as_arithmetic_says(mode):
    x = random_map(10, (1, 1, 5, 5))
    x[0, 0, 2, 2] = np.inf
    assert one_sample(x, 1.5, 1.5, mode) == np.inf
    assert np.isnan(one_sample(x, 1.0, 1.5, mode))  # 0 * infinity
    x = random_map(11, (1, 1, 5, 5))
    x[0, 0, 4, 4] = -np.inf
    # Past the last centre both neighbours are the last cell, with the weights 1 and 0. The average
    # adds up a cell's weights first; a sample's own value multiplies each, as torchvision does.
    expected = {"avg": -np.inf, "max": np.nan}[mode]
    assert_array_equal(one_sample(x, 4.5, 4.5, mode), expected)


def gradient_of_maximum(x, box, **attributes):
    return roi_align_grad(np.ones((1, 1, 1, 1)), x, [box], [0], mode="max", **attributes)[0, 0]


def test_first_of_equal_samples_takes_the_gradient():
    # Samples at 0, 1, 2, 3 on both axes, each on a cell of its own.
    x = np.zeros((1, 1, 4, 4))
    x[0, 0, 1, 2] = x[0, 0, 2, 1] = x[0, 0, 3, 3] = 5
    expected = np.zeros((4, 4))
    expected[1, 2] = 1
    assert_array_equal(gradient_of_maximum(x, [0, 0, 4, 4]), expected)
    # In the mirrored box the sample order is reversed, not the map.
    expected = np.zeros((4, 4))
    expected[3, 3] = 1
    assert_array_equal(gradient_of_maximum(x, [4, 4, 0, 0], sampling_ratio=4), expected)


def test_first_not_a_number_takes_the_gradient():
    x = random_map(12, (1, 1, 4, 4))
    x[0, 0, 1, 2] = x[0, 0, 2, 1] = np.nan
    dx = gradient_of_maximum(x, [0, 0, 4, 4])
    # The first sample that touches a NaN is the one at cell (0, 1), whose neighbour is (1, 2).
    expected = np.zeros((4, 4))
    expected[0, 1] = 1
    assert_array_equal(dx, expected)


@pytest.mark.parametrize(
    ("box", "winner"),
    # The map is 0 in cell (1, 3), where it is largest, and so are the samples outside. Samples are
    # one cell apart from the box's first coordinate on; -1 and 4 are still on the map.
    [
        ([0, 0, 5, 5], (1, 3)),  # no sample outside
        ([1, 1, 6, 6], (1, 3)),  # in the first row, the cell is before the outside
        ([1, 0, 6, 5], None),  # the outside is met at the end of the row above
        ([0, 1, 5, 6], (1, 3)),  # only the last row is outside
        ([-2, 1, 5, 6], None),  # the first column is outside
        ([0, -2, 5, 4], None),  # the first row is outside
    ],
)
def test_tie_with_the_samples_outside(box, winner):
    x = np.full((1, 1, 4, 4), -1.0)
    x[0, 0, 1, 3] = 0
    expected = np.zeros((4, 4))
    if winner:
        expected[winner] = 1
    assert roi_align(x, [box], [0], mode="max") == 0
    assert_array_equal(gradient_of_maximum(x, box), expected)


def test_mirrored_box_beyond_the_map_equals_the_plain_loop():
    x = random_map(13)
    attributes = {
        "output_height": 2,
        "output_width": 3,
        "sampling_ratio": 5,
        "spatial_scale": 1.0,
        "coordinate_transformation_mode": "half_pixel",
    }
    for mode in MODES:
        for box in ([12.0, -7.0, -4.0, 3.0], [3.0, 15.0, 9.0, -2.0], [9.0, 9.0, -5.0, -5.0]):
            ours = roi_align(x, [box], [0], mode=mode, **attributes)
            expected = plain_loop(x, [box], [0], mode=mode, **attributes)
            assert_allclose(ours, expected, *tolerances.KERNEL["float64"])
