"""RoiAlign's CPU kernels bit by bit: any number of threads, and the rounding to the half types.

Where float32 computes a result without rounding, or with one rounding whichever way it adds, the
bits of the half types are those that NumPy rounds it to, for every instruction set and path.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from plugin import ELEMENT_TYPES, Device, forced_kernels, random_inputs, run

from ort_roialign.reference import roi_align

MODES = ("avg", "max")
HALF_TYPES = ("float16", "bfloat16")


def run_forced(isa: str, path: str, device: Device, inputs: Any, **attributes: Any) -> Any:
    with forced_kernels(isa, path):
        (y,) = run(device, "RoiAlign", inputs, **attributes)
    return y


def check_threads(isa: str, path: str, device: Device, inputs: Any, **attributes: Any) -> None:
    one, *others = (
        run_forced(isa, path, device, inputs, threads=threads, **attributes)
        for threads in (1, 2, 3, 4)
    )
    assert np.abs(one.astype(np.float64)).max() > 0.5
    for other in others:
        assert_array_equal(other, one)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("type_name", ["float32", "float64", "float16"])
def test_threads_do_not_change_a_bit(cpu_device, rng, isa, path, type_name, mode):
    # Some tasks of each kind, for each of some blocks of channels of either image.
    inputs = random_inputs(
        rng, type_name, num_images=2, channels=70, height=60, width=60, num_rois=80
    )
    size = {"output_height": 5, "output_width": 7, "spatial_scale": 0.25}
    check_threads(isa, path, cpu_device, inputs, mode=mode, **size)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("type_name", ["float32", "float64", "float16"])
def test_threads_do_not_change_a_bit_of_few_channels(cpu_device, rng, isa, path, type_name, mode):
    inputs = random_inputs(rng, type_name, channels=3, height=60, width=60, num_rois=500)
    size = {"output_height": 5, "output_width": 7, "spatial_scale": 0.25}
    check_threads(isa, path, cpu_device, inputs, mode=mode, **size)


def test_threads_do_not_change_a_bit_of_the_plain_path(cpu_device, rng, isa):
    inputs = random_inputs(rng, "float32", channels=70, height=60, width=60, num_rois=50)
    size = {"output_height": 5, "output_width": 7, "spatial_scale": 0.25}
    check_threads(isa, "plain", cpu_device, inputs, **size)


@pytest.mark.parametrize("type_name", ["float32", "float16"])
def test_threads_do_not_change_a_bit_of_a_large_problem(cpu_device, rng, isa, path, type_name):
    # More map than is repacked at a time, and more output than is kept in the caches.
    inputs = random_inputs(
        rng, type_name, num_images=3, channels=70, height=120, width=130, num_rois=170
    )
    size = {"output_height": 14, "output_width": 14, "spatial_scale": 0.25, "sampling_ratio": 2}
    check_threads(isa, path, cpu_device, inputs, **size)


def test_threads_do_not_change_a_bit_where_they_share_blocks(cpu_device, rng, isa):
    # Four narrow blocks, of which memory allows two at a time, because boxes read all of the map
    # and a block's cells are of twice the map's bytes: a third thread has none of its own.
    size = 300
    inputs = random_inputs(
        rng,
        "float16",
        rois_type="float32",
        num_images=1,
        channels=64,
        height=size,
        width=size,
        num_rois=100,
        spatial_scale=1.0,
    )
    left, top = np.meshgrid(np.arange(0, size, 60), np.arange(0, size, 60))
    corner = np.stack([left, top], axis=-1).reshape(-1, 2)
    inputs["rois"][: len(corner)] = np.concatenate([corner, corner + 60], axis=1)
    attributes = {"output_height": 7, "output_width": 7}
    check_threads(isa, "packed", cpu_device, inputs, **attributes)


def as_half(bits: Any, type_name: str) -> Any:
    return bits.astype(np.uint16).view(ELEMENT_TYPES[type_name])


def check_bits(y: Any, expected: Any, type_name: str) -> None:
    """Compares all bits but those of a NaN, which need only be one, and the sign of a zero."""
    bits = y.astype(ELEMENT_TYPES[type_name]).view(np.uint16)  # bfloat16 comes back as float32
    infinity = np.array(np.inf, ELEMENT_TYPES[type_name]).view(np.uint16)
    magnitude, expected_bits = bits & 0x7FFF, expected.view(np.uint16)
    is_nan, is_zero = (expected_bits & 0x7FFF) > infinity, (expected_bits & 0x7FFF) == 0
    assert (magnitude[is_nan] > infinity).all()
    assert not magnitude[is_zero].any()
    number = ~is_nan & ~is_zero
    assert_array_equal(bits[number], expected_bits[number])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("type_name", HALF_TYPES)
def test_every_half_number_is_copied(cpu_device, isa, path, type_name, mode):
    # Each is the only cell of a channel of its own. A maximum has an infinite cell's neighbours
    # too, at the weight 0, which is NaN.
    numbers = as_half(np.arange(2**16), type_name)
    inputs = {
        "X": numbers.reshape(1, 2**16, 1, 1),
        "rois": np.array([[0, 0, 1, 1]], np.float32),
        "batch_indices": np.array([0]),
    }
    y = run_forced(isa, path, cpu_device, inputs, mode=mode).reshape(-1)
    expected = numbers.copy()
    if mode == "max":
        infinity = np.array(np.inf, numbers.dtype).view(np.uint16)
        expected[(np.arange(2**16) & 0x7FFF) == infinity] = np.nan
    check_bits(y, expected, type_name)


def pairs_of_halves(rng: np.random.Generator, type_name: str) -> Any:
    """Finite numbers [n, 2] of all sizes: any two, two close ones, and two with a tie between."""
    info = ml_dtypes.finfo(ELEMENT_TYPES[type_name])
    largest = int(np.array(info.max, ELEMENT_TYPES[type_name]).view(np.uint16))
    first = rng.integers(0, largest, 12000)
    second = rng.integers(0, largest, 12000)
    second[4000:8000] = np.clip(first[4000:8000] + rng.integers(-4000, 4000, 4000), 0, largest)
    second[8000:] = first[8000:] + 1
    # Subnormal numbers, and the largest ones.
    first[:300], second[:300] = rng.integers(0, 2 ** (info.nmant + 1), (2, 300))
    first[300:310], second[300:310] = largest, largest - np.arange(10)
    signs = rng.integers(0, 2, (12000, 2)) << 15
    return as_half(np.stack([first, second], axis=1) | signs, type_name)


@pytest.mark.parametrize("fraction", [0.25, 0.5])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("type_name", HALF_TYPES)
def test_results_are_rounded_to_nearest_even(cpu_device, rng, isa, path, type_name, mode, fraction):
    # One sample between two cells. Its two products are exact in float32, so there is one rounding
    # in their sum, fused or not, and one to the half type.
    pairs = pairs_of_halves(rng, type_name)
    inputs = {
        "X": pairs.reshape(1, -1, 1, 2),
        "rois": np.array([[fraction, 0, fraction + 1, 1]], np.float32),
        "batch_indices": np.array([0]),
    }
    y = run_forced(isa, path, cpu_device, inputs, mode=mode, sampling_ratio=1).reshape(-1)
    first, second = pairs.astype(np.float32).T
    sums = np.float32(1 - fraction) * first + np.float32(fraction) * second
    expected = sums.astype(pairs.dtype)
    assert (expected.astype(np.float32) != sums).mean() > 0.3
    check_bits(y, expected, type_name)


@cache
def problem_of_many_bins(type_name: str, mode: str) -> tuple[Any, Any, Any]:
    """Inputs, attributes and the reference's result.

    Small integers at coordinates in halves: float32 sums them without rounding. All lanes of blocks
    and of the last piece of a row of bins take part.
    """
    rng = np.random.default_rng(0)
    corner = rng.integers(0, 16, (20, 2)) / 2
    other_corner = corner + np.array([9.5, 8.5])
    inputs = {
        "X": rng.integers(-2000, 2000, (1, 37, 30, 30)).astype(ELEMENT_TYPES[type_name]),
        "rois": np.concatenate([corner, other_corner], axis=1).astype(np.float32),
        "batch_indices": np.zeros(20, np.int64),
    }
    attributes = {"mode": mode, "output_height": 17, "output_width": 19, "sampling_ratio": 1}
    return inputs, attributes, roi_align(*inputs.values(), **attributes)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("type_name", HALF_TYPES)
def test_results_of_many_bins_are_rounded_alike(cpu_device, isa, path, type_name, mode):
    inputs, attributes, exact = problem_of_many_bins(type_name, mode)
    expected = exact.astype(ELEMENT_TYPES[type_name])
    assert (expected.astype(np.float64) != exact).mean() > 0.1
    y = run_forced(isa, path, cpu_device, inputs, **attributes)
    check_bits(y, expected, type_name)
