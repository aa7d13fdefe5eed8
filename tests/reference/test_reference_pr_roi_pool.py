"""`reference.pr_roi_pool` and its gradients: numbers by hand, quadrature, RoIAlign, edge cases."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import tolerances
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_dtypes import bfloat16
from numpy.testing import assert_allclose, assert_array_equal

from ort_roialign.errors import InvalidArgumentError
from ort_roialign.reference import roi_align
from ort_roialign.reference._pr_roi_pool import pr_roi_pool, pr_roi_pool_grad

OPERATORS = [("PrRoiPool", pr_roi_pool, False), ("PrRoiPoolGrad", pr_roi_pool_grad, True)]
TWO_BY_TWO = np.array([[[[1.0, 2.0], [3.0, 4.0]]]])


def attributes_of(size, spatial_scale=1.0):
    return {"output_height": size[0], "output_width": size[1], "spatial_scale": spatial_scale}


def random_case(seed, spatial_scale=0.25, num_rois=6, shape=(2, 3, 6, 7)):
    """Maps of two images, and boxes of which most reach outside, some on both sides."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape)
    corner_image = rng.uniform(-3, 5, (num_rois, 2)) / spatial_scale
    size_image = rng.uniform(0.5, 9, (num_rois, 2)) / spatial_scale
    rois = np.concatenate([corner_image, corner_image + size_image], axis=1)
    return x, rois, rng.integers(0, 2, num_rois)


def plain_surface(plane, y, x):
    """The interpolated map at one point, corner by corner; cells outside are 0."""
    value = 0.0
    for row, column in itertools.product(
        *[(int(np.floor(t)), int(np.floor(t)) + 1) for t in (y, x)]
    ):
        if 0 <= row < plane.shape[0] and 0 <= column < plane.shape[1]:
            value += (1 - abs(y - row)) * (1 - abs(x - column)) * plane[row, column]
    return value


def gauss_points(begin, end):
    """Points and weights of two-point Gauss quadrature between whole numbers: exact for cubics."""
    knots = [begin, *np.arange(np.floor(begin) + 1, np.ceil(end)), end]
    points = []
    for low, high in itertools.pairwise(knots):
        middle, half = (low + high) / 2, (high - low) / 2
        points += [(middle - half / np.sqrt(3), half), (middle + half / np.sqrt(3), half)]
    return points


def by_quadrature(x, rois, batch_indices, size, scale):
    """The operator as a sum over quadrature points: an oracle that shares no code with ours."""
    y = np.zeros((len(rois), x.shape[1], *size))
    for roi, channel, ph, pw in np.ndindex(y.shape):
        x1, y1, x2, y2 = rois[roi] * scale
        height, width = (y2 - y1) / size[0], (x2 - x1) / size[1]
        total = sum(
            weight_y * weight_x * plain_surface(x[batch_indices[roi], channel], at_y, at_x)
            for at_y, weight_y in gauss_points(y1 + ph * height, y1 + (ph + 1) * height)
            for at_x, weight_x in gauss_points(x1 + pw * width, x1 + (pw + 1) * width)
        )
        y[roi, channel, ph, pw] = total / (height * width)
    return y


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 2)])
@pytest.mark.parametrize("spatial_scale", [0.25, float(np.float32(0.1)), 1.0])
def test_equals_quadrature(spatial_scale, size):
    x, rois, batch_indices = random_case(sum(size), spatial_scale)
    ours = pr_roi_pool(x, rois, batch_indices, **attributes_of(size, spatial_scale))
    assert ours.dtype == np.float64
    assert np.abs(ours).max() > 0.1
    expected = by_quadrature(x, rois, batch_indices, size, spatial_scale)
    assert_allclose(ours, expected, *tolerances.KERNEL["float64"])


def test_two_by_two_map_and_its_gradients_derived_by_hand():
    # Within the map the surface is 1 + x + 2y, and its average over a bin the value at the bin's
    # centre: at 1/4 and 3/4 on each axis.
    attributes = attributes_of((2, 2))
    y = pr_roi_pool(TWO_BY_TWO, [[0, 0, 1, 1]], [0], **attributes)
    assert_array_equal(y, [[[[1.75, 2.25], [2.75, 3.25]]]])
    dx, drois = pr_roi_pool_grad(np.ones_like(y), TWO_BY_TWO, [[0, 0, 1, 1]], [0], **attributes)
    # On each axis cell 0 weighs 3/4 and 1/4 in the two bins, cell 1 the rest: 1 over both.
    assert_array_equal(dx, np.ones((1, 1, 2, 2)))
    # The centres are (3 x1 + x2) / 4 and (x1 + 3 x2) / 4: over the four bins, x1 and x2 move x by
    # 2 each, likewise y, which counts twice.
    assert_array_equal(drois, [[2, 4, 2, 4]])


def test_gradient_of_a_single_bin_derived_by_hand():
    # The upper right bin's centre is at ((x1 + 3 x2) / 4, (3 y1 + y2) / 4), the surface 1 + x + 2y;
    # the boxes are twice as large in pixels, so a pixel is half a cell.
    dy = np.array([[[[0, 8.0], [0, 0]]]])
    dx, drois = pr_roi_pool_grad(dy, TWO_BY_TWO, [[0, 0, 2, 2]], [0], **attributes_of((2, 2), 0.5))
    assert_array_equal(dx, [[[[1.5, 4.5], [0.5, 1.5]]]])
    assert_array_equal(drois, [[1, 6, 3, 2]])


@pytest.mark.parametrize(
    ("begin", "end", "average"),
    # Along an axis of a single cell of value 1, the surface is the hat from -1 over 0 to 1.
    [
        (-1, 1, 1 / 2),
        (-4, 4, 1 / 8),
        (0, 1, 1 / 2),
        (-1, 0, 1 / 2),
        (0.5, 1, 1 / 4),
        (0.5, 2.5, 1 / 16),
        (-0.5, 0.5, 3 / 4),
        (0.25, 0.75, 1 / 2),
        (1, 2, 0),
        (-3, -1, 0),
        (-9, -2, 0),
    ],
)
def test_the_map_falls_to_zero_over_one_cell(begin, end, average):
    # Along the other axis the box is [0, 1], which gives 1/2.
    x = np.ones((1, 1, 1, 1))
    assert pr_roi_pool(x, [[begin, 0, end, 1]], [0]).item() == average / 2
    assert pr_roi_pool(x, [[0, begin, 1, end]], [0]).item() == average / 2
    dx, _ = pr_roi_pool_grad([[[[2]]]], x, [[begin, 0, end, 1]], [0])
    assert dx.item() == average


@pytest.mark.parametrize(
    "eighths", [(16, 17, 40, 29), (8, 9, 16, 17), (21, 30, 29, 44), (15, 9, 51, 50)]
)
@pytest.mark.parametrize("size", [(1, 1), (2, 3)])
def test_equals_roi_align_with_samples_between_cells(eighths, size):
    # The surface is bilinear between the cells' centres, so a sample is the average of its share of
    # the bin if no centre lies within: if the borders of the shares include all eighths of a cell.
    # RoIAlign with output_half_pixel counts cells from the same origin.
    x = np.random.default_rng(20).standard_normal((1, 2, 8, 8))
    x1, y1, x2, y2 = eighths
    box = [coordinate / 8 for coordinate in eighths]
    expected = roi_align(
        x,
        [box],
        [0],
        output_height=size[0],
        output_width=size[1],
        sampling_ratio=(x2 - x1) * (y2 - y1),
        coordinate_transformation_mode="output_half_pixel",
    )
    ours = pr_roi_pool(x, [box], [0], **attributes_of(size))
    assert_allclose(ours, expected, *tolerances.KERNEL["float64"])


def test_is_the_limit_of_roi_align():
    rng = np.random.default_rng(30)
    x = rng.standard_normal((1, 2, 9, 9))
    corner, size = rng.uniform(0.5, 3, (5, 2)), rng.uniform(1.5, 4.5, (5, 2))
    rois, batch_indices = np.concatenate([corner, corner + size], axis=1), [0] * 5
    ours = pr_roi_pool(x, rois, batch_indices, **attributes_of((2, 3)))

    def distance(sampling_ratio):
        samples = roi_align(
            x,
            rois,
            batch_indices,
            output_height=2,
            output_width=3,
            sampling_ratio=sampling_ratio,
            coordinate_transformation_mode="output_half_pixel",
        )
        return np.abs(samples - ours).max()

    assert distance(1) > 0.1
    # The error is at most that of the samples next to a kink, and falls with the ratio's square.
    assert distance(16) < distance(1) / 16
    assert distance(4096) < tolerances.KERNEL["float32"].atol


def test_feature_gradient_equals_finite_differences():
    x, rois, batch_indices = random_case(40, num_rois=3, shape=(2, 2, 4, 5))
    dy = np.random.default_rng(41).standard_normal((3, 2, 2, 3))
    attributes = attributes_of((2, 3), 0.25)
    # The operator is linear in x, so the step may be large.
    step = 2.0**-14
    expected = np.zeros_like(x)
    for cell in np.ndindex(x.shape):
        nudge = np.zeros_like(x)
        nudge[cell] = step
        above = pr_roi_pool(x + nudge, rois, batch_indices, **attributes)
        below = pr_roi_pool(x - nudge, rois, batch_indices, **attributes)
        expected[cell] = (dy * (above - below)).sum() / (2 * step)
    dx, _ = pr_roi_pool_grad(dy, x, rois, batch_indices, **attributes)
    assert np.abs(dx).max() > 0.1
    assert_allclose(dx, expected, *tolerances.GRADIENT["float64"])


@pytest.mark.parametrize("size", [(1, 1), (2, 3)])
@pytest.mark.parametrize("spatial_scale", [0.25, 1.0])
def test_box_gradient_equals_finite_differences(spatial_scale, size):
    x, rois, batch_indices = random_case(51, spatial_scale, num_rois=8)
    dy = np.random.default_rng(52).standard_normal((8, 3, *size))
    attributes = attributes_of(size, spatial_scale)
    # The five-point rule, whose error is of the step's fourth power: 2^-40 for a step of 2^-10.
    # The second derivative jumps where an edge of a bin meets a cell, so none may be near one.
    step_image = 2.0**-10 / spatial_scale
    for begin, end, bins in ((0, 2, size[1]), (1, 3, size[0])):
        edges = np.linspace(rois[:, begin], rois[:, end], bins + 1) * spatial_scale
        assert (np.abs(edges - np.round(edges)) > 2 * 2.0**-10).all()

    def loss(column, number_of_steps):
        """Of each box on its own, so that all are moved at once."""
        moved = rois.copy()
        moved[:, column] += number_of_steps * step_image
        y = pr_roi_pool(x, moved, batch_indices, **attributes)
        return (dy * y).sum(axis=(1, 2, 3))

    expected = np.zeros_like(rois)
    for column in range(4):
        near = loss(column, 1) - loss(column, -1)
        far = loss(column, 2) - loss(column, -2)
        expected[:, column] = (8 * near - far) / (12 * step_image)
    _, drois = pr_roi_pool_grad(dy, x, rois, batch_indices, **attributes)
    assert (np.abs(drois).max(axis=0) > 0.01).all()
    assert_allclose(drois, expected, *tolerances.FINITE_DIFFERENCE)


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(*[st.floats(-20, 40)] * 4), st.integers(1, 4), st.integers(1, 4), st.integers(0, 99)
)
def test_feature_gradient_is_the_transpose(box, output_height, output_width, seed):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((1, 2, 6, 7))
    attributes = attributes_of((output_height, output_width), 0.25)
    y = pr_roi_pool(x, [box], [0], **attributes)
    dy = rng.standard_normal(y.shape)
    dx, _ = pr_roi_pool_grad(dy, x, [box], [0], **attributes)
    assert_allclose((dy * y).sum(), (dx * x).sum(), *tolerances.GRADIENT["float64"])


@pytest.mark.parametrize(
    "box", [[2, 1, 2, 4], [1, 2, 4, 2], [4, 1, 2, 3], [1, 3, 3, 2], [4, 3, 1, 1], [2, 2, 2, 2]]
)
def test_a_box_without_area_gives_zero(box):
    x, _, _ = random_case(60)
    rois, attributes = [[0.5, 0.5, 3, 3], box], attributes_of((2, 3))
    y = pr_roi_pool(x, rois, [0, 1], **attributes)
    assert_array_equal(y[1], np.zeros((3, 2, 3)))
    dx, drois = pr_roi_pool_grad(np.ones_like(y), x, rois, [0, 1], **attributes)
    assert_array_equal(dx[1], 0 * x[1])
    assert_array_equal(drois[1], np.zeros(4))
    assert (np.abs(drois[0]) > 0.01).all()


def test_boxes_outside_have_no_gradient():
    x, _, _ = random_case(61)
    rois = [[50, 0, 60, 4], [0, -30, 4, -2], [7, 0, 9, 4], [-4, -4, -1, 9]]
    y = pr_roi_pool(x, rois, [0] * 4)
    assert_array_equal(y, 0 * y)
    dx, drois = pr_roi_pool_grad(np.ones_like(y), x, rois, [0] * 4)
    assert_array_equal(dx, 0 * dx)
    assert_array_equal(drois, np.zeros((4, 4)))


@pytest.mark.parametrize("num_images", [0, 2])
def test_no_regions(num_images):
    x = np.ones((num_images, 3, 0, 5))
    y = pr_roi_pool(x, np.zeros((0, 4)), [], **attributes_of((2, 3)))
    assert y.shape == (0, 3, 2, 3)
    dx, drois = pr_roi_pool_grad(y, x, np.zeros((0, 4)), [], **attributes_of((2, 3)))
    assert_array_equal(dx, 0 * x)
    assert drois.shape == (0, 4)


@pytest.mark.parametrize("real", [np.float32, np.float64])
def test_a_billion_pixels(real):
    # The middle bin, 1e9 cells long, holds all of the surface, whose integral is the cells' sum;
    # the others none of it. Float32 holds the edges of the bins exactly.
    x = np.random.default_rng(70).standard_normal((1, 2, 6, 7)).astype(real)
    box = np.array([[-1.5e9, -1.5e9, 1.5e9, 1.5e9]], real)
    y = pr_roi_pool(x, box, [0], **attributes_of((3, 3)))
    expected = np.zeros((1, 2, 3, 3))
    expected[0, :, 1, 1] = x[0].astype(np.float64).sum(axis=(1, 2))
    assert_allclose(y * 1e18, expected, *tolerances.KERNEL["float64"])
    dx, drois = pr_roi_pool_grad(1e18 * np.ones_like(y), x, box, [0], **attributes_of((3, 3)))
    assert_allclose(dx, np.ones_like(x), *tolerances.GRADIENT["float64"])
    # A pixel more makes each bin larger by a third of a cell on one axis, and the average smaller.
    slope = expected.sum() / 3e9
    assert_allclose(drois / slope, [[1, 1, -1, -1]], *tolerances.GRADIENT["float64"])


@pytest.mark.parametrize("real", [np.float32, np.float64])
@pytest.mark.parametrize("half_image", [1e12, 1e30, 3e38, 1e308])
def test_boxes_that_overflow_stay_finite(half_image, real):
    x, _, _ = random_case(71)
    half = min(half_image, float(np.finfo(real).max))
    rois = np.array([[-half, -half, half, half], [0, 0, half, 4], [half, half, half, half]], real)
    attributes = attributes_of((3, 2), 2.0)
    y = pr_roi_pool(x.astype(real), rois, [0] * 3, **attributes)
    assert (np.abs(y) < 1e-9).all()
    dx, drois = pr_roi_pool_grad(np.ones_like(y), x.astype(real), rois, [0] * 3, **attributes)
    assert (np.abs(dx) < 1e-9).all()
    assert (np.abs(drois) < 1e-9).all()


@pytest.mark.parametrize("size_image", [2.0**-20, 2.0**-30, 2.0**-45])
def test_tiny_boxes_keep_their_digits(size_image):
    # The average of so little of 1 + x + 2y at (0.25, 0.75) is its value at the box's middle.
    box = [0.25, 0.75, 0.25 + size_image, 0.75 + size_image]
    y = pr_roi_pool(TWO_BY_TWO, [box], [0])
    assert_allclose(y.item(), 2.75 + 1.5 * size_image, *tolerances.KERNEL["float64"])


@pytest.mark.parametrize(
    ("begin", "end", "reached"),
    # The hat of cell 2 is above 0 between 1 and 3.
    [
        (1.0, 2.0, True),
        (0.0, 1.0, False),
        (0.0, 1.001, True),
        (3.0, 4.0, False),
        (2.999, 3.0, True),
        (0.5, 6.0, True),
    ],
)
def test_not_a_number_and_infinity_reach_the_bins_under_their_hat(begin, end, reached):
    for special in (np.nan, np.inf):
        row = np.arange(5.0)
        row[2] = special
        expected = special if reached else 1
        for x, box in (
            (row.reshape(1, 1, 1, 5), [begin, -0.5, end, 0.5]),
            (row.reshape(1, 1, 5, 1), [-0.5, begin, 0.5, end]),
        ):
            y = pr_roi_pool(x, [box], [0]).item()
            assert_array_equal(y if reached else np.isfinite(y), expected)
            _, drois = pr_roi_pool_grad([[[[1]]]], x, [box], [0])
            assert np.isfinite(drois).all() == (not reached)


@pytest.mark.parametrize("dtype", ["float32", "float16", bfloat16, "float64"])
def test_type_of_the_coordinates(dtype):
    # The scale 0.7 is the float32 0.699999988..., times 15 is 10.5 in float32 but 10.49999982 in
    # float64. On a ramp of height x the average tells the middle of the box, which is short enough
    # for float32 to hold its size exactly.
    ramp = np.broadcast_to(np.arange(20.0), (1, 1, 3, 20)).astype(dtype)
    rois = np.array([[15, 1, 15.5, 2]], np.float32)
    scale = np.float32(0.7)
    middles = []
    for real in (np.float32, np.float64):
        begin, end = real(15) * real(scale), real(15.5) * real(scale)
        middles.append((float(begin) + float(begin + (end - begin))) / 2)
    assert abs(middles[0] - middles[1]) > 1e-8
    expected = middles[1] if dtype == "float64" else middles[0]
    y = pr_roi_pool(ramp, rois, [0], spatial_scale=0.7)
    assert_allclose(y.item(), expected, *tolerances.KERNEL["float64"])


@pytest.mark.parametrize(("name", "function", "needs_dy"), OPERATORS)
@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"rois": np.ones((2, 5))}, "rois must have shape [num_rois, 4]; got [2, 5]"),
        ({"batch_indices": [0, 2]}, "batch_indices[1] must be in [0, 2); got 2"),
        (
            {"rois": np.array([[0, 0, 1, 1], [0, np.nan, 1, 2]])},
            "rois[1] must have finite coordinates; got [0, nan, 1, 2]",
        ),
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
        "x": np.ones((2, 5, 5, 6)),
        "rois": np.array([[0.0, 0, 4, 4], [1, 1, 3, 3]]),
        "batch_indices": np.array([0, 1]),
        **attributes_of((2, 3)),
    }
    if needs_dy:
        arguments["dy"] = np.ones((2, 5, 2, 3))
    function(**arguments)
    with pytest.raises(InvalidArgumentError) as raised:
        function(**(arguments | changed))
    assert str(raised.value) == f"{name}: {text}"


def test_shape_of_the_output_gradient():
    text = r"^PrRoiPoolGrad: dY must have shape .* = \[1, 1, 1, 1\]; got \[1, 1, 2, 2\]$"
    with pytest.raises(InvalidArgumentError, match=text):
        pr_roi_pool_grad(np.ones((1, 1, 2, 2)), TWO_BY_TWO, [[0, 0, 1, 1]], [0])
