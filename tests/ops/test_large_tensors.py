"""Tensors of more than 2^31 elements, where an offset of 32 bits would read or write elsewhere.

The maps are zeros that the operating system has only promised, but for a few cells, so that they
take address space and next to no memory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tolerances
from numpy.testing import assert_allclose, assert_array_equal
from plugin import Device, make_model, make_session

from ort_roialign.reference import roi_align, roi_pool

GIB = 2**30


def available_bytes() -> int:
    """Memory that can be used without swapping, as Linux estimates it."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("/proc/meminfo has no MemAvailable")


def lazy_zeros(*shape: int) -> Any:
    try:
        return np.zeros(shape, np.float16)
    except MemoryError:
        pytest.skip(f"address space is limited: no room for {np.prod(shape) * 2 / GIB:.1f} GiB")


def run_once(device: Device, operator: str, inputs: Any, **attributes: Any) -> Any:
    """Runs without a second run into another buffer, and without copies."""
    if device.name == "cuda":
        pytest.skip("the map would be copied to the GPU, cell by cell, zeros included")
    types = {name: array.dtype for name, array in inputs.items()}
    return make_session(make_model(operator, attributes, types), device).run(None, inputs)


def one_box(x: Any, box: Any) -> Any:
    return {"X": x, "rois": np.array([box], np.float32), "batch_indices": np.array([0])}


@pytest.mark.parametrize("mode", ["avg", "max"])
def test_plane_that_begins_beyond_2_to_the_31(device, rng, mode):
    x = lazy_zeros(1, 3, 32768, 32768)
    corner = rng.standard_normal((64, 64)).astype(np.float16)
    x[0, 2, -64:, -64:] = corner
    box = np.array([32704, 32704, 32767, 32767], np.float32)
    attributes = {"mode": mode, "output_height": 3, "output_width": 2}
    (y,) = run_once(device, "RoiAlign", one_box(x, box), **attributes)
    expected = roi_align(corner[np.newaxis, np.newaxis], [box - 32704], [0], **attributes)
    assert not y[0, :2].any()
    assert_allclose(y[:, 2:], expected, *tolerances.KERNEL["float16"])


@pytest.mark.parametrize("operator", ["RoiAlign", "RoiPool"])
def test_cells_beyond_2_to_the_31_of_their_plane(device, rng, operator):
    height, width = 65536, 32800
    x = lazy_zeros(1, 1, height, width)
    corner = 1 + np.abs(rng.standard_normal((64, 64))).astype(np.float16)
    x[0, 0, -64:, -64:] = corner
    box = np.array([width - 32, height - 32, width - 1, height - 1], np.float32)
    near = box - np.array([width - 64, height - 64] * 2, np.float32)
    if operator == "RoiAlign":
        y, *_ = run_once(device, operator, one_box(x, box), mode="max", output_width=2)
        expected = roi_align(
            corner[np.newaxis, np.newaxis], [near], [0], mode="max", output_width=2
        )
        assert_allclose(y, expected, *tolerances.KERNEL["float16"])
        return
    y, argmax = run_once(device, operator, one_box(x, box), output_width=2)
    expected, cells = roi_pool(corner[np.newaxis, np.newaxis], [near], [0], output_width=2)
    assert_array_equal(y, expected)
    row, column = np.divmod(cells, 64)
    assert_array_equal(argmax, (row + height - 64) * width + column + width - 64)
    assert argmax.min() > 2**31


@pytest.mark.unsanitized  # minutes for what is one loop over all cells
def test_gradient_of_more_than_2_to_the_31_elements(cpu_device):
    channels, side = 2100, 1024
    # dX is written in full; a float32 sum of some planes comes on top.
    needed = channels * side * side * 2 + GIB
    if available_bytes() < needed + 2 * GIB:
        pytest.skip(
            f"needs {needed / GIB:.0f} GiB and 2 GiB to spare, of which there are not as many"
        )
    x = lazy_zeros(1, channels, side, side)
    dy = np.arange(1, channels + 1, dtype=np.float32).reshape(1, channels, 1, 1) % 97
    inputs = {"dY": dy.astype(np.float16), **one_box(x, [1024, 1023.5, 1024, 1023.5])}
    (dx,) = run_once(cpu_device, "RoiAlignGrad", inputs, sampling_ratio=1)
    # The only sample lies half a cell below and right of the box's corner: past the last centre
    # along x, so all of it in the last column; on the last row's centre along y.
    assert_array_equal(dx[0, :, -1, -1], dy[0, :, 0, 0])
    assert not dx[:, :, -3:-1].any()
    assert not dx[0, :, -1, -3:-1].any()
    assert not dx[0, -1, :-1].any()
    assert not dx[0, 2047:2050, :-1].any()
