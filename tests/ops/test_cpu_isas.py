"""RoiAlign's CPU kernels, each instruction set and each path forced, against the reference.

Shapes lie around the kernels' own sizes: lanes of a vector, blocks of channels, lines of cells, and
the bins that wait in a buffer before they are written.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import tolerances
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from plugin import ELEMENT_TYPES, Device, forced_kernels, random_inputs, random_rois, run

import ort_roialign
from ort_roialign.reference import roi_align

MODES = ("avg", "max")

# Not a power of two, so that scaled coordinates are rounded.
SCALE = 0.3

VECTOR_BYTES = {"baseline": 16, "avx2": 32, "avx512": 64}

CHANNELS = {
    "1": lambda lanes: 1,
    "lanes - 1": lambda lanes: lanes - 1,
    "lanes": lambda lanes: lanes,
    "lanes + 1": lambda lanes: lanes + 1,
    "2 lanes": lambda lanes: 2 * lanes,
    "2 lanes + 1": lambda lanes: 2 * lanes + 1,
    "8 lanes + 2": lambda lanes: 8 * lanes + 2,
}
MOST_CHANNELS = 8 * 16 + 2


def lanes_of(isa: str, type_name: str) -> int:
    """Numbers in one vector; halves are computed in float32."""
    return VECTOR_BYTES[isa] // (8 if type_name == "float64" else 4)


def run_forced(
    isa: str, path: str, device: Device, inputs: Any, *, some_plain: bool = False, **attributes: Any
) -> Any:
    with forced_kernels(isa, path, some_plain=some_plain):
        (y,) = run(device, "RoiAlign", inputs, **attributes)
    return y


def seeded(*key: str) -> np.random.Generator:
    """Random numbers that depend on the problem alone, which all kernels share."""
    return np.random.default_rng([ord(letter) for letter in "".join(key)])


def with_reference(inputs: Any, **attributes: Any) -> tuple[Any, Any, Any]:
    expected = roi_align(inputs["X"], inputs["rois"], inputs["batch_indices"], **attributes)
    return inputs, attributes, expected


@cache
def problem_of_many_channels(type_name: str, mode: str) -> tuple[Any, Any, Any]:
    """Inputs, attributes and the reference's result, of the most channels that a test needs."""
    rng = seeded(type_name, mode)
    inputs = random_inputs(rng, type_name, channels=MOST_CHANNELS, spatial_scale=SCALE)
    return with_reference(inputs, mode=mode, output_height=3, output_width=4, spatial_scale=SCALE)


@pytest.mark.parametrize("channels", list(CHANNELS))
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("type_name", list(ELEMENT_TYPES))
def test_channels_around_lanes_and_blocks(cpu_device, isa, path, type_name, mode, channels):
    count = CHANNELS[channels](lanes_of(isa, type_name))
    inputs, attributes, expected = problem_of_many_channels(type_name, mode)
    inputs = inputs | {"X": np.ascontiguousarray(inputs["X"][:, :count])}
    y = run_forced(isa, path, cpu_device, inputs, **attributes)
    assert_allclose(y, expected[:, :count], *tolerances.KERNEL[type_name])


def boxes_of_all_kinds(rng: np.random.Generator, height: int, width: int, scale: float) -> Any:
    """Boxes inside, outside and across every border, mirrored, empty and huge, and random ones."""
    h, w = height, width
    in_cells = [
        [0, 0, w, h],
        [-3, -2, w + 4, h + 3],
        [w - 1.25, h - 1.5, w + 2, h + 2],  # across the last row and column
        [-2.5, -1.75, 0.5, 0.75],  # across the first ones
        [w + 2, 0, w + 5, h],  # outside, on each side
        [-9, 0, -3, h],
        [0, h + 2, w, h + 4],
        [0, -9, w, -3],
        [0.8 * w, 0.9 * h, 0.1 * w, 0.2 * h],  # mirrored
        [0.8 * w, 0.1 * h, -3, 0.9 * h],
        [w / 2, h / 3, w / 2, h / 3],  # of no size
        [w / 3, 0, w / 3, h],
        [-1e6, -1e6, 1e6, 1e6],
        [0, -1e30, w, 1e30],
    ]
    inside = random_rois(rng, 5, image_width=width, image_height=height, dtype=np.float64)
    return np.concatenate([np.array(in_cells), inside]) / scale


HALF, OUTPUT_HALF = "half_pixel", "output_half_pixel"

# Channels, height and width of the map, height and width in bins, sampling ratio.
SHAPES = {
    "one cell, one bin": (35, (1, 1), (1, 1), 0, HALF),
    "one row": (35, (1, 17), (1, 7), 2, HALF),
    "one column": (35, (9, 1), (7, 1), 3, OUTPUT_HALF),
    "width below every vector": (35, (4, 3), (3, 5), 0, OUTPUT_HALF),
    "width below some vectors": (35, (5, 7), (7, 7), 2, OUTPUT_HALF),
    "width of a line less one": (35, (6, 15), (3, 5), 5, HALF),
    "width of a line": (35, (6, 16), (1, 7), 1, OUTPUT_HALF),
    "width of a line and one": (35, (13, 17), (7, 7), 0, HALF),
    "width of two lines and one": (35, (20, 33), (14, 14), 2, HALF),
    "two taps a bin": (35, (9, 33), (7, 7), 1, HALF),
    "many taps a bin": (35, (30, 47), (2, 3), 0, OUTPUT_HALF),
    "one channel": (1, (9, 33), (14, 14), 0, HALF),
    "two channels of a narrow map": (2, (5, 3), (3, 5), 2, HALF),
    "two channels of a map of a line and one": (2, (11, 17), (2, 17), 1, OUTPUT_HALF),
    "three channels of many taps a bin": (3, (7, 90), (2, 3), 0, HALF),
    "three channels of many bins": (3, (7, 41), (2, 131), 2, HALF),
    "bins beyond the buffer": (35, (21, 17), (17, 16), 1, HALF),
    "one bin beyond the buffer": (35, (3, 17), (257, 1), 1, HALF),
    "one bin beyond the buffer of narrow blocks": (5, (12, 40), (19, 27), 2, OUTPUT_HALF),
}


@cache
def problem_of_shape(type_name: str, mode: str, shape: str) -> tuple[Any, Any, Any]:
    channels, (height, width), (bins_y, bins_x), sampling_ratio, transformation = SHAPES[shape]
    rng = seeded(type_name, mode, shape)
    num_images = 3
    # Boxes this large are beyond float16.
    box_type = np.float64 if type_name == "float64" else np.float32
    boxes = boxes_of_all_kinds(rng, height, width, SCALE).astype(box_type)
    if bins_y * bins_x > 100:
        boxes = boxes[::3]  # some of each kind, as the reference is slow
    inputs = {
        "X": rng.standard_normal((num_images, channels, height, width)).astype(
            ELEMENT_TYPES[type_name]
        ),
        "rois": boxes,
        "batch_indices": rng.integers(0, num_images, len(boxes)),
    }
    return with_reference(
        inputs,
        mode=mode,
        output_height=bins_y,
        output_width=bins_x,
        sampling_ratio=sampling_ratio,
        spatial_scale=SCALE,
        coordinate_transformation_mode=transformation,
    )


@pytest.mark.parametrize("shape", list(SHAPES))
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("type_name", list(ELEMENT_TYPES))
def test_shapes_and_boxes_of_all_kinds(cpu_device, isa, path, type_name, mode, shape):
    inputs, attributes, expected = problem_of_shape(type_name, mode, shape)
    # Far from zero coordinates are so coarse that many samples of a huge box fall on one point.
    y = run_forced(isa, path, cpu_device, inputs, some_plain=True, **attributes)
    assert_allclose(y, expected, *tolerances.KERNEL[type_name])


@st.composite
def problems(draw: st.DrawFn) -> dict[str, Any]:
    """Inputs of any shape up to some blocks and lines, with boxes of any kind."""
    num_images, num_rois = draw(st.integers(1, 3)), draw(st.integers(1, 6))
    shape = (num_images, *(draw(st.integers(1, most)) for most in (70, 24, 40)))
    type_name = draw(st.sampled_from(list(ELEMENT_TYPES)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    coordinates = st.floats(-60, 60, width=16)
    boxes = [[draw(coordinates) for _ in range(4)] for _ in range(num_rois)]
    return {
        "X": rng.standard_normal(shape).astype(ELEMENT_TYPES[type_name]),
        "rois": np.array(boxes).astype(ELEMENT_TYPES[type_name]),
        "batch_indices": rng.integers(0, num_images, num_rois),
    }


attribute_sets = st.fixed_dictionaries(
    {
        "mode": st.sampled_from(MODES),
        "output_height": st.integers(1, 20),
        "output_width": st.integers(1, 20),
        "sampling_ratio": st.integers(0, 5),
        "spatial_scale": st.sampled_from([0.0625, 0.1, 0.5, 1.0, 1.7]),
        "coordinate_transformation_mode": st.sampled_from([HALF, OUTPUT_HALF]),
    }
)


@settings(
    max_examples=120,
    deadline=None,
    # The device is the same for all examples of a test.
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(problems(), attribute_sets, st.data())
def test_all_paths_agree(cpu_device, inputs, attributes, data):
    isa = data.draw(st.sampled_from(ort_roialign.build_info()["cpu_isas"]))
    plain, packed, direct = (
        run_forced(isa, path, cpu_device, inputs, **attributes)
        for path in ("plain", "packed", "direct")
    )
    type_name = inputs["X"].dtype.name
    assert_allclose(packed, plain, *tolerances.KERNEL[type_name])
    assert_allclose(direct, plain, *tolerances.KERNEL[type_name])
