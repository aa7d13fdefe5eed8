"""`reference.deform_roi_pool` and its gradients against RoIAlign, peers' and derived numbers."""

from __future__ import annotations

import numpy as np
import pytest
import tolerances
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from ort_roialign.errors import InvalidArgumentError
from ort_roialign.reference._deform_roi_pool import deform_roi_pool, deform_roi_pool_grad
from ort_roialign.reference._roi_align import roi_align, roi_align_grad

FLOAT64 = tolerances.KERNEL["float64"]
TRANSFORMATIONS = ("half_pixel", "output_half_pixel")


def random_case(seed, dtype=np.float64, num_rois=6):
    """Maps of two images, boxes of which some reach outside, and offsets for 2 by 3 bins."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((2, 3, 9, 11)).astype(dtype)
    corner_image = rng.uniform(-3, 9, (num_rois, 2)) * 4
    size_image = rng.uniform(0.05, 8, (num_rois, 2)) * 4
    rois = np.concatenate([corner_image, corner_image + size_image], axis=1).astype(dtype)
    offset = rng.standard_normal((num_rois, 2, 2, 3)).astype(dtype)
    return x, rois, rng.integers(0, 2, num_rois), offset


def attributes_of(**changes):
    return {"output_height": 2, "output_width": 3, "spatial_scale": 0.25} | changes


@pytest.mark.parametrize("transformation", TRANSFORMATIONS)
@pytest.mark.parametrize("sampling_ratio", [0, 2])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_without_offset_equals_roi_align(dtype, sampling_ratio, transformation):
    x, rois, batch_indices, offset = random_case(0, dtype)
    attributes = attributes_of(
        sampling_ratio=sampling_ratio, coordinate_transformation_mode=transformation
    )
    expected = roi_align(x, rois, batch_indices, **attributes)
    assert_array_equal(deform_roi_pool(x, rois, batch_indices, **attributes), expected)
    zeros = np.zeros_like(offset)
    assert_array_equal(deform_roi_pool(x, rois, batch_indices, zeros, **attributes), expected)
    still = deform_roi_pool(x, rois, batch_indices, offset, gamma=0.0, **attributes)
    assert_array_equal(still, expected)

    dy = np.random.default_rng(1).standard_normal(expected.shape)
    dx, doffset = deform_roi_pool_grad(dy, x, rois, batch_indices, **attributes)
    assert_array_equal(dx, roi_align_grad(dy, x, rois, batch_indices, **attributes))
    assert doffset.shape == offset.shape
    assert np.abs(doffset).max() > 0.01
    with_zeros = deform_roi_pool_grad(dy, x, rois, batch_indices, zeros, **attributes)
    assert_array_equal(doffset, with_zeros[1])


@pytest.mark.parametrize("transformation", TRANSFORMATIONS)
@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_each_bin_is_the_one_of_the_box_moved_by_its_offset(sampling_ratio, transformation):
    x, rois, batch_indices, offset = random_case(2)
    gamma = 0.25  # exact in float32
    attributes = attributes_of(
        sampling_ratio=sampling_ratio, coordinate_transformation_mode=transformation
    )
    y = deform_roi_pool(x, rois, batch_indices, offset, gamma=gamma, **attributes)
    dy = np.random.default_rng(3).standard_normal(y.shape)
    dx, _ = deform_roi_pool_grad(dy, x, rois, batch_indices, offset, gamma=gamma, **attributes)
    expected_dx = np.zeros_like(x)
    size_image = rois[:, 2:] - rois[:, :2]
    if transformation == "output_half_pixel":
        size_image = np.maximum(size_image, 4)
    for ph, pw in np.ndindex(2, 3):
        moved = rois + np.tile(gamma * size_image * offset[:, :, ph, pw], 2)
        expected = roi_align(x, moved, batch_indices, **attributes)[:, :, ph, pw]
        assert_allclose(y[:, :, ph, pw], expected, *FLOAT64)
        dy_bin = np.zeros_like(dy)
        dy_bin[:, :, ph, pw] = dy[:, :, ph, pw]
        expected_dx += roi_align_grad(dy_bin, x, moved, batch_indices, **attributes)
    assert_allclose(dx, expected_dx, *tolerances.GRADIENT["float64"])


@pytest.mark.parametrize(
    ("x", "side", "expected"),
    # mmcv's own test, without offset.
    [
        ([[[1, 2], [3, 4]]], 1, [[[1, 1.25], [1.5, 1.75]]]),
        (
            [[[1, 2], [3, 4]], [[4, 3], [2, 1]]],
            1,
            [[[1, 1.25], [1.5, 1.75]], [[4, 3.75], [3.5, 3.25]]],
        ),
        (
            [[[1, 2, 5, 6], [3, 4, 7, 8], [9, 10, 13, 14], [11, 12, 15, 16]]],
            3,
            [[[1.9375, 4.75], [7.5625, 10.375]]],
        ),
    ],
)
def test_numbers_of_mmcv(x, side, expected):
    y = deform_roi_pool(
        np.array([x], np.float64),
        [[0, 0, side, side]],
        [0],
        output_height=2,
        output_width=2,
        sampling_ratio=2,
    )
    assert_array_equal(y, [expected])


def test_offsets_on_a_plane_derived_by_hand():
    # The value at (x, y) is 10y + x. The box is at (2.5, 3.5) on the map, 8 wide and 4 high, so
    # with gamma 0.5 an offset of 1 moves a bin by 4 along x, and by 2 along y. The bins' centres
    # are at x = 4.5 and 8.5, y = 5.5, where the plane is 59.5 and 63.5.
    rows, columns = np.indices((20, 30))
    x = (10.0 * rows + columns).reshape(1, 1, 20, 30)
    offset = np.array([[[[1.0, -0.25]], [[0.5, 2.0]]]])
    attributes = {"output_width": 2, "gamma": 0.5}
    y = deform_roi_pool(x, [[3, 4, 11, 8]], [0], offset, **attributes)
    # First bin: 4 to the right, 1 down; second bin: 1 to the left, 4 down.
    assert_allclose(y, [[[[59.5 + 4 + 10, 63.5 - 1 + 40]]]], *FLOAT64)
    dy = np.array([[[[2.0, 3.0]]]])
    _, doffset = deform_roi_pool_grad(dy, x, [[3, 4, 11, 8]], [0], offset, **attributes)
    # The plane rises by 1 along x and by 10 along y.
    along_x, along_y = [2 * 4 * 1, 3 * 4 * 1], [2 * 2 * 10, 3 * 2 * 10]
    assert_allclose(doffset, [[[along_x], [along_y]]], *FLOAT64)


@pytest.mark.parametrize(
    ("coordinate", "value", "slope"),
    # The map is 1 2 4 8, and a sample is at the coordinate.
    [
        (-1.5, 0, 0),  # off the map
        (-1, 1, 0),
        (-0.5, 1, 0),  # held at the first centre
        (0, 1, 0),
        (0.25, 1.25, 1),
        (1, 2, 2),  # the kink: towards greater coordinates
        (1.5, 3, 2),
        (2.75, 7, 4),
        (3, 8, 0),
        (3.5, 8, 0),  # past the last centre
        (4, 8, 0),
        (4.5, 0, 0),
    ],
)
@pytest.mark.parametrize("axis", ["x", "y"])
def test_slope_of_a_row(axis, coordinate, value, slope):
    # A box 2 cells long and 3 across, with its middle, the sample, half a cell before 1.5 across.
    # The offset moves it there from 0, by gamma times 2.
    row, gamma = np.array([1.0, 2.0, 4.0, 8.0]), 0.5
    offset, expected = np.zeros((1, 2, 1, 1)), np.zeros((1, 2, 1, 1))
    if axis == "x":
        x, box = np.broadcast_to(row, (1, 1, 3, 4)), [[-0.5, 0, 1.5, 3]]
    else:
        x, box = np.broadcast_to(row[:, np.newaxis], (1, 1, 4, 3)), [[0, -0.5, 3, 1.5]]
    offset[0, "xy".index(axis)] = coordinate
    expected[0, "xy".index(axis)] = slope * gamma * 2
    attributes = {"sampling_ratio": 1, "gamma": gamma}
    assert deform_roi_pool(x, box, [0], offset, **attributes) == value
    ones = np.ones((1, 1, 1, 1))
    _, doffset = deform_roi_pool_grad(ones, x, box, [0], offset, **attributes)
    assert_array_equal(doffset, expected)


@pytest.mark.parametrize("transformation", TRANSFORMATIONS)
@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_gradients_equal_finite_differences(sampling_ratio, transformation):
    x, rois, batch_indices, offset = random_case(12, num_rois=3)
    x = x[:, :2, :6, :6]
    attributes = attributes_of(
        sampling_ratio=sampling_ratio, coordinate_transformation_mode=transformation
    )
    dy = np.random.default_rng(11).standard_normal((3, 2, 2, 3))
    tensors = [x, offset]
    gradients = deform_roi_pool_grad(dy, x, rois, batch_indices, offset, **attributes)
    # Linear in x, and between kinks in an offset along one axis, too.
    step = 2.0**-14
    for number, gradient in enumerate(gradients):
        expected = np.zeros_like(gradient)
        for place in np.ndindex(gradient.shape):
            losses = []
            for nudge in (step, -step):
                nudged = [tensor.copy() for tensor in tensors]
                nudged[number][place] += nudge
                y = deform_roi_pool(nudged[0], rois, batch_indices, nudged[1], **attributes)
                losses.append((dy * y).sum())
            expected[place] = (losses[0] - losses[1]) / (2 * step)
        assert np.abs(gradient).max() > 0.1
        assert_allclose(gradient, expected, *tolerances.FINITE_DIFFERENCE)


coordinates = st.floats(-5, 12)
boxes = st.tuples(coordinates, coordinates, st.floats(-4, 12), st.floats(0.1, 12)).map(
    lambda box: [box[0], box[1], box[0] + box[2], box[1] + box[3]]
)


@settings(max_examples=40, deadline=None)
@given(boxes, st.sampled_from([0, 1, 3]), st.integers(0, 2**32 - 1))
def test_gradient_is_the_transpose(box, sampling_ratio, seed):
    rng = np.random.default_rng(seed)
    x, offset = rng.standard_normal((1, 2, 6, 7)), rng.standard_normal((1, 2, 2, 3))
    attributes = attributes_of(sampling_ratio=sampling_ratio, spatial_scale=1.0)
    y = deform_roi_pool(x, [box], [0], offset, **attributes)
    dy = rng.standard_normal(y.shape)
    dx, _ = deform_roi_pool_grad(dy, x, [box], [0], offset, **attributes)
    assert_allclose((dy * y).sum(), (dx * x).sum(), *tolerances.GRADIENT["float64"])


@pytest.mark.parametrize("num_images", [0, 2])
def test_no_regions(num_images):
    x, empty_boxes = np.ones((num_images, 3, 4, 5)), np.zeros((0, 4))
    for offset in (None, np.zeros((0, 2, 2, 3))):
        y = deform_roi_pool(x, empty_boxes, [], offset, **attributes_of())
        assert y.shape == (0, 3, 2, 3)
        dx, doffset = deform_roi_pool_grad(y, x, empty_boxes, [], offset, **attributes_of())
        assert_array_equal(dx, np.zeros_like(x))
        assert doffset.shape == (0, 2, 2, 3)


@pytest.mark.parametrize("box", [[2, 1, 2, 4], [4, 1, 2, 3], [1, 3, 3, 2], [4, 3, 1, 1]])
def test_adaptive_grid_of_a_box_without_area_is_empty(box):
    x = np.random.default_rng(20).standard_normal((1, 2, 6, 7))
    offset = np.ones((1, 2, 2, 3))
    attributes = attributes_of(spatial_scale=1.0)
    y = deform_roi_pool(x, [box], [0], offset, **attributes)
    assert_array_equal(y, np.zeros((1, 2, 2, 3)))
    dx, doffset = deform_roi_pool_grad(np.ones_like(y), x, [box], [0], offset, **attributes)
    assert_array_equal(dx, 0 * x)
    assert_array_equal(doffset, 0 * offset)


def test_mirrored_box_moves_the_other_way():
    # A box from 5 to 1, 4 cells, has the width -4.
    x = np.arange(10.0).reshape(1, 1, 1, 10)
    attributes = {"sampling_ratio": 1, "gamma": 0.25}
    offset = np.array([1.0, 0.0]).reshape(1, 2, 1, 1)
    assert deform_roi_pool(x, [[1, 0, 5, 1]], [0], offset, **attributes) == 2.5 + 1
    assert deform_roi_pool(x, [[5, 0, 1, 1]], [0], offset, **attributes) == 2.5 - 1


def test_bins_moved_off_the_map_are_zero():
    x = np.random.default_rng(21).standard_normal((1, 2, 6, 7))
    rois, zero = [[1, 1, 5, 5]], np.zeros((1, 2, 1, 1))
    for away in (30.0, -1e30, 3e38, np.inf, np.nan):
        for axis in (0, 1):
            offset = zero.copy()
            offset[0, axis] = away
            y = deform_roi_pool(x.astype(np.float32), rois, [0], offset)
            assert_array_equal(y, np.zeros((1, 2, 1, 1)))
            dx, doffset = deform_roi_pool_grad(np.ones_like(y), x, rois, [0], offset)
            assert_array_equal(dx, 0 * x)
            assert_array_equal(doffset, zero)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("half", [1e9, 1e30, 3e38])
def test_huge_boxes_stay_finite(half, dtype):
    x = np.random.default_rng(22).standard_normal((1, 2, 6, 7)).astype(dtype)
    box, offset = np.array([[-half, -half, half, half]], dtype), np.ones((1, 2, 2, 3))
    y = deform_roi_pool(x, box, [0], offset, gamma=0.01, **attributes_of())
    assert np.isfinite(y).all()
    _, doffset = deform_roi_pool_grad(np.ones_like(y), x, box, [0], offset, **attributes_of())
    assert np.isfinite(doffset).all()


@pytest.mark.parametrize(("dtype", "value"), [("float32", 1), ("float16", 1), ("float64", 0)])
def test_type_of_the_offset(dtype, value):
    # 10 cells times the float32 nearest to 0.1 is 1 in float32, but 1.0000000149 in float64: the
    # sample, from 9, comes to lie on the border of the map, or just outside it.
    x, box = np.ones((1, 1, 10, 10), dtype), [[4.5, 0, 14.5, 10]]
    offset = np.array([1, 0], dtype).reshape(1, 2, 1, 1)
    assert deform_roi_pool(x, box, [0], offset, sampling_ratio=1) == value


def test_not_a_number_is_carried():
    x = np.zeros((1, 1, 5, 5))
    x[0, 0, 2, 2] = np.nan
    offset = np.zeros((1, 2, 1, 2))
    offset[0, 0, 0, 1] = 0.5
    # Samples at (1.5, 2.5); the second bin's, at 4.5, is moved to 3 by gamma times 2 of 6 cells.
    attributes = {"output_width": 2, "sampling_ratio": 1, "gamma": 0.5}
    box = [[0.5, 0.5, 6.5, 4.5]]
    y = deform_roi_pool(x, box, [0], offset, **attributes)
    assert_array_equal(np.isnan(y), [[[[True, False]]]])
    dx, doffset = deform_roi_pool_grad(np.ones_like(y), x, box, [0], offset, **attributes)
    assert np.isfinite(dx).all()
    assert_array_equal(np.isnan(doffset), [[[[True, False]], [[True, False]]]])


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            {"offset": np.ones((2, 2, 3, 2))},
            "offset must have shape [num_rois, 2, output_height, output_width] = [2, 2, 2, 3]; "
            "got [2, 2, 3, 2]",
        ),
        (
            {"offset": np.ones((1, 2, 2, 3))},
            "offset must have shape [num_rois, 2, output_height, output_width] = [2, 2, 2, 3]; "
            "got [1, 2, 2, 3]",
        ),
        ({"gamma": np.nan}, "attribute gamma must be finite; got nan"),
        ({"gamma": 1e300}, "attribute gamma must be finite; got inf"),
        ({"rois": np.ones((2, 5))}, "rois must have shape [num_rois, 4]; got [2, 5]"),
        ({"batch_indices": [0, 7]}, "batch_indices[1] must be in [0, 1); got 7"),
        ({"output_height": 0}, "attribute output_height must be at least 1; got 0"),
        ({"sampling_ratio": -2}, "attribute sampling_ratio must be at least 0; got -2"),
    ],
)
def test_errors(arguments, text):
    good = {"x": np.ones((1, 3, 4, 5)), "rois": np.ones((2, 4)), "batch_indices": [0, 0]}
    arguments = attributes_of(**good) | arguments
    with pytest.raises(InvalidArgumentError) as raised:
        deform_roi_pool(**arguments)
    assert str(raised.value) == f"DeformRoiPool: {text}"
    with pytest.raises(InvalidArgumentError) as raised:
        deform_roi_pool_grad(np.ones((2, 3, 2, 3)), **arguments)
    assert str(raised.value) == f"DeformRoiPoolGrad: {text}"


def test_shape_of_the_output_gradient():
    with pytest.raises(InvalidArgumentError) as raised:
        deform_roi_pool_grad(
            np.ones((1, 3, 3, 2)), np.ones((1, 3, 4, 5)), np.ones((1, 4)), [0], **attributes_of()
        )
    assert str(raised.value) == (
        "DeformRoiPoolGrad: dY must have shape [num_rois, channels, output_height, output_width]"
        " = [1, 3, 2, 3]; got [1, 3, 3, 2]"
    )
