"""RoiAlignRotated and its gradient: RoIAlign on boxes turned about their centres.

The samples are RoIAlign's (He et al., "Mask R-CNN", 2017, section 3), laid around the box's centre
and turned as detectron2's `ROIAlignRotated` and mmcv's `RoIAlignRotated` do. The average is not a
product of one per axis, so the samples on the map are listed one by one. The maximum is ours:
neither peer has one.

Letters: `N` images, `C` channels, `H W` height and width of the feature maps, `R` regions,
`PH PW` output bins, `S` samples of a region on the map.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ort_roialign.reference._inputs import (
    CoordinateArray,
    Float64Array,
    Int64Array,
    RegionInputs,
    check_choice,
    check_inputs,
    check_integer,
    check_output_gradient,
)
from ort_roialign.reference._roi_align import (
    AlignAttributes,
    check_attributes,
    largest_sample,
    output_shape,
)
from ort_roialign.reference._sampling import (
    AxisGrid,
    Neighbours,
    coordinate_feature,
    counted_length,
    lay_grid,
    neighbours_of,
)

RADIANS_PER_UNIT = {"radians": 1.0, "degrees": math.pi / 180}


def roi_align_rotated(
    x: npt.ArrayLike,
    rois: npt.ArrayLike,
    batch_indices: npt.ArrayLike,
    *,
    mode: str = "avg",
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
    coordinate_transformation_mode: str = "half_pixel",
    angle_unit: str = "radians",
    clockwise: int = 0,
) -> Float64Array:
    """Pools each region, a box turned about its centre, into bins along the box's own sides.

    Coordinates are computed in float32 (float64 for a float64 `x`), all else in float64.

    Args:
        x: feature maps [N, C, H, W]; float16, bfloat16, float32 or float64.
        rois: boxes [R, 5] as centre x, centre y, width and height in image pixels, and an angle.
        batch_indices: integers [R], the image of each box, in [0, N).
        mode: "avg" or "max" of a bin's interpolated samples, as in `roi_align`.
        output_height: bins PH along the box's height.
        output_width: bins PW along the box's width.
        sampling_ratio: samples per bin and axis; 0 takes ceil(box size in cells / bins).
        spatial_scale: feature cells per image pixel; rounded to float32.
        coordinate_transformation_mode: "half_pixel" subtracts half a cell from the scaled centre;
            "output_half_pixel" does not, and makes every box at least one cell wide and high.
        angle_unit: "radians" or "degrees".
        clockwise: 1: a positive angle turns the box clockwise on the image; 0: the other way.

    Returns:
        The pooled regions, float64 [R, C, PH, PW].

    Raises:
        InvalidArgumentError: an argument breaks the rules above, or a coordinate is not finite.

    Source:
        detectron2.layers.ROIAlignRotated; mmcv.ops.RoIAlignRotated.
    """
    operator = "RoiAlignRotated"
    sampling = (sampling_ratio, spatial_scale, coordinate_transformation_mode)
    attributes = check_attributes(operator, mode, (output_height, output_width), sampling)
    turn = check_turn(operator, angle_unit, clockwise)
    inputs = check_inputs(operator, x, rois, batch_indices, columns=5)
    y = np.zeros(output_shape(inputs, attributes))
    for region in _regions(inputs, attributes, turn):
        values = _interpolate(region.feature_map, region.samples)
        pooled = np.zeros((output_height * output_width, y.shape[1]))
        if mode == "avg":
            with np.errstate(invalid="ignore"):
                np.add.at(pooled, region.samples.bin, values.T)
            pooled /= max(region.num_samples, 1)
        else:
            for number, of_bin in _bins(region.samples, len(pooled)):
                numbers = region.samples.number[of_bin]
                pooled[number], _ = largest_sample(values[:, of_bin], numbers, region.num_samples)
        y[region.roi] = pooled.T.reshape(y.shape[1:])
    return y


def roi_align_rotated_grad(
    dy: npt.ArrayLike,
    x: npt.ArrayLike,
    rois: npt.ArrayLike,
    batch_indices: npt.ArrayLike,
    *,
    mode: str = "avg",
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
    coordinate_transformation_mode: str = "half_pixel",
    angle_unit: str = "radians",
    clockwise: int = 0,
) -> Float64Array:
    """Gradient of a loss for the feature maps of `roi_align_rotated`, from the one for its output.

    Args:
        dy: gradient for the output, [R, C, PH, PW].
        x: feature maps [N, C, H, W]; float16, bfloat16, float32 or float64.
        rois: boxes [R, 5] as centre x, centre y, width and height in image pixels, and an angle.
        batch_indices: integers [R], the image of each box, in [0, N).
        mode: as in `roi_align_rotated`, like all that follow.
        output_height: bins PH along the box's height.
        output_width: bins PW along the box's width.
        sampling_ratio: samples per bin and axis; 0 is adaptive.
        spatial_scale: feature cells per image pixel.
        coordinate_transformation_mode: "half_pixel" or "output_half_pixel".
        angle_unit: "radians" or "degrees".
        clockwise: 0 or 1.

    Returns:
        The gradient for `x`, float64 [N, C, H, W].

    Raises:
        InvalidArgumentError: as `roi_align_rotated`, or `dy` does not have the output's shape.

    Source:
        The transpose of detectron2.layers.ROIAlignRotated.
    """
    operator = "RoiAlignRotatedGrad"
    sampling = (sampling_ratio, spatial_scale, coordinate_transformation_mode)
    attributes = check_attributes(operator, mode, (output_height, output_width), sampling)
    turn = check_turn(operator, angle_unit, clockwise)
    inputs = check_inputs(operator, x, rois, batch_indices, columns=5)
    dy_checked = check_output_gradient(operator, dy, output_shape(inputs, attributes))
    dx = np.zeros(inputs.feature_maps.shape)
    for region in _regions(inputs, attributes, turn):
        dx_image = dx[inputs.batch_indices[region.roi]]
        dy_bins = dy_checked[region.roi].reshape(-1, output_height * output_width)
        if mode == "avg":
            share = dy_bins[:, region.samples.bin] / max(region.num_samples, 1)
            _scatter(share, region.samples, dx_image)
        else:
            _scatter_maximum(dy_bins, region, dx_image)
    return dx


@dataclass(frozen=True)
class _Turn:
    """How the operator reads an angle."""

    radians_per_unit: float
    clockwise: bool

    def sine_and_cosine(self, angle: np.floating[Any]) -> tuple[Any, Any]:
        """Computed in float64 and rounded to the type of the angle."""
        real = type(angle)
        radians = float(angle) * self.radians_per_unit
        sine = math.sin(radians)
        return real(-sine if self.clockwise else sine), real(math.cos(radians))


def check_turn(operator: str, angle_unit: str, clockwise: int) -> _Turn:
    """Raises `InvalidArgumentError` unless both attributes have a value that they may have."""
    check_choice(operator, "angle_unit", angle_unit, tuple(RADIANS_PER_UNIT))
    check_integer(operator, "clockwise", clockwise, least=0, most=1)
    return _Turn(RADIANS_PER_UNIT[angle_unit], clockwise == 1)


class _Samples(NamedTuple):
    """The samples of one region on the map, by bin and then row-major in the bin."""

    bin: Int64Array  # [S]: ph * PW + pw
    number: Int64Array  # [S]: which of all samples of the bin it is, in row-major order
    y: Neighbours  # [S]
    x: Neighbours  # [S]


class _Region(NamedTuple):
    roi: int
    feature_map: Float64Array  # [C, H, W]
    num_samples: int  # of each bin, those outside the map included
    samples: _Samples


def _regions(inputs: RegionInputs, attributes: AlignAttributes, turn: _Turn) -> Iterator[_Region]:
    height, width = inputs.feature_maps.shape[2:]
    # Huge boxes may overflow to infinity; a sample that is not a number counts as outside.
    with np.errstate(over="ignore", invalid="ignore"):
        for roi, box in enumerate(inputs.boxes_image):
            grid = _lay(box, attributes, turn)
            yield _Region(
                roi,
                inputs.feature_maps[inputs.batch_indices[roi]],
                grid.along_y.samples_per_bin * grid.along_x.samples_per_bin,
                _samples_on_map(grid, attributes, height, width),
            )


@dataclass(frozen=True)
class _RotatedGrid:
    """The samples of one region: a regular grid around the origin, turned, and moved."""

    along_y: AxisGrid  # along the box's height, from its centre
    along_x: AxisGrid  # along its width
    centre_y_feature: np.floating[Any]
    centre_x_feature: np.floating[Any]
    sine: np.floating[Any]
    cosine: np.floating[Any]

    def coordinates(
        self, bin_y: Int64Array, bin_x: Int64Array, row: Int64Array, column: Int64Array
    ) -> tuple[CoordinateArray, CoordinateArray]:
        """Coordinates y and x on the map of samples, by bin and place within the bin."""
        y_own = self.along_y.coordinates(bin_y, row)
        x_own = self.along_x.coordinates(bin_x, column)
        y = y_own * self.cosine - x_own * self.sine + self.centre_y_feature
        x = y_own * self.sine + x_own * self.cosine + self.centre_x_feature
        return y, x


def _lay(box: CoordinateArray, attributes: AlignAttributes, turn: _Turn) -> _RotatedGrid:
    centre_x_image, centre_y_image, width_image, height_image, angle = box
    rule, real = attributes.rule, type(angle)

    def along(length_image: np.floating[Any], num_bins: int) -> AxisGrid:
        length = counted_length(length_image * real(rule.spatial_scale), rule)
        return lay_grid(-length / real(2), length, num_bins, rule)

    sine, cosine = turn.sine_and_cosine(angle)
    return _RotatedGrid(
        along(height_image, attributes.output_height),
        along(width_image, attributes.output_width),
        coordinate_feature(centre_y_image, rule),
        coordinate_feature(centre_x_image, rule),
        sine,
        cosine,
    )


def _samples_on_map(
    grid: _RotatedGrid, attributes: AlignAttributes, height: int, width: int
) -> _Samples:
    """Finds the samples on the map without a look at all: blocks of a bin's samples are halved.

    Rounding is monotonous, so both coordinates of a sample lie between those of the corners of any
    block that it belongs to; a block whose corners are all on one side of the map is dropped.
    """
    blocks = _Blocks.whole_bins(grid, attributes)
    while True:
        blocks = blocks.keep(blocks.may_reach(grid, height, width))
        if not blocks.divisible():
            break
        blocks = blocks.halved()
    blocks = blocks.keep(np.lexsort((blocks.column, blocks.row, blocks.bin_x, blocks.bin_y)))
    y, x = grid.coordinates(blocks.bin_y, blocks.bin_x, blocks.row, blocks.column)
    return _Samples(
        blocks.bin_y * attributes.output_width + blocks.bin_x,
        blocks.row * grid.along_x.samples_per_bin + blocks.column,
        neighbours_of(y, height),
        neighbours_of(x, width),
    )


class _Blocks(NamedTuple):
    """Rectangles of samples, each within one bin: rows `row ... end_row - 1`, likewise columns."""

    bin_y: Int64Array
    bin_x: Int64Array
    row: Int64Array
    end_row: Int64Array
    column: Int64Array
    end_column: Int64Array

    @classmethod
    def whole_bins(cls, grid: _RotatedGrid, attributes: AlignAttributes) -> _Blocks:
        """One block for each bin, none where bins have no samples."""
        rows, columns = grid.along_y.samples_per_bin, grid.along_x.samples_per_bin
        bin_y, bin_x = np.indices((attributes.output_height, attributes.output_width))
        zero = np.zeros(bin_y.size, np.int64)
        blocks = cls(bin_y.ravel(), bin_x.ravel(), zero, zero + rows, zero, zero + columns)
        return blocks.keep(np.full(bin_y.size, rows > 0 and columns > 0))

    def keep(self, which: npt.NDArray[Any]) -> _Blocks:
        """Some of the blocks, by a mask or by their numbers."""
        return _Blocks(*(field[which] for field in self))

    def may_reach(self, grid: _RotatedGrid, height: int, width: int) -> npt.NDArray[np.bool_]:
        """Whether the rectangle around a block meets the map; exact for a single sample."""
        corners = [
            grid.coordinates(self.bin_y, self.bin_x, row, column)
            for row in (self.row, self.end_row - 1)
            for column in (self.column, self.end_column - 1)
        ]
        y, x = (np.stack(coordinate) for coordinate in zip(*corners, strict=True))
        reaches_y = (y.max(axis=0) >= -1) & (y.min(axis=0) <= height)
        reaches_x = (x.max(axis=0) >= -1) & (x.min(axis=0) <= width)
        return np.asarray(reaches_y & reaches_x)

    def divisible(self) -> bool:
        """Whether a block has more than one sample."""
        return bool(((self.end_row - self.row > 1) | (self.end_column - self.column > 1)).any())

    def halved(self) -> _Blocks:
        """The blocks cut in two along both axes."""
        middle_row = (self.row + self.end_row + 1) // 2
        middle_column = (self.column + self.end_column + 1) // 2
        rows = ((self.row, middle_row), (middle_row, self.end_row))
        columns = ((self.column, middle_column), (middle_column, self.end_column))
        parts = [
            _Blocks(self.bin_y, self.bin_x, *row_range, *column_range)
            for row_range in rows
            for column_range in columns
        ]
        together = _Blocks(*(np.concatenate(field) for field in zip(*parts, strict=True)))
        return together.keep(
            (together.row < together.end_row) & (together.column < together.end_column)
        )


def _bins(samples: _Samples, num_bins: int) -> Iterator[tuple[int, slice]]:
    """Each bin's number, and where its samples are."""
    begins = np.searchsorted(samples.bin, np.arange(num_bins + 1))
    for number in range(num_bins):
        yield number, slice(int(begins[number]), int(begins[number + 1]))


def _corners(samples: _Samples) -> Iterator[tuple[Int64Array, Int64Array, Float64Array]]:
    """The four cells around each sample: rows, columns, weights."""
    y, x = samples.y, samples.x
    for rows, weight_y in ((y.low, 1 - y.fraction), (y.high, y.fraction)):
        for columns, weight_x in ((x.low, 1 - x.fraction), (x.high, x.fraction)):
            yield rows, columns, weight_y * weight_x


def _interpolate(feature_map: Float64Array, samples: _Samples) -> Float64Array:
    """The surface at the samples, [C, S]."""
    values = np.zeros((len(feature_map), len(samples.bin)))
    with np.errstate(invalid="ignore"):
        for rows, columns, weights in _corners(samples):
            values += feature_map[:, rows, columns] * weights
    return values


def _scatter(dy_samples: Float64Array, samples: _Samples, dx_image: Float64Array) -> None:
    """Adds gradients [C, S] of samples to the cells around them."""
    dx_cells = dx_image.transpose(1, 2, 0)  # a view
    with np.errstate(invalid="ignore"):
        for rows, columns, weights in _corners(samples):
            np.add.at(dx_cells, (rows, columns), (dy_samples * weights).T)


def _scatter_maximum(dy_bins: Float64Array, region: _Region, dx_image: Float64Array) -> None:
    """Each bin sends its gradient to its winning sample, or nowhere if that is outside."""
    values = _interpolate(region.feature_map, region.samples)
    dy_samples = np.zeros(values.shape)
    for number, of_bin in _bins(region.samples, dy_bins.shape[1]):
        numbers = region.samples.number[of_bin]
        _, winner = largest_sample(values[:, of_bin], numbers, region.num_samples)
        channels = np.flatnonzero(winner >= 0)
        dy_samples[channels, of_bin.start + winner[channels]] = dy_bins[channels, number]
    _scatter(dy_samples, region.samples, dx_image)
