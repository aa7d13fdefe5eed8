"""`reference.roi_align_rotated` and its gradient where implementations tend to differ."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tolerances
from numpy.testing import assert_allclose, assert_array_equal
from test_reference_roi_align_rotated import plain_loop, upright

from ort_roialign.reference import _roi_align_rotated
from ort_roialign.reference._roi_align import roi_align
from ort_roialign.reference._roi_align_rotated import roi_align_rotated, roi_align_rotated_grad

MODES = ("avg", "max")
FLOAT64 = tolerances.KERNEL["float64"]


def random_map(seed, shape=(1, 2, 6, 7)):
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("num_images", [0, 2])
def test_no_regions(mode, num_images):
    x = random_map(0, (num_images, 3, 4, 5))
    empty_boxes, empty_indices = np.zeros((0, 5)), np.zeros(0, np.int64)
    attributes = {"mode": mode, "output_height": 2, "output_width": 3}
    y = roi_align_rotated(x, empty_boxes, empty_indices, **attributes)
    assert y.shape == (0, 3, 2, 3)
    dx = roi_align_rotated_grad(y, x, empty_boxes, empty_indices, **attributes)
    assert_array_equal(dx, np.zeros_like(x))


@pytest.mark.parametrize("mode", MODES)
def test_maps_without_channels_and_without_cells(mode):
    box, attributes = [[1, 1, 2, 2, 0.5]], {"mode": mode, "output_width": 3}
    x = np.zeros((1, 0, 4, 5))
    y = roi_align_rotated(x, box, [0], **attributes)
    assert y.shape == (1, 0, 1, 3)
    assert roi_align_rotated_grad(y, x, box, [0], **attributes).shape == x.shape
    x = np.zeros((1, 2, 0, 5))
    assert roi_align_rotated(x, np.zeros((0, 5)), [], **attributes).shape == (0, 2, 1, 3)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("sides", [[0, 3], [3, 0], [-2, 3], [3, -2], [-2, -3]])
def test_adaptive_grid_of_a_box_without_area_is_empty(mode, sides):
    x, box = random_map(1), [[3, 3, *sides, 0.5]]
    attributes = {"mode": mode, "output_height": 2, "output_width": 2}
    y = roi_align_rotated(x, box, [0], **attributes)
    assert_array_equal(y, np.zeros((1, 2, 2, 2)))
    dx = roi_align_rotated_grad(np.ones_like(y), x, box, [0], **attributes)
    assert_array_equal(dx, 0 * x)


@pytest.mark.parametrize("mode", MODES)
def test_mirrored_box_gives_the_mirrored_crop(mode):
    x = random_map(2)
    attributes = {"mode": mode, "output_height": 2, "output_width": 3, "sampling_ratio": 2}
    crop = roi_align_rotated(x, [[3.2, 2.9, 4, 3, 0.7]], [0], **attributes)
    in_x = roi_align_rotated(x, [[3.2, 2.9, -4, 3, 0.7]], [0], **attributes)
    in_y = roi_align_rotated(x, [[3.2, 2.9, 4, -3, 0.7]], [0], **attributes)
    assert_allclose(in_x, crop[..., ::-1], *FLOAT64)
    assert_allclose(in_y, crop[..., ::-1, :], *FLOAT64)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("sides", [[-4, -3], [0, 0], [0.5, 0.25]])
def test_output_half_pixel_makes_a_box_one_cell_large(mode, sides):
    x = random_map(3)
    attributes = {"mode": mode, "coordinate_transformation_mode": "output_half_pixel"}
    y = roi_align_rotated(x, [[3, 2, *sides, 0.7]], [0], **attributes)
    assert_array_equal(y, roi_align_rotated(x, [[3, 2, 1, 1, 0.7]], [0], **attributes))
    assert (y != 0).all()


@pytest.mark.parametrize("mode", MODES)
def test_boxes_off_the_map_are_zero(mode):
    x = random_map(4)
    # The second box reaches over the map's corner, but not with its samples.
    boxes, indices = [[30, 3, 9, 9, 0.7], [-3, -3, 8, 1, math.pi / 4]], [0, 0]
    attributes = {"mode": mode, "output_height": 2, "output_width": 3}
    y = roi_align_rotated(x, boxes, indices, **attributes)
    assert_array_equal(y, np.zeros((2, 2, 2, 3)))
    dx = roi_align_rotated_grad(np.ones_like(y), x, boxes, indices, **attributes)
    assert_array_equal(dx, 0 * x)


@pytest.mark.parametrize(
    ("coordinate", "value"),
    # The map is 1 2 4 8; a single sample lies half a cell before the coordinate.
    [
        (-0.5, 1),
        (-0.5 - 2**-40, 0),
        (1.75, 2.5),
        (3.5, 8),
        (4.5, 8),
        (4.5 + 2**-40, 0),
    ],
)
@pytest.mark.parametrize("mode", MODES)
def test_borders_of_the_map(coordinate, value, mode):
    row = np.array([1.0, 2.0, 4.0, 8.0])
    attributes = {"mode": mode, "sampling_ratio": 1}
    boxes_x, boxes_y = [[coordinate, 0.5, 3, 3, 0.7]], [[0.5, coordinate, 3, 3, 0.7]]
    assert roi_align_rotated(row.reshape(1, 1, 1, 4), boxes_x, [0], **attributes) == value
    assert roi_align_rotated(row.reshape(1, 1, 4, 1), boxes_y, [0], **attributes) == value


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "box", [[10, 10, 320, 200, 0.7], [-40, 30, 150, 90, 2], [3, 2, 4, 300, -0.3]]
)
def test_large_boxes_equal_the_sum_over_all_samples(mode, box):
    x = random_map(5)
    attributes = {
        "mode": mode,
        "output_height": 2,
        "output_width": 3,
        "sampling_ratio": 0,
        "spatial_scale": 0.25,
        "coordinate_transformation_mode": "half_pixel",
    }
    ours = roi_align_rotated(x, [box], [0], **attributes)
    assert_allclose(ours, plain_loop(x, [box], [0], **attributes), *FLOAT64)
    dy = np.random.default_rng(6).standard_normal(ours.shape)
    dx = roi_align_rotated_grad(dy, x, [box], [0], **attributes)
    assert_allclose((dy * ours).sum(), (dx * x).sum(), *tolerances.GRADIENT["float64"])


@pytest.mark.parametrize("real", [np.float32, np.float64])
@pytest.mark.parametrize("angle", [0, 0.7, math.pi / 2])
def test_a_billion_pixels(real, angle, monkeypatch):
    # A bin of 1e9 by 1e9 cells has as many samples, a cell apart. Those near the map's middle are
    # looked at one by one: only they can be on the map.
    centre, extents = (3.25, 2.75), (6, 7)
    near = np.arange(500_000_000 - 4000, 500_000_000 + 4000)
    own = real(-5e8) + (near.astype(real) + real(0.5)) * real(1e9) / real(1_000_000_000)
    own = own[np.abs(own) < 1000]
    sine, cosine = real(math.sin(real(angle))), real(math.cos(real(angle)))
    along_y, along_x = own[:, np.newaxis], own
    y = along_y * cosine - along_x * sine + real(centre[1] - 0.5)
    x = along_y * sine + along_x * cosine + real(centre[0] - 0.5)
    inside = (y >= -1) & (y <= extents[0]) & (x >= -1) & (x <= extents[1])
    assert 16 < np.count_nonzero(inside) < inside.size

    evaluated = []
    listed = _roi_align_rotated._RotatedGrid.coordinates

    def counted(grid, bin_y, *places):
        evaluated.append(len(bin_y))
        return listed(grid, bin_y, *places)

    monkeypatch.setattr(_roi_align_rotated._RotatedGrid, "coordinates", counted)
    box, ones = np.array([[*centre, 1e9, 1e9, angle]], real), np.ones((1, 1, *extents), real)
    average = roi_align_rotated(ones, box, [0])
    assert_allclose(average * 1e18, np.count_nonzero(inside), *FLOAT64)
    # Float32 has steps of 32 cells there, so that some samples share a coordinate.
    assert sum(evaluated) < 100 * (np.count_nonzero(inside) + 200)
    assert roi_align_rotated(ones, box, [0], mode="max") == 1
    assert roi_align_rotated(-ones, box, [0], mode="max") == 0
    dx = roi_align_rotated_grad(np.ones((1, 1, 1, 1)), ones, box, [0], mode="max")
    assert_allclose(dx.sum(), 1, *tolerances.GRADIENT["float64"])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("side", [1e12, 1e30, 3e38])
@pytest.mark.parametrize("spatial_scale", [1.0, 2.0])
def test_boxes_that_overflow_stay_finite(mode, side, spatial_scale):
    x = random_map(7).astype(np.float32)
    for centre in (3, -side, side):
        box = np.array([[centre, 3, side, side, 0.7]], np.float32)
        attributes = {"mode": mode, "output_height": 3, "output_width": 3}
        y = roi_align_rotated(x, box, [0], spatial_scale=spatial_scale, **attributes)
        assert np.isfinite(y).all()
        assert np.abs(y).max() <= np.abs(x).max()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("coordinate_y", "coordinate_x", "is_nan"),
    [(1.5, 1.5, True), (1.0, 1.0, True), (2.0, 2.0, True), (2.0, 3.0, False), (0.9, 1.0, False)],
)
def test_not_a_number_reaches_the_samples_that_touch_it(coordinate_y, coordinate_x, is_nan, mode):
    x = random_map(8, (1, 1, 5, 5))
    x[0, 0, 2, 2] = np.nan
    box = [[coordinate_x + 0.5, coordinate_y + 0.5, 3, 3, 0.7]]
    y = roi_align_rotated(x, box, [0], mode=mode, sampling_ratio=1)
    assert np.isnan(y) == is_nan


def test_not_a_number_wins_the_maximum_wherever_it_is():
    for row, column in np.ndindex(4, 4):
        x = random_map(9, (1, 1, 4, 4))
        x[0, 0, row, column] = np.nan
        assert np.isnan(roi_align_rotated(x, [[2, 2, 9, 9, 0.7]], [0], mode="max"))
        assert np.isnan(roi_align_rotated(x, [[2, 2, 40, 40, 0.7]], [0], mode="max"))


def gradient_of_maximum(x, box):
    return roi_align_rotated_grad(np.ones((1, 1, 1, 1)), x, [box], [0], mode="max")[0, 0]


@pytest.mark.parametrize(
    ("angle", "cell"), [(0, (0, 0)), (90, (3, 0)), (180, (3, 3)), (-90, (0, 3))]
)
def test_first_of_equal_samples_takes_the_gradient(angle, cell):
    # Samples at 0, 1, 2, 3 on both axes. The first is in the box's own upper left corner, which a
    # counter-clockwise quarter of a turn takes to the lower left.
    expected = np.zeros((4, 4))
    expected[cell] = 1
    dx = gradient_of_maximum(np.ones((1, 1, 4, 4)), [2, 2, 4, 4, math.radians(angle)])
    assert_allclose(dx, expected, *FLOAT64)


@pytest.mark.parametrize(
    ("box", "winner"),
    # The map is 0 in cell (1, 3), where it is largest, and so are the samples outside, which are
    # one cell apart; -1 and 4 are still on the map.
    [
        ([2.5, 2.5, 5, 5, 0], (1, 3)),  # no sample outside
        ([3.5, 3.5, 5, 5, 0], (1, 3)),  # in the first row, the cell is before the outside
        ([3.5, 2.5, 5, 5, 0], None),  # the outside is met at the end of the row above
        ([2.5, 3.5, 5, 5, 0], (1, 3)),  # only the last row is outside
        ([1.5, 3.5, 7, 5, 0], None),  # the first column is outside
        ([2, 2, 9, 9, math.pi / 4], None),  # the corners are outside
    ],
)
def test_tie_with_the_samples_outside(box, winner):
    x = np.full((1, 1, 4, 4), -1.0)
    x[0, 0, 1, 3] = 0
    expected = np.zeros((4, 4))
    if winner:
        expected[winner] = 1
    assert roi_align_rotated(x, [box], [0], mode="max") == 0
    assert_array_equal(gradient_of_maximum(x, box), expected)


def test_a_map_of_one_cell():
    x = np.full((1, 1, 1, 1), 3.0)
    box = np.array([[0.5, 0.5, 0.5, 0.5, 0.7]])
    assert_allclose(roi_align_rotated(x, box, [0], sampling_ratio=2), 3, *FLOAT64)
    assert_allclose(roi_align(x, upright(box), [0], sampling_ratio=2), 3, *FLOAT64)
