"""RoiAlign against the reference, torchvision, onnxruntime and numbers derived by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tolerances
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from peers import onnxruntime_roi_align, torchvision_roi_align
from plugin import ELEMENT_TYPES, Device, random_inputs, run

from ort_roialign.reference import roi_align

MODES = ("avg", "max")
TRANSFORMATIONS = ("half_pixel", "output_half_pixel")

# Not a power of two, so that scaled coordinates are rounded.
SCALE = 0.3


def bins_3_by_4(**attributes: Any) -> dict[str, Any]:
    """Attributes whose height and width differ, so that a swap shows."""
    return {"output_height": 3, "output_width": 4, "spatial_scale": SCALE, **attributes}


def run_one(device: Device, inputs: Any, **attributes: Any) -> Any:
    (y,) = run(device, "RoiAlign", inputs, **attributes)
    return y


def check_against_reference(device: Device, type_name: str, inputs: Any, **attributes: Any) -> None:
    y = run_one(device, inputs, **attributes)
    expected = roi_align(inputs["X"], inputs["rois"], inputs["batch_indices"], **attributes)
    assert_allclose(y, expected, *tolerances.KERNEL[type_name])


@pytest.mark.parametrize("sampling_ratio", [0, 1, 2, 3])
@pytest.mark.parametrize("transformation", TRANSFORMATIONS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("type_name", list(ELEMENT_TYPES))
def test_equals_the_reference(device, rng, type_name, mode, transformation, sampling_ratio):
    inputs = random_inputs(rng, type_name, spatial_scale=SCALE)
    attributes = bins_3_by_4(
        mode=mode,
        sampling_ratio=sampling_ratio,
        coordinate_transformation_mode=transformation,
    )
    y = run_one(device, inputs, **attributes)
    assert y.shape == (8, 3, 3, 4)
    assert np.abs(y.astype(np.float64)).max() > 0.5
    check_against_reference(device, type_name, inputs, **attributes)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("type_name", ["float16", "bfloat16"])
def test_float32_boxes_beside_half_maps(device, rng, type_name, mode):
    # Boxes this far out have no fractions in float16: read as such they would miss.
    inputs = random_inputs(rng, type_name, rois_type="float32", spatial_scale=1 / 256)
    attributes = bins_3_by_4(mode=mode) | {"spatial_scale": 1 / 256}
    check_against_reference(device, type_name, inputs, **attributes)
    rounded = inputs | {"rois": inputs["rois"].astype(ELEMENT_TYPES[type_name])}
    assert (run_one(device, rounded, **attributes) != run_one(device, inputs, **attributes)).any()


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33])
@pytest.mark.parametrize("mode", MODES)
def test_number_of_channels(device, rng, mode, channels):
    inputs = random_inputs(rng, "float32", channels=channels, num_rois=5, spatial_scale=SCALE)
    check_against_reference(device, "float32", inputs, **bins_3_by_4(mode=mode))


@pytest.mark.parametrize("type_name", list(ELEMENT_TYPES))
def test_more_channels_than_a_vector_holds(device, rng, type_name):
    inputs = random_inputs(rng, type_name, channels=33, num_rois=4, spatial_scale=SCALE)
    check_against_reference(device, type_name, inputs, **bins_3_by_4())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("map_size", "bins"),
    [((1, 1), (1, 1)), ((1, 17), (2, 5)), ((19, 1), (7, 1)), ((40, 3), (1, 6)), ((5, 31), (14, 2))],
)
def test_shapes_of_maps_and_bins(device, rng, mode, map_size, bins):
    height, width = map_size
    inputs = random_inputs(rng, "float32", height=height, width=width, spatial_scale=SCALE)
    attributes = {"output_height": bins[0], "output_width": bins[1], "spatial_scale": SCALE}
    check_against_reference(device, "float32", inputs, mode=mode, **attributes)


@pytest.mark.parametrize("mode", MODES)
def test_images_in_any_order_and_unused_ones(device, rng, mode):
    inputs = random_inputs(rng, "float32", num_images=5, num_rois=7, spatial_scale=SCALE)
    inputs["batch_indices"] = np.array([4, 0, 0, 2, 4, 0, 2])
    check_against_reference(device, "float32", inputs, **bins_3_by_4(mode=mode))


def test_attributes_have_the_defaults_of_onnx(device, rng):
    inputs = random_inputs(rng, "float32", spatial_scale=1.0)
    defaults = {
        "mode": "avg",
        "output_height": 1,
        "output_width": 1,
        "sampling_ratio": 0,
        "spatial_scale": 1.0,
        "coordinate_transformation_mode": "half_pixel",
    }
    assert_array_equal(run_one(device, inputs), run_one(device, inputs, **defaults))
    check_against_reference(device, "float32", inputs)


@pytest.mark.parametrize("sampling_ratio", [0, 1, 2, 3])
@pytest.mark.parametrize("transformation", TRANSFORMATIONS)
@pytest.mark.parametrize("type_name", ["float32", "float64"])
@pytest.mark.parametrize("peer", [torchvision_roi_align, onnxruntime_roi_align])
def test_average_equals_the_peers(device, rng, peer, type_name, transformation, sampling_ratio):
    inputs = random_inputs(rng, type_name, num_rois=20, spatial_scale=SCALE)
    attributes = bins_3_by_4(
        sampling_ratio=sampling_ratio, coordinate_transformation_mode=transformation
    )
    y = run_one(device, inputs, **attributes)
    assert_allclose(y, peer(inputs, **attributes), *tolerances.KERNEL[type_name])


@pytest.mark.parametrize(
    ("mode", "first_row"),
    [
        # The box of no size at (7, 5) is at (0.4375, 0.3125) on the map and is made one cell
        # large, so that a bin is 1/3 cell high and 1/4 wide. The value at (x, y) is 5y + x. The
        # average is that of the bin's centre, 5 * (0.3125 + 1/6) + 0.4375 + 1/8 = 71/24, and 1/4
        # more from bin to bin; the maximum is that of the lower right of the four samples,
        # 5 * (0.3125 + 1/4) + 0.4375 + 3/16 = 3.4375.
        ("avg", [71 / 24, 77 / 24, 83 / 24, 89 / 24]),
        ("max", [3.4375, 3.6875, 3.9375, 4.1875]),
    ],
)
@pytest.mark.parametrize("type_name", list(ELEMENT_TYPES))
def test_box_without_size_derived_by_hand(device, type_name, mode, first_row):
    inputs = {
        "X": np.arange(75).reshape(1, 3, 5, 5).astype(ELEMENT_TYPES[type_name]),
        "rois": np.array([[7, 5, 7, 5]]).astype(ELEMENT_TYPES[type_name]),
        "batch_indices": np.array([0]),
    }
    y = run_one(
        device,
        inputs,
        mode=mode,
        output_height=3,
        output_width=4,
        sampling_ratio=2,
        spatial_scale=1 / 16,
        coordinate_transformation_mode="output_half_pixel",
    )
    # A bin further down is 5/3 more, a channel further 25 more.
    for channel, row in np.ndindex(3, 3):
        expected = np.add(first_row, 25 * channel + row * 5 / 3)
        assert_allclose(y[0, channel, row], expected, *tolerances.KERNEL[type_name])


@pytest.mark.parametrize(
    ("transformation", "first"),
    # One sample in each bin of half a cell, at 1.25, 1.75, 2.25 and 2.75, or half a cell less: the
    # value at (x, y) is 5y + x, so 6 * 1.25 = 7.5 in the first bin, or 6 * 0.75 = 4.5.
    [("output_half_pixel", 7.5), ("half_pixel", 4.5)],
)
@pytest.mark.parametrize("mode", MODES)
def test_adaptive_grid_derived_by_hand(device, mode, transformation, first):
    inputs = {
        "X": np.arange(25, dtype=np.float32).reshape(1, 1, 5, 5),
        "rois": np.array([[1, 1, 3, 3]], np.float32),
        "batch_indices": np.array([0]),
    }
    y = run_one(
        device,
        inputs,
        mode=mode,
        output_height=4,
        output_width=4,
        coordinate_transformation_mode=transformation,
    )
    bins = np.arange(4)
    assert_array_equal(y[0, 0], first + 2.5 * bins[:, np.newaxis] + 0.5 * bins)


@pytest.mark.parametrize("type_name", list(ELEMENT_TYPES))
def test_two_by_two_map_derived_by_hand(device, type_name):
    # Samples at -0.375, -0.125, 0.125 and 0.375 on each axis; those below 0 are clamped to 0, so a
    # bin's mean coordinate is 0 or 0.25, and the value at (x, y) is 1 + x + 2y.
    inputs = {
        "X": np.array([[[[1, 2], [3, 4]]]]).astype(ELEMENT_TYPES[type_name]),
        "rois": np.array([[0, 0, 1, 1]]).astype(ELEMENT_TYPES[type_name]),
        "batch_indices": np.array([0]),
    }
    y = run_one(device, inputs, output_height=2, output_width=2, sampling_ratio=2)
    assert_array_equal(y, [[[[1, 1.25], [1.5, 1.75]]]])


few_examples = settings(
    max_examples=30,
    deadline=None,
    # The device is the same for all examples of a test.
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
coordinates = st.floats(-60, 60, width=16)
attribute_sets = st.fixed_dictionaries(
    {
        "output_height": st.integers(1, 4),
        "output_width": st.integers(1, 4),
        "sampling_ratio": st.integers(0, 4),
        "spatial_scale": st.sampled_from([0.0625, 0.1, 0.5, 1.0, 1.7]),
        "coordinate_transformation_mode": st.sampled_from(TRANSFORMATIONS),
    }
)


@st.composite
def problems(draw: st.DrawFn) -> dict[str, Any]:
    """Inputs of any small shape, with boxes of any kind: inside, outside, mirrored, empty."""
    num_images, num_rois = draw(st.integers(1, 3)), draw(st.integers(0, 4))
    shape = (num_images, *(draw(st.integers(1, most)) for most in (6, 8, 8)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    boxes = [[draw(coordinates) for _ in range(4)] for _ in range(num_rois)]
    return {
        "X": rng.standard_normal(shape),
        "rois": np.array(boxes).reshape(num_rois, 4),
        "batch_indices": rng.integers(0, num_images, num_rois),
    }


@few_examples
@given(problems(), attribute_sets, st.sampled_from(MODES), st.sampled_from(["float32", "float64"]))
def test_any_problem_equals_the_reference(device, inputs, attributes, mode, type_name):
    for name in ("X", "rois"):
        inputs[name] = inputs[name].astype(ELEMENT_TYPES[type_name])
    check_against_reference(device, type_name, inputs, mode=mode, **attributes)


@few_examples
@given(
    st.lists(st.floats(0, 40, width=16), min_size=4, max_size=4), attribute_sets,
    st.sampled_from(MODES)
)  # fmt: skip
def test_constant_map_gives_the_constant(device, corners, attributes, mode):
    # All samples are on the map: the box lies inside it, and is at least one cell wide and high.
    attributes["spatial_scale"] = 0.5
    (x1, x2), (y1, y2) = sorted(corners[:2]), sorted(corners[2:])
    inputs = {
        "X": np.full((1, 2, 23, 23), -3.5, np.float32),
        "rois": np.array([[x1, y1, x2 + 2, y2 + 2]], np.float32),
        "batch_indices": np.array([0]),
    }
    y = run_one(device, inputs, mode=mode, **attributes)
    assert_allclose(y, -3.5, *tolerances.KERNEL["float32"])


@few_examples
@given(problems(), attribute_sets, st.floats(-4, 4), st.floats(-4, 4))
def test_average_is_linear_in_the_map(device, inputs, attributes, first, second):
    maps = [inputs["X"], np.sin(7 * inputs["X"])]
    results = [run_one(device, inputs | {"X": x}, **attributes) for x in maps]
    together = inputs | {"X": first * maps[0] + second * maps[1]}
    expected = first * results[0] + second * results[1]
    assert_allclose(
        run_one(device, together, **attributes), expected, *tolerances.KERNEL["float64"]
    )
