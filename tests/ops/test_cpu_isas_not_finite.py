"""NaN and infinity in RoiAlign's CPU kernels: they reach the bins that read them, and no others.

The kernels work on several channels and on several cells of a row at a time, and read some cells
that a bin does not weigh at all.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import tolerances
from numpy.testing import assert_allclose, assert_array_equal
from peers import torchvision_roi_align
from plugin import ELEMENT_TYPES, Device, forced_kernels, random_rois, run

from ort_roialign.reference import roi_align

MODES = ("avg", "max")
HEIGHT, WIDTH = 7, 19


def run_forced(isa: str, path: str, device: Device, inputs: Any, **attributes: Any) -> Any:
    with forced_kernels(isa, path):
        (y,) = run(device, "RoiAlign", inputs, **attributes)
    return y


def reference_of(inputs: Any, **attributes: Any) -> Any:
    return roi_align(inputs["X"], inputs["rois"], inputs["batch_indices"], **attributes)


def inputs_of(x: Any, boxes: Any) -> dict[str, Any]:
    """Boxes on one image, in float32 beside halves."""
    box_type = np.float64 if x.dtype == np.float64 else np.float32
    rois = np.asarray(boxes, box_type)
    return {"X": x, "rois": rois, "batch_indices": np.zeros(len(rois), np.int64)}


def some_boxes(rng: np.random.Generator, count: int) -> Any:
    """Boxes on and across the map, some of them mirrored."""
    boxes = random_rois(rng, count, image_width=WIDTH, image_height=HEIGHT)
    # Bins without a sample on the map beside others with, at each side.
    boxes[-2:] = [[-8, -6, 6, 5], [12, 2, WIDTH + 14, HEIGHT + 6]]
    boxes[: count // 4] = boxes[: count // 4, [2, 1, 0, 3]]
    boxes[count // 8 : count // 2] = boxes[count // 8 : count // 2, [0, 3, 2, 1]]
    return boxes


@cache
def problem_with_nans(type_name: str, mode: str, sampling_ratio: int) -> tuple[Any, Any, Any]:
    """Inputs, attributes and the reference's result.

    Each channel has a NaN in one cell of its own, so that it is among a bin's samples the first,
    the last, and any other.
    """
    rng = np.random.default_rng(sampling_ratio)
    cells = HEIGHT * WIDTH
    x = rng.standard_normal((1, cells, HEIGHT, WIDTH)).astype(ELEMENT_TYPES[type_name])
    x.reshape(cells, cells)[np.diag_indices(cells)] = np.nan
    inputs = inputs_of(x, some_boxes(rng, 10))
    attributes = {
        "mode": mode,
        "output_height": 3,
        "output_width": 5,
        "sampling_ratio": sampling_ratio,
    }
    return inputs, attributes, reference_of(inputs, **attributes)


@pytest.mark.parametrize("sampling_ratio", [0, 1, 3])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("type_name", list(ELEMENT_TYPES))
def test_nan_reaches_the_references_bins(cpu_device, isa, path, type_name, mode, sampling_ratio):
    inputs, attributes, expected = problem_with_nans(type_name, mode, sampling_ratio)
    assert 0.005 < np.isnan(expected).mean() < 0.5
    y = run_forced(isa, path, cpu_device, inputs, **attributes)
    assert_allclose(y.astype(np.float64), expected, *tolerances.KERNEL[type_name])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("type_name", list(ELEMENT_TYPES))
def test_nan_reaches_the_references_bins_of_a_single_channel(
    cpu_device, isa, path, type_name, mode
):
    # Each channel an image of its own.
    inputs, attributes, expected = problem_with_nans(type_name, mode, 3)
    images, boxes = inputs["X"].shape[1], len(inputs["rois"])
    alone = {
        "X": inputs["X"].reshape(images, 1, HEIGHT, WIDTH),
        "rois": np.tile(inputs["rois"], (images, 1)),
        "batch_indices": np.repeat(np.arange(images), boxes),
    }
    y = run_forced(isa, path, cpu_device, alone, **attributes)
    y = y.astype(np.float64).reshape(images, boxes, 3, 5).swapaxes(0, 1)
    assert_allclose(y, expected, *tolerances.KERNEL[type_name])


def boxes_with_rows_inside(rng: np.random.Generator, rows: int) -> Any:
    """Boxes of which 1, 2 … rows of bins have samples: the last ones, and then the first ones."""
    row_size = 1.4
    inside = np.arange(1, rows + 1)
    top = -0.7 - row_size * (rows - inside)
    bottom = top + row_size * rows
    # Some of them across the map's left or right border, too.
    left, width = rng.uniform(-5, 12, 2 * rows), rng.uniform(8, 16, 2 * rows)
    return np.stack(
        [left, np.append(top, HEIGHT - bottom), left + width, np.append(bottom, HEIGHT - top)],
        axis=1,
    )


@cache
def problem_of_rows_side_by_side(type_name: str, mode: str, columns: int) -> tuple[Any, Any, Any]:
    """Inputs, attributes and the reference's result, of many channels.

    Each channel has one cell that is not finite, as in `problem_with_nans`: all cells take their
    turn with NaN and then with infinity. The number of channels is a multiple of 6.
    """
    rows = 5
    rng = np.random.default_rng(columns)
    cells, channels = HEIGHT * WIDTH, 270
    x = rng.standard_normal((1, channels, HEIGHT, WIDTH)).astype(ELEMENT_TYPES[type_name])
    channel = np.arange(channels)
    x.reshape(channels, cells)[channel, channel % cells] = np.where(channel < cells, np.nan, np.inf)
    inputs = inputs_of(x, boxes_with_rows_inside(rng, rows))
    attributes = {
        "mode": mode,
        "output_height": rows,
        "output_width": columns,
        "sampling_ratio": 2,
    }
    return inputs, attributes, reference_of(inputs, **attributes)


@pytest.mark.parametrize("columns", [1, 2, 7])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("type_name", list(ELEMENT_TYPES))
def test_rows_of_bins_in_one_vector_stay_apart(cpu_device, isa, type_name, mode, columns):
    # With few channels a vector holds two rows of bins where they fit: of 2 columns in 4 lanes, of
    # 7 in 16. Rows without samples are alone, and so is the last one with samples where these are
    # of an odd number.
    inputs, attributes, expected = problem_of_rows_side_by_side(type_name, mode, columns)
    assert 0.005 < (~np.isfinite(expected)).mean() < 0.5
    rows_inside = (expected != 0).any(axis=(1, 3)).sum(axis=1)
    assert_array_equal(rows_inside, np.tile(np.arange(1, 6), 2))
    boxes = len(inputs["rois"])
    for channels in (1, 2, 3):
        images = inputs["X"].shape[1] // channels
        few = {
            "X": inputs["X"].reshape(images, channels, HEIGHT, WIDTH),
            "rois": np.tile(inputs["rois"], (images, 1)),
            "batch_indices": np.repeat(np.arange(images), boxes),
        }
        y = run_forced(isa, "direct", cpu_device, few, **attributes).astype(np.float64)
        y = y.reshape(images, boxes, channels, *expected.shape[2:]).swapaxes(0, 1)
        assert_allclose(y.reshape(expected.shape), expected, *tolerances.KERNEL[type_name])


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("type_name", list(ELEMENT_TYPES))
def test_channels_beside_stay_clean(cpu_device, rng, isa, path, type_name, mode, value):
    # Blocks of 32 or 16 channels: the first and the last of some, those between, and the last one.
    bad = np.array([0, 7, 15, 16, 31, 32, 40, 66])
    x = rng.standard_normal((1, 67, HEIGHT, WIDTH)).astype(ELEMENT_TYPES[type_name])
    inputs = inputs_of(x, some_boxes(rng, 12))
    attributes = {"mode": mode, "output_height": 3, "output_width": 5, "sampling_ratio": 2}
    clean = run_forced(isa, path, cpu_device, inputs, **attributes)
    dirty = x.copy()
    dirty[:, bad] = value
    y = run_forced(isa, path, cpu_device, inputs | {"X": dirty}, **attributes)
    assert not np.isfinite(y[:, bad]).all(axis=(0, 2, 3)).any()
    good = np.setdiff1d(np.arange(67), bad)
    assert np.isfinite(clean).all()
    assert_array_equal(y[:, good], clean[:, good])


@pytest.mark.parametrize(("channels", "sampling_ratio"), [(35, 1), (35, 2), (2, 2)])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("type_name", list(ELEMENT_TYPES))
def test_cells_that_no_box_reads_never_show(
    cpu_device, rng, isa, path, type_name, mode, channels, sampling_ratio
):
    # Few samples in large bins leave cells alone, between those that they read and around them.
    boxes = [[0.5, 0.25, 18.5, 6], [2, 1, 17.75, 5.5]]
    attributes = {
        "mode": mode,
        "output_height": 1,
        "output_width": 2,
        "sampling_ratio": sampling_ratio,
    }
    cells = HEIGHT * WIDTH
    probes = np.zeros((1, cells, HEIGHT, WIDTH), np.float32)
    probes.reshape(cells, cells)[np.diag_indices(cells)] = np.nan
    read = np.isnan(reference_of(inputs_of(probes, boxes), **attributes)).any(axis=(0, 2, 3))
    assert 8 <= read.sum() <= cells / 2
    x = rng.standard_normal((1, channels, HEIGHT, WIDTH)).astype(ELEMENT_TYPES[type_name])
    expected = reference_of(inputs_of(x, boxes), **attributes)
    x[:, :, ~read.reshape(HEIGHT, WIDTH)] = np.nan
    y = run_forced(isa, path, cpu_device, inputs_of(x, boxes), **attributes)
    assert_allclose(y, expected, *tolerances.KERNEL[type_name])


def with_infinities(rng: np.random.Generator, type_name: str) -> dict[str, Any]:
    """Infinite cells, and boxes that put many samples on cells' centres.

    The next cells weigh 0 there, and an infinite one gives NaN. Past the last centre torchvision
    reads the last cell twice, once at the weight 0, so no box goes there.
    """
    x = rng.standard_normal((1, 35, HEIGHT, WIDTH)).astype(ELEMENT_TYPES[type_name])
    x[rng.random(x.shape) < 0.02] = np.inf
    x[rng.random(x.shape) < 0.02] = -np.inf
    corner = rng.integers(0, 5, (60, 2)) / 2 + 0.5
    size = rng.integers(1, [WIDTH - 4, HEIGHT - 4], (60, 2))
    return inputs_of(x, np.concatenate([corner, corner + size], axis=1))


def check_variety(y: Any) -> None:
    """All kinds of results occur, so that a test says something of each."""
    for kind in (np.isnan, np.isposinf, np.isneginf):
        assert 30 < np.count_nonzero(kind(y)) < 0.3 * y.size


@pytest.mark.parametrize("type_name", ["float32", "float64"])
def test_infinity_beside_the_weight_0_is_torchvisions(cpu_device, rng, isa, path, type_name):
    inputs = with_infinities(rng, type_name)
    # One sample a bin: of several samples that read a cell, torchvision needs one at the weight 0
    # for its NaN, while we add up their weights first.
    attributes = {"output_height": 2, "output_width": 4, "sampling_ratio": 1}
    expected = torchvision_roi_align(inputs, **attributes)
    check_variety(expected)
    y = run_forced(isa, path, cpu_device, inputs, **attributes)
    assert_allclose(y, expected, *tolerances.KERNEL[type_name])


@cache
def problem_with_infinities(type_name: str, mode: str, sampling_ratio: int) -> tuple[Any, Any, Any]:
    """Inputs, attributes and the reference's result."""
    inputs = with_infinities(np.random.default_rng(sampling_ratio), type_name)
    attributes = {
        "mode": mode,
        "output_height": 2,
        "output_width": 4,
        "sampling_ratio": sampling_ratio,
    }
    return inputs, attributes, reference_of(inputs, **attributes)


@pytest.mark.parametrize("sampling_ratio", [0, 2])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("type_name", list(ELEMENT_TYPES))
def test_infinity_is_the_references(cpu_device, isa, path, type_name, mode, sampling_ratio):
    inputs, attributes, expected = problem_with_infinities(type_name, mode, sampling_ratio)
    if mode == "avg":
        check_variety(expected)
    y = run_forced(isa, path, cpu_device, inputs, **attributes)
    assert_allclose(y.astype(np.float64), expected, *tolerances.KERNEL[type_name])
