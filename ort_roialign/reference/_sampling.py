"""Where the samples of a region lie along one axis, and which cells they read.

RoIAlign lays a fixed grid of sample points into each bin and rounds nowhere: He et al., "Mask
R-CNN", 2017, section 3; the coordinates are those of ONNX RoiAlign-16. A sample reads the map by
bilinear interpolation, which is the product of one linear interpolation per axis, so that all
there is to say about a sample can be said per axis. Forward and backward both start from here.

Only samples on the map are listed. An adaptive grid has about one sample per feature cell of the
*region*, which may be far larger than the map, so samples outside are never visited, only counted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ort_roialign.reference._inputs import CoordinateArray, Float64Array, Int64Array

# Where the coordinates of the box count from, in feature cells: "half_pixel" takes a cell's centre
# to be at +0.5, "output_half_pixel" (the rule before ONNX opset 16) at 0.
ORIGIN_OFFSET_CELLS = {"half_pixel": 0.5, "output_half_pixel": 0.0}

# An adaptive grid of a region of more feature cells than this has no more samples than this.
MAX_SAMPLES_PER_BIN = 2**31 - 1


@dataclass(frozen=True)
class SamplingRule:
    """How samples are laid into a box; the attributes of RoiAlign that say so."""

    spatial_scale: np.float32  # feature cells per image pixel
    sampling_ratio: int  # samples per bin and axis; 0: about one per feature cell
    coordinate_transformation_mode: str  # a key of ORIGIN_OFFSET_CELLS


@dataclass(frozen=True)
class BinSamples:
    """The samples of one bin along one axis; sample `first_inside + k` has entry `k`.

    A sample at coordinate `x` is `(1 - fraction)` of cell `low` plus `fraction` of cell `high`.
    """

    num_samples: int  # all of the bin's samples, those outside the map included
    first_inside: int  # number of the first sample on the map
    low: Int64Array  # [num_inside]
    high: Int64Array  # [num_inside]; equals `low` where the coordinate is past the last centre
    fraction: Float64Array  # [num_inside]

    @property
    def num_inside(self) -> int:
        """How many of the bin's samples lie on the map; they are consecutive."""
        return len(self.low)

    @cached_property
    def taps(self) -> tuple[Int64Array, Float64Array]:
        """The cells that the samples touch, ascending, and each cell's summed weight.

        A cell that is touched with weight 0 is listed: its NaN or infinity reaches the result.
        """
        has_neighbour = self.high > self.low
        cells = np.concatenate([self.low, self.high[has_neighbour]])
        weights = np.concatenate([1 - self.fraction, self.fraction[has_neighbour]])
        touched, tap_of_cell = np.unique(cells, return_inverse=True)
        summed_weights = np.zeros(len(touched))
        np.add.at(summed_weights, tap_of_cell, weights)
        return touched, summed_weights


def sample_axis(
    begin_image: np.floating[Any],
    end_image: np.floating[Any],
    num_bins: int,
    extent_cells: int,
    rule: SamplingRule,
) -> list[BinSamples]:
    """Lays the samples of one box along one axis.

    Args:
        begin_image: x1 or y1 in image pixels; its type is that of all coordinate arithmetic.
        end_image: x2 or y2 in image pixels, of the same type.
        num_bins: bins along the axis.
        extent_cells: width or height of the feature map.
        rule: how samples are laid into a box.

    Returns:
        One `BinSamples` for each bin.
    """
    # Huge boxes may overflow to infinity; a sample that is not a number counts as outside.
    with np.errstate(over="ignore", invalid="ignore"):
        grid = _lay_grid(begin_image, end_image, num_bins, rule)
        first_inside, end_inside = _inside_range(grid, extent_cells)
        bins = []
        for bin_number in range(num_bins):
            first, end = int(first_inside[bin_number]), int(end_inside[bin_number])
            coordinates = grid.coordinates(np.array([bin_number]), np.arange(first, end))
            low, high, fraction = _neighbours(coordinates, extent_cells)
            bins.append(BinSamples(grid.samples_per_bin, first, low, high, fraction))
    return bins


@dataclass(frozen=True)
class _Grid:
    """The regular grid of one box along one axis, in feature cells."""

    begin_feature: np.floating[Any]
    bin_size_feature: np.floating[Any]  # negative for a mirrored box
    num_bins: int
    samples_per_bin: int

    def coordinates(self, bins: Int64Array, samples: Int64Array) -> CoordinateArray:
        """Coordinates of samples, by number of bin and number within the bin (broadcast)."""
        real = type(self.begin_feature)
        in_bin = (samples.astype(real) + real(0.5)) * self.bin_size_feature
        begin_of_bin = self.begin_feature + bins.astype(real) * self.bin_size_feature
        coordinates: CoordinateArray = begin_of_bin + in_bin / real(self.samples_per_bin)
        return coordinates


def _lay_grid(
    begin_image: np.floating[Any],
    end_image: np.floating[Any],
    num_bins: int,
    rule: SamplingRule,
) -> _Grid:
    real = type(begin_image)
    scale = real(rule.spatial_scale)
    offset = real(ORIGIN_OFFSET_CELLS[rule.coordinate_transformation_mode])
    begin_feature = begin_image * scale - offset
    end_feature = end_image * scale - offset
    size_feature = end_feature - begin_feature
    if rule.coordinate_transformation_mode == "output_half_pixel":
        size_feature = np.maximum(size_feature, real(1))
    bin_size_feature = size_feature / real(num_bins)

    samples_per_bin = rule.sampling_ratio
    if samples_per_bin == 0 and bin_size_feature > 0:  # also false where it is not a number
        samples_per_bin = int(min(np.ceil(bin_size_feature), real(MAX_SAMPLES_PER_BIN)))
    samples_per_bin = min(samples_per_bin, MAX_SAMPLES_PER_BIN)
    return _Grid(begin_feature, bin_size_feature, num_bins, samples_per_bin)


def _inside_range(grid: _Grid, extent_cells: int) -> tuple[Int64Array, Int64Array]:
    """First and one past the last sample on the map, for each bin.

    Rounding is monotonous, so the computed coordinates are, and the samples with
    `-1 <= x <= extent` are consecutive: two binary searches on the computed coordinates find them.
    """
    bins = np.arange(grid.num_bins)
    lowest, highest = -1, extent_cells

    def not_yet_entered(samples: Int64Array) -> npt.NDArray[np.bool_]:
        x = grid.coordinates(bins, samples)
        entered = x >= lowest if grid.bin_size_feature >= 0 else x <= highest
        return np.logical_not(entered)

    def not_yet_left(samples: Int64Array) -> npt.NDArray[np.bool_]:
        x = grid.coordinates(bins, samples)
        return x <= highest if grid.bin_size_feature >= 0 else x >= lowest

    first = _partition_point(not_yet_entered, grid.num_bins, grid.samples_per_bin)
    end = _partition_point(not_yet_left, grid.num_bins, grid.samples_per_bin)
    return first, np.maximum(first, end)


def _partition_point(
    holds_before: Callable[[Int64Array], npt.NDArray[np.bool_]], num_searches: int, count: int
) -> Int64Array:
    """The first of the numbers `0 ... count` where a predicate stops to hold, for each search."""
    begin = np.zeros(num_searches, np.int64)
    end = np.full(num_searches, count, np.int64)
    while (begin < end).any():
        middle = (begin + end) // 2
        holds = holds_before(middle) & (begin < end)
        begin = np.where(holds, middle + 1, begin)
        end = np.where(holds, end, middle)
    return begin


def _neighbours(
    coordinates: CoordinateArray, extent_cells: int
) -> tuple[Int64Array, Int64Array, Float64Array]:
    """The two cells that each sample lies between, and its distance from the lower one."""
    clamped = np.maximum(coordinates, coordinates.dtype.type(0))
    floor = np.floor(clamped)
    fraction = (clamped - floor).astype(np.float64)
    low = floor.astype(np.int64)
    past_last_centre = low >= extent_cells - 1
    low = np.where(past_last_centre, extent_cells - 1, low)
    high = np.where(past_last_centre, low, low + 1)
    return low, high, np.where(past_last_centre, 0.0, fraction)
