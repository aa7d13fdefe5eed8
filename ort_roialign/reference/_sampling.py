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
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

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


class Neighbours(NamedTuple):
    """The two cells that each sample lies between along one axis.

    A sample at coordinate `x` is `(1 - fraction)` of cell `low` plus `fraction` of cell `high`.
    """

    low: Int64Array  # [num_samples]
    high: Int64Array  # [num_samples]; equals `low` where the coordinate is past the last centre
    fraction: Float64Array  # [num_samples]
    # [num_samples]: derivative of `fraction` by the coordinate, 1; 0 where the coordinate is held
    # at the first or at the last centre.
    slope: Float64Array


@dataclass(frozen=True)
class BinSamples:
    """The samples of one bin along one axis; sample `first_inside + k` has entry `k`."""

    num_samples: int  # all of the bin's samples, those outside the map included
    first_inside: int  # number of the first sample on the map
    neighbours: Neighbours  # of each sample on the map

    @property
    def low(self) -> Int64Array:
        """The lower cell of each sample on the map."""
        return self.neighbours.low

    @property
    def high(self) -> Int64Array:
        """The higher cell of each sample on the map, or the lower one past the last centre."""
        return self.neighbours.high

    @property
    def fraction(self) -> Float64Array:
        """The weight of `high`; `low` has the rest."""
        return self.neighbours.fraction

    @property
    def num_inside(self) -> int:
        """How many of the bin's samples lie on the map; they are consecutive."""
        return len(self.low)

    @cached_property
    def taps(self) -> tuple[Int64Array, Float64Array]:
        """The cells that the samples touch, ascending, and each cell's summed weight.

        A cell that is touched with weight 0 is listed: its NaN or infinity reaches the result.
        """
        return _merge(self.neighbours, 1 - self.fraction, self.fraction)

    @cached_property
    def slope_taps(self) -> tuple[Int64Array, Float64Array]:
        """The same cells, and the derivative of each cell's weight as all samples move along."""
        return _merge(self.neighbours, -self.neighbours.slope, self.neighbours.slope)


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
    grid = lay_side(begin_image, end_image, num_bins, rule)
    return sample_bins(grid, np.arange(num_bins), extent_cells)


def sample_bins(grid: AxisGrid, bins: Int64Array, extent_cells: int) -> list[BinSamples]:
    """The samples of some bins of a grid, by number."""
    # Huge boxes may overflow to infinity; a sample that is not a number counts as outside.
    with np.errstate(over="ignore", invalid="ignore"):
        first_inside, end_inside = _inside_range(grid, bins, extent_cells)
        sampled = []
        for number, first, end in zip(bins, first_inside, end_inside, strict=True):
            coordinates = grid.coordinates(np.array([number]), np.arange(first, end))
            neighbours = neighbours_of(coordinates, extent_cells)
            sampled.append(BinSamples(grid.samples_per_bin, int(first), neighbours))
    return sampled


@dataclass(frozen=True)
class AxisGrid:
    """The regular grid of one box along one axis, in feature cells."""

    begin_feature: np.floating[Any]
    length_feature: np.floating[Any]  # negative for a mirrored box
    bin_size_feature: np.floating[Any]
    samples_per_bin: int

    def coordinates(self, bins: Int64Array, samples: Int64Array) -> CoordinateArray:
        """Coordinates of samples, by number of bin and number within the bin (broadcast)."""
        real = type(self.begin_feature)
        in_bin = (samples.astype(real) + real(0.5)) * self.bin_size_feature
        begin_of_bin = self.begin_feature + bins.astype(real) * self.bin_size_feature
        coordinates: CoordinateArray = begin_of_bin + in_bin / real(self.samples_per_bin)
        return coordinates

    def moved(self, by_feature: np.floating[Any]) -> AxisGrid:
        """The same grid further along the axis."""
        with np.errstate(over="ignore", invalid="ignore"):
            return replace(self, begin_feature=self.begin_feature + by_feature)


def lay_side(
    begin_image: np.floating[Any],
    end_image: np.floating[Any],
    num_bins: int,
    rule: SamplingRule,
) -> AxisGrid:
    """Lays the grid of a box between two of its edges, in image pixels."""
    with np.errstate(over="ignore", invalid="ignore"):
        begin_feature = coordinate_feature(begin_image, rule)
        length_feature = coordinate_feature(end_image, rule) - begin_feature
        return lay_grid(begin_feature, counted_length(length_feature, rule), num_bins, rule)


def coordinate_feature(coordinate_image: np.floating[Any], rule: SamplingRule) -> np.floating[Any]:
    """A coordinate in feature cells, from image pixels."""
    real = type(coordinate_image)
    offset = real(ORIGIN_OFFSET_CELLS[rule.coordinate_transformation_mode])
    feature: np.floating[Any] = coordinate_image * real(rule.spatial_scale) - offset
    return feature


def counted_length(length_feature: np.floating[Any], rule: SamplingRule) -> np.floating[Any]:
    """How long a box counts along an axis: with "output_half_pixel", at least one cell."""
    if rule.coordinate_transformation_mode != "output_half_pixel":
        return length_feature
    longer: np.floating[Any] = np.maximum(length_feature, type(length_feature)(1))
    return longer


def lay_grid(
    begin_feature: np.floating[Any],
    length_feature: np.floating[Any],
    num_bins: int,
    rule: SamplingRule,
) -> AxisGrid:
    """Divides a length in feature cells into bins, and these into samples."""
    real = type(begin_feature)
    bin_size_feature = length_feature / real(num_bins)
    samples_per_bin = rule.sampling_ratio
    if samples_per_bin == 0 and bin_size_feature > 0:  # also false where it is not a number
        samples_per_bin = int(min(np.ceil(bin_size_feature), real(MAX_SAMPLES_PER_BIN)))
    samples_per_bin = min(samples_per_bin, MAX_SAMPLES_PER_BIN)
    return AxisGrid(begin_feature, length_feature, bin_size_feature, samples_per_bin)


def _inside_range(
    grid: AxisGrid, bins: Int64Array, extent_cells: int
) -> tuple[Int64Array, Int64Array]:
    """First and one past the last sample on the map, for each bin.

    Rounding is monotonous, so the computed coordinates are, and the samples with
    `-1 <= x <= extent` are consecutive: two binary searches on the computed coordinates find them.
    """
    lowest, highest = -1, extent_cells

    def not_yet_entered(samples: Int64Array) -> npt.NDArray[np.bool_]:
        x = grid.coordinates(bins, samples)
        entered = x >= lowest if grid.bin_size_feature >= 0 else x <= highest
        return np.logical_not(entered)

    def not_yet_left(samples: Int64Array) -> npt.NDArray[np.bool_]:
        x = grid.coordinates(bins, samples)
        return x <= highest if grid.bin_size_feature >= 0 else x >= lowest

    first = _partition_point(not_yet_entered, len(bins), grid.samples_per_bin)
    end = _partition_point(not_yet_left, len(bins), grid.samples_per_bin)
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


def neighbours_of(coordinates: CoordinateArray, extent_cells: int) -> Neighbours:
    """Where each sample lies among the cells' centres; all coordinates must be on the map."""
    clamped = np.maximum(coordinates, coordinates.dtype.type(0))
    floor = np.floor(clamped)
    fraction = (clamped - floor).astype(np.float64)
    low = floor.astype(np.int64)
    past_last_centre = low >= extent_cells - 1
    low = np.where(past_last_centre, extent_cells - 1, low)
    return Neighbours(
        low,
        high=np.where(past_last_centre, low, low + 1),
        fraction=np.where(past_last_centre, 0.0, fraction),
        slope=np.where(past_last_centre | (coordinates <= 0), 0.0, 1.0),
    )


def _merge(
    neighbours: Neighbours, of_low: Float64Array, of_high: Float64Array
) -> tuple[Int64Array, Float64Array]:
    """The cells that samples touch, ascending, and the sum over each cell of the samples' shares.

    A sample past the last centre has no `high` and no share of it.
    """
    has_neighbour = neighbours.high > neighbours.low
    cells = np.concatenate([neighbours.low, neighbours.high[has_neighbour]])
    shares = np.concatenate([of_low, of_high[has_neighbour]])
    touched, tap_of_cell = np.unique(cells, return_inverse=True)
    sums = np.zeros(len(touched))
    np.add.at(sums, tap_of_cell, shares)
    return touched, sums
