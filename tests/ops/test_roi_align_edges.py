"""RoiAlign in the cases where implementations tend to differ, crash or run for ever."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tolerances
from numpy.testing import assert_allclose, assert_array_equal
from peers import torchvision_roi_align
from plugin import ELEMENT_TYPES, Device, random_inputs, run

from ort_roialign.reference import roi_align, roi_align_grad

MODES = ("avg", "max")


def inputs_of(x: Any, boxes: Any) -> dict[str, Any]:
    """Boxes on one image, of the type of `x`."""
    rois = np.array(boxes).astype(x.dtype)
    return {"X": x, "rois": rois, "batch_indices": np.zeros(len(rois), np.int64)}


def run_one(device: Device, inputs: Any, **attributes: Any) -> Any:
    (y,) = run(device, "RoiAlign", inputs, **attributes)
    return y


def reference_of(inputs: Any, **attributes: Any) -> Any:
    return roi_align(inputs["X"], inputs["rois"], inputs["batch_indices"], **attributes)


def random_map(rng: np.random.Generator, *shape: int, dtype: Any = np.float32) -> Any:
    return rng.standard_normal(shape or (1, 3, 6, 7)).astype(dtype)


@pytest.mark.parametrize("num_images", [0, 2])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("type_name", list(ELEMENT_TYPES))
def test_no_rois(device, rng, type_name, mode, num_images):
    inputs = random_inputs(rng, type_name, num_images=2, num_rois=0)
    inputs["X"] = inputs["X"][:num_images]
    y = run_one(device, inputs, mode=mode, output_height=2, output_width=5)
    assert y.shape == (0, 3, 2, 5)


@pytest.mark.parametrize("mode", MODES)
def test_no_channels(device, rng, mode):
    inputs = inputs_of(random_map(rng, 2, 0, 6, 7), [[0, 0, 3, 3], [1, 1, 2, 2]])
    assert run_one(device, inputs, mode=mode, output_width=3).shape == (2, 0, 1, 3)
    inputs = {"dY": np.zeros((2, 0, 1, 3), np.float32), **inputs}
    (dx,) = run(device, "RoiAlignGrad", inputs, mode=mode, output_width=3)
    assert dx.shape == (2, 0, 6, 7)


@pytest.mark.parametrize("mode", MODES)
def test_no_cells_and_no_rois(device, mode):
    inputs = inputs_of(np.zeros((2, 3, 0, 7), np.float32), np.zeros((0, 4)))
    assert run_one(device, inputs, mode=mode).shape == (0, 3, 1, 1)
    inputs = {"dY": np.zeros((0, 3, 1, 1), np.float32), **inputs}
    (dx,) = run(device, "RoiAlignGrad", inputs, mode=mode)
    assert dx.shape == (2, 3, 0, 7)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "box",
    [[2, 1, 2, 4], [1, 2, 4, 2], [3, 3, 3, 3], [4, 1, 2, 3], [1, 3, 3, 2], [4, 3, 1, 1]],
    ids=["no width", "no height", "neither", "negative width", "negative height", "both negative"],
)
@pytest.mark.parametrize("type_name", list(ELEMENT_TYPES))
def test_box_without_area_has_no_samples(device, rng, type_name, box, mode):
    x = random_map(rng).astype(ELEMENT_TYPES[type_name])
    # A good box before and after: nothing may leak from one to the next.
    inputs = inputs_of(x, [[0, 0, 5, 5], box, [1, 0, 6, 4]])
    attributes = {"mode": mode, "output_height": 2, "output_width": 3}
    y = run_one(device, inputs, **attributes)
    assert not y[1].any()
    assert_allclose(y, reference_of(inputs, **attributes), *tolerances.KERNEL[type_name])

    gradient = {"dY": np.ones((1, 3, 2, 3)).astype(x.dtype), **inputs_of(x, [box])}
    (dx,) = run(device, "RoiAlignGrad", gradient, **attributes)
    assert not dx.any()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("box", [[2, 1, 2, 4], [4, 1, 2, 3], [4, 3, 1, 1]])
def test_output_half_pixel_makes_a_box_at_least_one_cell_large(device, rng, box, mode):
    x = random_map(rng)
    x1, y1, x2, y2 = box
    grown = [x1, y1, max(x2, x1 + 1), max(y2, y1 + 1)]
    attributes = {"mode": mode, "coordinate_transformation_mode": "output_half_pixel"}
    y = run_one(device, inputs_of(x, [box]), **attributes)
    assert y.all()
    assert_array_equal(y, run_one(device, inputs_of(x, [grown]), **attributes))


@pytest.mark.parametrize("sampling_ratio", [1, 2, 3])
@pytest.mark.parametrize("mirrored", ["x", "y", "both"])
def test_mirrored_box_with_a_fixed_grid_is_torchvisions_mirrored_crop(
    device, rng, mirrored, sampling_ratio
):
    x1, y1, x2, y2 = 0.25, 1.5, 6.125, 4.75
    box = [x1, y1, x2, y2]
    if mirrored != "y":
        box[0], box[2] = x2, x1
    if mirrored != "x":
        box[1], box[3] = y2, y1
    inputs = inputs_of(random_map(rng), [box])
    attributes = {"output_height": 2, "output_width": 3, "sampling_ratio": sampling_ratio}
    y = run_one(device, inputs, **attributes)
    assert_allclose(y, torchvision_roi_align(inputs, **attributes), *tolerances.KERNEL["float32"])
    flipped = {"x": (3,), "y": (2,), "both": (2, 3)}[mirrored]
    for mode in MODES:
        crop = run_one(device, inputs_of(inputs["X"], [[x1, y1, x2, y2]]), mode=mode, **attributes)
        y = run_one(device, inputs, mode=mode, **attributes)
        assert_allclose(y, np.flip(crop, flipped), *tolerances.KERNEL["float32"])


def test_samples_outside_count_as_zero(device):
    # Four samples per axis at -1.5, -0.5, 0.5, 1.5 of a map of ones: the first is outside, so that
    # 3 * 3 of 4 * 4 samples are 1, and the maximum over a map of -1 is that of the others.
    x = np.ones((1, 1, 5, 5), np.float32)
    box = [[-1.5, -1.5, 2.5, 2.5]]
    assert run_one(device, inputs_of(x, box), sampling_ratio=4).item() == 9 / 16
    assert run_one(device, inputs_of(-x, box), sampling_ratio=4, mode="max").item() == 0


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_boxes_partly_and_wholly_outside(device, rng, mode, sampling_ratio):
    boxes = [
        *([-4, -3, 3, 2], [4, 3, 11, 9], [-4, 2, 20, 3], [3, -9, 5, 15]),
        *([-9, -9, -2, -2], [8, 0, 12, 5], [0, 7.5, 5, 12], [-30, 1, -20, 3]),
    ]
    inputs = inputs_of(random_map(rng), boxes)
    attributes = {"output_height": 3, "output_width": 2, "sampling_ratio": sampling_ratio}
    y = run_one(device, inputs, mode=mode, **attributes)
    expected = reference_of(inputs, mode=mode, **attributes)
    assert_allclose(y, expected, *tolerances.KERNEL["float32"])
    assert not y[-4:].any()
    assert y[:4].any(axis=(1, 2, 3)).all()
    if mode == "avg":
        expected = torchvision_roi_align(inputs, **attributes)
        assert_allclose(y, expected, *tolerances.KERNEL["float32"])


@pytest.mark.parametrize(
    ("coordinate", "value"),
    # The map is 1 2 4 8; a single sample lies half a cell before the coordinate.
    [
        (-0.5, 1),  # sample at -1: still inside, clamped to the first cell
        (-0.5 - 2**-23, 0),  # sample at the next float32 below -1
        (0.25, 1),  # clamped
        (1.75, 2.5),  # a quarter of the way from 2 to 4
        (3.0, 6),  # half-way from 4 to 8
        (3.5, 8),  # the last cell's centre
        (4.25, 8),  # past the last centre, still inside
        (4.5, 8),  # sample at the extent: inside
        (4.5 + 2**-21, 0),
    ],
)
@pytest.mark.parametrize("mode", MODES)
def test_borders_of_the_map(device, coordinate, value, mode):
    row = np.array([1, 2, 4, 8], np.float32)
    attributes = {"mode": mode, "sampling_ratio": 1}
    across = inputs_of(row.reshape(1, 1, 1, 4), [[coordinate, 0.5, coordinate, 0.5]])
    assert run_one(device, across, **attributes).item() == value
    down = inputs_of(row.reshape(1, 1, 4, 1), [[0.5, coordinate, 0.5, coordinate]])
    assert run_one(device, down, **attributes).item() == value


@pytest.mark.parametrize(
    ("type_name", "value"), [("float32", 1), ("float16", 1), ("bfloat16", 1), ("float64", 0)]
)
def test_type_of_the_coordinates(device, type_name, value):
    # The scale 0.1 is the float32 0.100000001490..., times 105 is 10.5 in float32 but 10.50000016
    # in float64: the sample is at 10, on the border of the map, or just outside it.
    inputs = inputs_of(np.ones((1, 1, 10, 10), ELEMENT_TYPES[type_name]), [[105, 5, 105, 5]])
    assert run_one(device, inputs, sampling_ratio=1, spatial_scale=0.1).item() == value


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("type_name", ["float32", "float64"])
@pytest.mark.parametrize(
    "box",
    [
        *([-1.5e9, -1.5e9, 1.5e9, 1.5e9], [0, 0, 1e9, 1e9], [-1e9, 2, 5, 4], [2, -1e9, 3, 1e9]),
        *([-1e12, -1e12, 1e12, 1e12], [-1e30, -1e30, 1e30, 1e30], [-3e38, -3e38, 3e38, 3e38]),
    ],
)
def test_huge_boxes_take_no_longer_than_the_map(device, rng, type_name, box, mode):
    # Up to 1e18 samples a bin: this ends only if those outside are never visited.
    x = random_map(rng, dtype=ELEMENT_TYPES[type_name])
    inputs = inputs_of(x, [box])
    attributes = {"mode": mode, "output_height": 3, "output_width": 3}
    for scale in (1.0, 0.25):
        y = run_one(device, inputs, spatial_scale=scale, **attributes)
        expected = reference_of(inputs, spatial_scale=scale, **attributes)
        # An average is tiny, so compare the sums.
        factor = 1 if mode == "max" else 1 / max(np.abs(expected).max(), np.finfo(np.float32).tiny)
        assert_allclose(y * factor, expected * factor, *tolerances.KERNEL[type_name])

    dy = rng.standard_normal(y.shape).astype(x.dtype)
    (dx,) = run(device, "RoiAlignGrad", {"dY": dy, **inputs}, **attributes)
    expected = roi_align_grad(dy, x, inputs["rois"], [0], **attributes)
    factor = 1 if mode == "max" else 1 / max(np.abs(expected).max(), np.finfo(np.float32).tiny)
    assert_allclose(dx * factor, expected * factor, *tolerances.GRADIENT[type_name])


@pytest.mark.parametrize("mode", MODES)
def test_coordinates_that_overflow_are_outside(device, rng, mode):
    inputs = inputs_of(random_map(rng), [[-3e38, -3e38, 3e38, 3e38], [3e38, 0, 3.2e38, 5]])
    for sampling_ratio in (0, 2):
        y = run_one(device, inputs, mode=mode, sampling_ratio=sampling_ratio, spatial_scale=2.0)
        assert not y.any()


@pytest.mark.parametrize("mode", MODES)
def test_more_samples_than_cells(device, rng, mode):
    inputs = inputs_of(random_map(rng), [[1, 1, 5.5, 4.25], [-3, -2, 9, 8]])
    attributes = {"mode": mode, "sampling_ratio": 57, "output_width": 2}
    y = run_one(device, inputs, **attributes)
    assert_allclose(y, reference_of(inputs, **attributes), *tolerances.KERNEL["float32"])


@pytest.mark.parametrize("mode", MODES)
def test_more_bins_than_cells(device, rng, mode):
    inputs = inputs_of(random_map(rng, 1, 2, 2, 3), [[0.25, 0.5, 2.75, 1.75]])
    attributes = {"mode": mode, "output_height": 33, "output_width": 20}
    y = run_one(device, inputs, **attributes)
    assert_allclose(y, reference_of(inputs, **attributes), *tolerances.KERNEL["float32"])


@pytest.mark.parametrize("value", [65504.0, -65504.0, 2.0**-24, -(2.0**-24)])
@pytest.mark.parametrize("mode", MODES)
def test_float16_at_the_ends_of_its_range(device, mode, value):
    # A sum of four of the largest overflows in float16; a weight of the smallest underflows.
    inputs = inputs_of(np.full((1, 2, 6, 7), value, np.float16), [[1, 1, 5, 5]])
    y = run_one(device, inputs, mode=mode, output_height=2, output_width=2, sampling_ratio=2)
    assert_array_equal(y, np.full((1, 2, 2, 2), value, np.float16))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("type_name", "unit"),
    # The second unit of a type is its smallest number, so that results are subnormal.
    [("float16", 1.0), ("float16", 2.0**-24), ("bfloat16", 1.0), ("bfloat16", 2.0**-133)],
)
def test_half_types_are_rounded_to_nearest_even(device, rng, type_name, unit, mode):
    # Small integers and coordinates in eighths: float32 sums them without rounding, so what is
    # left is the one rounding of the result, ties included.
    x = rng.integers(-2000, 2000, (1, 4, 9, 9)) * unit
    boxes = rng.integers(0, 64, (50, 2)) / 8 + 0.5
    inputs = inputs_of(x.astype(ELEMENT_TYPES[type_name]), np.tile(boxes, 2))
    inputs["rois"] = inputs["rois"].astype(np.float32)
    attributes = {"mode": mode, "sampling_ratio": 1}
    exact = reference_of(inputs, **attributes)
    expected = exact.astype(ELEMENT_TYPES[type_name])
    assert (expected != exact).any()
    assert_array_equal(run_one(device, inputs, **attributes), expected.astype(np.float64))


def scattered(rng: np.random.Generator, value: float, type_name: str) -> Any:
    """A map with a few cells of a value that is not finite."""
    x = random_map(rng, 1, 5, 9, 9)
    x[rng.random(x.shape) < 0.03] = value
    x[0, :, 8, 8] = value  # past the last centre both neighbours are this cell
    return x.astype(ELEMENT_TYPES[type_name])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("sampling_ratio", [0, 1, 2])
def test_values_that_are_not_finite_stay_within_torchvisions(device, rng, value, sampling_ratio):
    inputs = inputs_of(scattered(rng, value, "float32"), rng.integers(-2, 11, (60, 4)))
    inputs["rois"][:, 2:] += inputs["rois"][:, :2] + 2
    attributes = {"output_height": 3, "output_width": 3, "sampling_ratio": sampling_ratio}
    ours = run_one(device, inputs, **attributes)
    theirs = torchvision_roi_align(inputs, **attributes)
    finite = np.isfinite(theirs)
    assert 0.2 < finite.mean() < 0.98
    # Where theirs is finite, so is ours, and the same.
    assert_allclose(ours[finite], theirs[finite], *tolerances.KERNEL["float32"])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("type_name", list(ELEMENT_TYPES))
def test_values_that_are_not_finite_are_the_references(device, rng, type_name, mode, value):
    inputs = inputs_of(scattered(rng, value, type_name), rng.uniform(-2, 9, (30, 4)))
    inputs["rois"][:, 2:] += 2
    attributes = {"mode": mode, "output_height": 3, "output_width": 3, "sampling_ratio": 2}
    expected = reference_of(inputs, **attributes)
    assert 0.02 < np.isfinite(expected).mean() < 0.98
    y = run_one(device, inputs, **attributes).astype(np.float64)
    assert_allclose(y, expected, *tolerances.KERNEL[type_name])


@pytest.mark.parametrize("type_name", list(ELEMENT_TYPES))
def test_not_a_number_wins_the_maximum_wherever_it_is(device, rng, type_name):
    x = random_map(rng, 1, 16, 4, 4)
    x.reshape(16, 16)[np.diag_indices(16)] = np.nan  # channel k has it in cell k
    inputs = inputs_of(x.astype(ELEMENT_TYPES[type_name]), [[0, 0, 4, 4], [-9, -9, 9, 9]])
    assert np.isnan(run_one(device, inputs, mode="max")).all()
