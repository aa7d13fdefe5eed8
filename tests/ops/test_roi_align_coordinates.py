"""RoiAlign puts every sample exactly where torchvision puts it, to the last bit of its coordinate.

Interpolation is continuous, so a sample moved by one rounding error hardly changes a value. Two
kinds of maps make it visible. Where each channel has a NaN in one cell of its own, the channels
that are NaN say which cells a bin touched: a sample on a cell's centre that moves down by one bit
touches the cell before. Where each channel has a one in one cell, the channels are the cells'
weights, and these are the bits of the coordinate's fraction. Contraction to fused multiply-add
changes both.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from peers import torchvision_roi_align
from plugin import Device, run

STRIDE = 8


def map_of_cells(axis: str, cells: int, value: float) -> Any:
    """A map [1, cells, ...] of zeros, one cell high or wide; channel k has the value in cell k."""
    x = np.where(np.eye(cells, dtype=bool), value, 0).astype(np.float32)
    shape = (1, cells, 1, cells) if axis == "x" else (1, cells, cells, 1)
    return x.reshape(shape)


def integer_boxes(axis: str, rng: np.random.Generator, cells: int, count: int) -> Any:
    """Boxes as a detector's targets: whole pixels; along the other axis they cover the map."""
    ends = np.sort(rng.integers(-4, cells * STRIDE + 4, (count, 2)), axis=1).astype(np.float32)
    begin, end = ends.T
    other = np.full(count, -1.0, np.float32), np.full(count, 1.0, np.float32)
    columns = (begin, other[0], end, other[1]) if axis == "x" else (other[0], begin, other[1], end)
    return np.stack(columns, axis=1)


def both(
    device: Device, axis: str, x: Any, rois: Any, mode: str, **attributes: Any
) -> tuple[Any, Any]:
    """Our result, and torchvision's average, with seven bins along the axis."""
    inputs = {"X": x, "rois": rois, "batch_indices": np.zeros(len(rois), np.int64)}
    attributes["output_width" if axis == "x" else "output_height"] = 7
    (ours,) = run(device, "RoiAlign", inputs, mode=mode, **attributes)
    return ours, torchvision_roi_align(inputs, **attributes)


SCALES = [1 / STRIDE, float(np.float32(0.13))]


@pytest.mark.parametrize("axis", ["x", "y"])
@pytest.mark.parametrize("transformation", ["half_pixel", "output_half_pixel"])
@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
@pytest.mark.parametrize("scale", SCALES)
def test_touched_cells(device, rng, axis, transformation, mode, sampling_ratio, scale):
    ours, theirs = both(
        device,
        axis,
        map_of_cells(axis, 40, np.nan),
        integer_boxes(axis, rng, 40, 300),
        mode,
        sampling_ratio=sampling_ratio,
        spatial_scale=scale,
        coordinate_transformation_mode=transformation,
    )
    assert 0.01 < np.isnan(theirs).mean() < 0.2
    # For a sample outside the map, torchvision reads cell 0 with the weight 0.
    assert_array_equal(np.isnan(ours[:, 1:]), np.isnan(theirs[:, 1:]))
    assert not (np.isnan(ours) & ~np.isnan(theirs)).any()


@pytest.mark.parametrize("axis", ["x", "y"])
@pytest.mark.parametrize("transformation", ["half_pixel", "output_half_pixel"])
@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("scale", SCALES)
def test_weights_of_single_samples(device, rng, axis, transformation, mode, scale):
    ours, theirs = both(
        device,
        axis,
        map_of_cells(axis, 60, 1.0),
        integer_boxes(axis, rng, 60, 300),
        mode,  # the average and the maximum of one sample are the same
        sampling_ratio=1,
        spatial_scale=scale,
        coordinate_transformation_mode=transformation,
    )
    assert len(np.unique(theirs)) > 100
    assert_array_equal(ours, theirs)
