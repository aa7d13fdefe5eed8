"""`reference.roi_align_rotated` and its gradient against peers' numbers, RoIAlign and a loop."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import tolerances
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from ort_roialign.errors import InvalidArgumentError
from ort_roialign.reference._roi_align import roi_align, roi_align_grad
from ort_roialign.reference._roi_align_rotated import roi_align_rotated, roi_align_rotated_grad

MODES = ("avg", "max")
TRANSFORMATIONS = ("half_pixel", "output_half_pixel")
FLOAT64 = tolerances.KERNEL["float64"]


def random_case(seed, dtype=np.float64, spatial_scale=0.25, num_rois=6):
    """Maps of two images, and boxes of which some reach outside and some are tiny."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((2, 3, 9, 11)).astype(dtype)
    centre_image = rng.uniform(-1, 11, (num_rois, 2)) / spatial_scale
    size_image = rng.uniform(0.05, 8, (num_rois, 2)) / spatial_scale
    angle = rng.uniform(-4, 4, (num_rois, 1))
    rois = np.concatenate([centre_image, size_image, angle], axis=1).astype(dtype)
    return x, rois, rng.integers(0, 2, num_rois)


def upright(rois):
    """Corners of boxes, as RoiAlign takes them, with the angle left out."""
    centre, half = rois[:, :2], rois[:, 2:4] / 2
    return np.concatenate([centre - half, centre + half], axis=1)


def plain_loop_samples(feature_map, box, bin_y, bin_x, attributes):
    """All samples [C, gh * gw] of one bin of a float64 map, one by one, as detectron2 has them."""
    height, width = feature_map.shape[1:]
    half_pixel = attributes["coordinate_transformation_mode"] == "half_pixel"
    scale, offset = attributes["spatial_scale"], 0.5 if half_pixel else 0.0
    centre_x, centre_y, box_width, box_height, angle = (float(value) for value in box)
    sine, cosine = math.sin(angle), math.cos(angle)

    def axis(length, number, num_bins):
        length = length * scale if half_pixel else max(length * scale, 1.0)
        step = length / num_bins
        count = attributes["sampling_ratio"] or max(0, math.ceil(step))
        return [-length / 2 + number * step + (i + 0.5) * step / count for i in range(count)]

    def at(y, x):
        if y < -1 or y > height or x < -1 or x > width:
            return np.zeros(len(feature_map))
        y, x = np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)
        top, left = min(int(y), max(height - 2, 0)), min(int(x), max(width - 2, 0))
        ly, lx = y - top, x - left
        upper = (1 - lx) * feature_map[:, top, left] + lx * feature_map[:, top, left + 1]
        lower = (1 - lx) * feature_map[:, top + 1, left] + lx * feature_map[:, top + 1, left + 1]
        return (1 - ly) * upper + ly * lower

    ys = axis(box_height, bin_y, attributes["output_height"])
    xs = axis(box_width, bin_x, attributes["output_width"])
    samples = [
        at(
            yy * cosine - xx * sine + centre_y * scale - offset,
            yy * sine + xx * cosine + centre_x * scale - offset,
        )
        for yy, xx in itertools.product(ys, xs)
    ]
    return np.array(samples).reshape(len(samples), len(feature_map)).T


def plain_loop(x, rois, batch_indices, **attributes):
    shape = (len(rois), x.shape[1], attributes["output_height"], attributes["output_width"])
    y = np.zeros(shape)
    reduce = np.mean if attributes["mode"] == "avg" else np.max
    for roi, ph, pw in np.ndindex(shape[0], *shape[2:]):
        samples = plain_loop_samples(x[batch_indices[roi]], rois[roi], ph, pw, attributes)
        y[roi, :, ph, pw] = reduce(samples, axis=1) if samples.size else 0.0
    return y


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("transformation", TRANSFORMATIONS)
@pytest.mark.parametrize("sampling_ratio", [0, 1, 3])
@pytest.mark.parametrize("spatial_scale", [0.25, float(np.float32(0.1))])
def test_equals_plain_loop(mode, transformation, sampling_ratio, spatial_scale):
    x, rois, batch_indices = random_case(sampling_ratio, spatial_scale=spatial_scale)
    attributes = {
        "mode": mode,
        "output_height": 2,
        "output_width": 3,
        "sampling_ratio": sampling_ratio,
        "spatial_scale": spatial_scale,
        "coordinate_transformation_mode": transformation,
    }
    ours = roi_align_rotated(x, rois, batch_indices, **attributes)
    assert ours.dtype == np.float64
    assert np.abs(ours).max() > 0.1
    assert_allclose(ours, plain_loop(x, rois, batch_indices, **attributes), *FLOAT64)


def test_quarter_turn_derived_by_hand():
    # Samples of the upright box are at -0.375, -0.125, 0.125, 0.375 on each axis around (0, 0).
    # A quarter of a turn takes (yy, xx) to y = -xx, x = yy, so that the first row of bins holds the
    # left half of the map, from the bottom up. Below 0, a coordinate counts as 0, so the bins'
    # averages are 1 (upper left), 1 + 0.25 * 2 at the bottom, 1 + 0.25 * 1 at the right.
    x = np.array([[[[1.0, 2.0], [3.0, 4.0]]]])
    rois, attributes = [[0.5, 0.5, 1, 1, math.pi / 2]], {"output_height": 2, "output_width": 2}
    y = roi_align_rotated(x, rois, [0], sampling_ratio=2, **attributes)
    assert_allclose(y, [[[[1.5, 1.0], [1.75, 1.25]]]], *FLOAT64)
    dx = roi_align_rotated_grad(np.ones_like(y), x, rois, [0], sampling_ratio=2, **attributes)
    assert_allclose(dx, [[[[3.0625, 0.4375], [0.4375, 0.0625]]]], *FLOAT64)


def test_eighth_turn_derived_by_hand():
    # The samples are 3 * sqrt(2) left and right of (10, 10), turned counter-clockwise by 45
    # degrees: the left one comes to lie 3 cells left and 3 below, the right one 3 right, 3 above.
    x = np.zeros((1, 1, 21, 21))
    x[0, 0, 13, 7], x[0, 0, 7, 13] = 5, 6
    rois = [[10.5, 10.5, 12 * math.sqrt(2), 1, 45]]
    attributes = {"output_width": 2, "sampling_ratio": 1, "angle_unit": "degrees"}
    y = roi_align_rotated(x, rois, [0], **attributes)
    assert_allclose(y, [[[[5.0, 6.0]]]], *FLOAT64)
    x[0, 0, 7, 7], x[0, 0, 13, 13] = 7, 8
    y = roi_align_rotated(x, rois, [0], clockwise=1, **attributes)
    assert_allclose(y, [[[[7.0, 8.0]]]], *FLOAT64)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("transformation", TRANSFORMATIONS)
@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_no_turn_equals_roi_align(mode, transformation, sampling_ratio):
    x, rois, batch_indices = random_case(seed=10)
    rois[:, 4] = 0
    attributes = {
        "mode": mode,
        "output_height": 3,
        "output_width": 2,
        "sampling_ratio": sampling_ratio,
        "spatial_scale": 0.25,
        "coordinate_transformation_mode": transformation,
    }
    if transformation == "output_half_pixel":
        # A box that is made larger keeps its centre here, and its corner there.
        rois[:, 2:4] = np.maximum(rois[:, 2:4], 4)
    expected = roi_align(x, upright(rois), batch_indices, **attributes)
    assert_allclose(roi_align_rotated(x, rois, batch_indices, **attributes), expected, *FLOAT64)
    dy = np.random.default_rng(11).standard_normal(expected.shape)
    expected = roi_align_grad(dy, x, upright(rois), batch_indices, **attributes)
    ours = roi_align_rotated_grad(dy, x, rois, batch_indices, **attributes)
    assert_allclose(ours, expected, *tolerances.GRADIENT["float64"])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("sampling_ratio", [0, 4])
def test_no_turn_equals_roi_align_to_the_bit_where_all_numbers_are_exact(mode, sampling_ratio):
    # Whole numbers in the map, and coordinates in eighths.
    rng = np.random.default_rng(20)
    x = rng.integers(-100, 100, (1, 2, 9, 11)).astype(np.float32)
    rois = np.zeros((20, 5), np.float32)
    rois[:, :2] = rng.integers(-8, 88, (20, 2)) / 8
    rois[:, 2:4] = rng.integers(1, 9, (20, 2)) * (1 if sampling_ratio else 2)
    attributes = {"output_height": 2, "output_width": 2, "sampling_ratio": sampling_ratio}
    ours = roi_align_rotated(x, rois, np.zeros(20, int), mode=mode, **attributes)
    expected = roi_align(x, upright(rois), np.zeros(20, int), mode=mode, **attributes)
    assert len(np.unique(ours)) > 20
    assert_array_equal(ours, expected)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("quarters", "attributes"),
    [(1, {}), (-1, {}), (2, {}), (3, {}), (5, {}), (1, {"clockwise": 1})],
)
def test_quarter_turns_equal_the_turned_crop(mode, quarters, attributes):
    x, rois, batch_indices = random_case(seed=30)
    rois[:, 4] = 90 * quarters
    shared = {"mode": mode, "sampling_ratio": 2, "spatial_scale": 0.25}
    ours = roi_align_rotated(
        x,
        rois,
        batch_indices,
        output_height=2,
        output_width=3,
        angle_unit="degrees",
        **attributes,
        **shared,
    )
    size = (2, 3)
    if quarters % 2:
        rois[:, 2:4], size = rois[:, 3:1:-1], (3, 2)
    crop = roi_align(
        x, upright(rois), batch_indices, output_height=size[0], output_width=size[1], **shared
    )
    # The crop's first row is the box's upper side, which a counter-clockwise turn takes to the
    # left: what is left on the map is up in the crop.
    turns = quarters if "clockwise" in attributes else -quarters
    assert_allclose(ours, np.rot90(crop, turns, axes=(2, 3)), *FLOAT64)


def test_clockwise_is_the_negative_angle_and_degrees_are_radians():
    x, rois, batch_indices = random_case(seed=40)
    attributes = {"output_height": 2, "output_width": 3, "spatial_scale": 0.25}
    y = roi_align_rotated(x, rois, batch_indices, **attributes)
    dy = np.random.default_rng(41).standard_normal(y.shape)
    dx = roi_align_rotated_grad(dy, x, rois, batch_indices, **attributes)
    negative = rois * [1, 1, 1, 1, -1]
    assert not np.allclose(y, roi_align_rotated(x, negative, batch_indices, **attributes))
    y_clockwise = roi_align_rotated(x, negative, batch_indices, clockwise=1, **attributes)
    dx_clockwise = roi_align_rotated_grad(dy, x, negative, batch_indices, clockwise=1, **attributes)
    assert_array_equal(y_clockwise, y)
    assert_array_equal(dx_clockwise, dx)

    attributes["angle_unit"] = "degrees"
    degrees = rois * [1, 1, 1, 1, 180 / math.pi]
    assert_allclose(roi_align_rotated(x, degrees, batch_indices, **attributes), y, *FLOAT64)
    dx_degrees = roi_align_rotated_grad(dy, x, degrees, batch_indices, **attributes)
    assert_allclose(dx_degrees, dx, *tolerances.GRADIENT["float64"])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sine_and_cosine_come_from_float64(dtype):
    # The sine of half a turn is 1.2e-16 in float64, but -8.7e-8 of the float32 nearest to pi, which
    # would move the sample, 1e6 cells from the centre, from y = -1, on the map, to -1.087.
    x = np.ones((1, 1, 10, 10), dtype)
    rois = np.array([[-1e6 + 5, -0.5, 4e6, 1, 180]], dtype)
    attributes = {"output_width": 2, "sampling_ratio": 1, "angle_unit": "degrees"}
    if dtype == "float64":
        rois[0, 1] += 2**-20  # 1e6 times 1.2e-16 counts in float64
    assert_array_equal(roi_align_rotated(x, rois, [0], **attributes), [[[[1, 0]]]])


@pytest.mark.parametrize(("dtype", "value"), [("float32", 1), ("float16", 1), ("float64", 0)])
def test_type_of_the_coordinates(dtype, value):
    # As of RoiAlign: 105 times the float32 nearest to 0.1 is 10.5 in float32, more in float64.
    x = np.ones((1, 1, 10, 10), dtype)
    rois = np.array([[105, 5, 0, 0, 0]], np.float32)
    assert roi_align_rotated(x, rois, [0], sampling_ratio=1, spatial_scale=0.1) == value


few_examples = settings(max_examples=40, deadline=None)
# Centres of boxes that lie within the map of 40 by 40 cells, whatever their angle.
inner_boxes = st.tuples(
    st.floats(12, 28), st.floats(12, 28), st.floats(0.1, 15), st.floats(0.1, 15), st.floats(-7, 7)
).map(list)


@few_examples
@given(inner_boxes, st.sampled_from([0, 1, 3]))
def test_bins_of_a_plane_are_its_values_at_their_centres(box, sampling_ratio):
    rows, columns = np.indices((40, 40))
    x = (0.5 * rows - 0.25 * columns).reshape(1, 1, 40, 40)
    y = roi_align_rotated(
        x, [box], [0], output_height=2, output_width=3, sampling_ratio=sampling_ratio
    )
    centre_x, centre_y, width, height, angle = box
    for ph, pw in np.ndindex(2, 3):
        along_y, along_x = height * (ph - 0.5) / 2, width * (pw - 1) / 3
        row = centre_y - 0.5 + along_y * math.cos(angle) - along_x * math.sin(angle)
        column = centre_x - 0.5 + along_y * math.sin(angle) + along_x * math.cos(angle)
        assert_allclose(y[0, 0, ph, pw], 0.5 * row - 0.25 * column, *FLOAT64)


boxes = st.tuples(
    st.floats(-5, 12), st.floats(-5, 12), st.floats(-4, 12), st.floats(0.1, 12), st.floats(-7, 7)
).map(list)


@few_examples
@given(boxes, st.sampled_from(MODES), st.sampled_from([0, 1, 3]), st.integers(0, 2**32 - 1))
def test_gradient_is_the_transpose(box, mode, sampling_ratio, seed):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((1, 2, 6, 7))
    attributes = {
        "mode": mode,
        "output_height": 2,
        "output_width": 3,
        "sampling_ratio": sampling_ratio,
    }
    y = roi_align_rotated(x, [box], [0], **attributes)
    dy = rng.standard_normal(y.shape)
    dx = roi_align_rotated_grad(dy, x, [box], [0], **attributes)
    assert_allclose((dy * y).sum(), (dx * x).sum(), *tolerances.GRADIENT["float64"])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_gradient_equals_finite_differences(mode, sampling_ratio):
    x, rois, batch_indices = random_case(seed=50, num_rois=3)
    x = x[:, :2, :6, :6]
    dy = np.random.default_rng(51).standard_normal((3, 2, 2, 2))
    attributes = {
        "mode": mode,
        "output_height": 2,
        "output_width": 2,
        "sampling_ratio": sampling_ratio,
        "spatial_scale": 0.25,
    }
    step = 2.0**-14
    expected = np.zeros_like(x)
    for cell in np.ndindex(x.shape):
        nudge = np.zeros_like(x)
        nudge[cell] = step
        above = roi_align_rotated(x + nudge, rois, batch_indices, **attributes)
        below = roi_align_rotated(x - nudge, rois, batch_indices, **attributes)
        expected[cell] = (dy * (above - below)).sum() / (2 * step)
    ours = roi_align_rotated_grad(dy, x, rois, batch_indices, **attributes)
    assert np.abs(ours).max() > 0.1
    assert_allclose(ours, expected, *tolerances.FINITE_DIFFERENCE)


@pytest.mark.parametrize(
    ("rois", "attributes", "text"),
    [
        (np.ones((12, 4)), {}, "rois must have shape [num_rois, 5]; got [12, 4]"),
        (
            [[0, 0, 1, 1, 0], [0, 0, 1, 2, np.nan]],
            {},
            "rois[1] must have finite coordinates; got [0, 0, 1, 2, nan]",
        ),
        (
            None,
            {"angle_unit": "turns"},
            'attribute angle_unit must be "radians" or "degrees"; got "turns"',
        ),
        (None, {"clockwise": 2}, "attribute clockwise must be at most 1; got 2"),
        (None, {"clockwise": -1}, "attribute clockwise must be at least 0; got -1"),
        (None, {"mode": "median"}, 'attribute mode must be "avg" or "max"; got "median"'),
        (None, {"output_width": 0}, "attribute output_width must be at least 1; got 0"),
        (None, {"sampling_ratio": -1}, "attribute sampling_ratio must be at least 0; got -1"),
        (
            None,
            {"spatial_scale": -1.0},
            "attribute spatial_scale must be finite and greater than 0; got -1",
        ),
    ],
)
def test_errors(rois, attributes, text):
    rois = np.ones((2, 5)) if rois is None else rois
    with pytest.raises(InvalidArgumentError) as raised:
        roi_align_rotated(np.ones((1, 3, 4, 5)), rois, [0, 0], **attributes)
    assert str(raised.value) == f"RoiAlignRotated: {text}"
    with pytest.raises(InvalidArgumentError) as raised:
        roi_align_rotated_grad(
            np.ones((2, 3, 1, 1)), np.ones((1, 3, 4, 5)), rois, [0, 0], **attributes
        )
    assert str(raised.value) == f"RoiAlignRotatedGrad: {text}"


def test_shape_of_the_output_gradient():
    with pytest.raises(InvalidArgumentError) as raised:
        roi_align_rotated_grad(
            np.ones((1, 2, 2, 2)), np.ones((1, 3, 4, 5)), np.ones((1, 5)), [0], output_width=7
        )
    assert str(raised.value) == (
        "RoiAlignRotatedGrad: dY must have shape [num_rois, channels, output_height, output_width]"
        " = [1, 3, 1, 7]; got [1, 2, 2, 2]"
    )
