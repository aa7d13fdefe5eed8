"""RoiAlign and its gradient: He et al., "Mask R-CNN", 2017, section 3; ONNX RoiAlign-16.

The maximum is taken over the interpolated samples, as the paper says. ONNX's own reference and
ONNX Runtime take it over the weighted corners instead, which is not a value of the surface.

Letters: `N` images, `C` channels, `H W` height and width of the feature maps, `R` regions,
`PH PW` output bins.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ort_roialign.reference._inputs import (
    Float64Array,
    Int64Array,
    RegionInputs,
    check_choice,
    check_inputs,
    check_output_gradient,
    check_output_size,
    check_sampling_ratio,
    check_spatial_scale,
)
from ort_roialign.reference._sampling import (
    ORIGIN_OFFSET_CELLS,
    BinSamples,
    SamplingRule,
    sample_axis,
)


def roi_align(
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
) -> Float64Array:
    """Pools each region into a fixed number of bins, without rounding its box.

    Coordinates are computed in float32 (float64 for a float64 `x`), everything else in float64.

    Args:
        x: feature maps [N, C, H, W]; float16, bfloat16, float32 or float64.
        rois: boxes [R, 4] as x1, y1, x2, y2 in image pixels.
        batch_indices: integers [R], the image of each box, in [0, N).
        mode: "avg" or "max" of a bin's interpolated samples. A sample more than one cell outside
            the map has the value 0; a bin without samples is 0. A NaN sample makes the bin NaN.
        output_height: bins PH along y.
        output_width: bins PW along x.
        sampling_ratio: samples per bin and axis; 0 takes ceil(box size in cells / bins).
        spatial_scale: feature cells per image pixel; rounded to float32.
        coordinate_transformation_mode: "half_pixel" subtracts half a cell from the scaled box;
            "output_half_pixel" does not, and makes every box at least one cell wide and high.

    Returns:
        The pooled regions, float64 [R, C, PH, PW].

    Raises:
        InvalidArgumentError: an argument breaks the rules above, or a coordinate is not finite.

    Source:
        He et al., "Mask R-CNN", 2017, section 3; the ONNX operator RoiAlign-16.
    """
    attributes = check_attributes(
        "RoiAlign",
        mode,
        (output_height, output_width),
        (sampling_ratio, spatial_scale, coordinate_transformation_mode),
    )
    inputs = check_inputs("RoiAlign", x, rois, batch_indices)
    y = np.zeros(output_shape(inputs, attributes))
    for region in _regions(inputs, attributes):
        for ph, pw in np.ndindex(output_height, output_width):
            samples_y, samples_x = region.bins_y[ph], region.bins_x[pw]
            if mode == "avg":
                y[region.roi, :, ph, pw] = average(region.feature_map, samples_y, samples_x)
            else:
                winners = _maximum(region.feature_map, samples_y, samples_x)
                y[region.roi, :, ph, pw] = winners.value
    return y


def roi_align_grad(
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
) -> Float64Array:
    """Gradient of a loss for the feature maps of `roi_align`, from the one for its output.

    An average sends its gradient back through the same weights; a maximum to the four cells around
    the winning sample (the first of equals in row-major order), or nowhere if that is outside.

    Args:
        dy: gradient for the output, [R, C, PH, PW].
        x: feature maps [N, C, H, W]; float16, bfloat16, float32 or float64.
        rois: boxes [R, 4] as x1, y1, x2, y2 in image pixels.
        batch_indices: integers [R], the image of each box, in [0, N).
        mode: as in `roi_align`, like all that follow.
        output_height: bins PH along y.
        output_width: bins PW along x.
        sampling_ratio: samples per bin and axis; 0 is adaptive.
        spatial_scale: feature cells per image pixel.
        coordinate_transformation_mode: "half_pixel" or "output_half_pixel".

    Returns:
        The gradient for `x`, float64 [N, C, H, W].

    Raises:
        InvalidArgumentError: as `roi_align`, or `dy` does not have the output's shape.

    Source:
        The transpose of He et al., "Mask R-CNN", 2017, section 3.
    """
    attributes = check_attributes(
        "RoiAlignGrad",
        mode,
        (output_height, output_width),
        (sampling_ratio, spatial_scale, coordinate_transformation_mode),
    )
    inputs = check_inputs("RoiAlignGrad", x, rois, batch_indices)
    dy_checked = check_output_gradient("RoiAlignGrad", dy, output_shape(inputs, attributes))
    dx = np.zeros(inputs.feature_maps.shape)
    for region in _regions(inputs, attributes):
        dx_image, dy_region = dx[inputs.batch_indices[region.roi]], dy_checked[region.roi]
        for ph, pw in np.ndindex(output_height, output_width):
            samples_y, samples_x = region.bins_y[ph], region.bins_x[pw]
            dy_bin = dy_region[:, ph, pw]
            if mode == "avg":
                scatter_average(dy_bin, samples_y, samples_x, dx_image)
            else:
                winners = _maximum(region.feature_map, samples_y, samples_x)
                _scatter_maximum(dy_bin, winners, samples_y, samples_x, dx_image)
    return dx


@dataclass(frozen=True)
class AlignAttributes:
    """The checked attributes that all operators with RoIAlign's samples share."""

    output_height: int
    output_width: int
    rule: SamplingRule


class _Region(NamedTuple):
    """One region: the map it reads and its samples, for each row and each column of bins."""

    roi: int
    feature_map: Float64Array  # [C, H, W]
    bins_y: list[BinSamples]  # [PH]
    bins_x: list[BinSamples]  # [PW]


class _Winners(NamedTuple):
    """The maximum of a bin, for each channel."""

    value: Float64Array  # [C]
    sample_y: Int64Array  # [C]: its row among the samples on the map; -1: it is not on the map
    sample_x: Int64Array  # [C]: likewise its column


def check_attributes(
    operator: str, mode: str, output_size: tuple[int, int], sampling: tuple[int, float, str]
) -> AlignAttributes:
    """Checks the attributes that all operators with RoIAlign's samples share.

    Args:
        operator: its name, for the error texts.
        mode: "avg" or "max".
        output_size: output_height and output_width.
        sampling: sampling_ratio, spatial_scale and coordinate_transformation_mode.

    Raises:
        InvalidArgumentError: an attribute has a value that it may not have.
    """
    output_height, output_width = output_size
    sampling_ratio, spatial_scale, coordinate_transformation_mode = sampling
    check_choice(operator, "mode", mode, ("avg", "max"))
    check_output_size(operator, output_height, output_width)
    check_sampling_ratio(operator, sampling_ratio)
    scale = check_spatial_scale(operator, spatial_scale)
    check_choice(
        operator,
        "coordinate_transformation_mode",
        coordinate_transformation_mode,
        tuple(ORIGIN_OFFSET_CELLS),
    )
    rule = SamplingRule(scale, sampling_ratio, coordinate_transformation_mode)
    return AlignAttributes(output_height, output_width, rule)


def output_shape(inputs: RegionInputs, attributes: AlignAttributes) -> tuple[int, int, int, int]:
    """The shape of the pooled regions, [R, C, PH, PW]."""
    num_rois, channels = len(inputs.boxes_image), inputs.feature_maps.shape[1]
    return num_rois, channels, attributes.output_height, attributes.output_width


def _regions(inputs: RegionInputs, attributes: AlignAttributes) -> Iterator[_Region]:
    height, width = inputs.feature_maps.shape[2:]
    for roi, (x1, y1, x2, y2) in enumerate(inputs.boxes_image):
        yield _Region(
            roi,
            inputs.feature_maps[inputs.batch_indices[roi]],
            sample_axis(y1, y2, attributes.output_height, height, attributes.rule),
            sample_axis(x1, x2, attributes.output_width, width, attributes.rule),
        )


def _num_samples(samples_y: BinSamples, samples_x: BinSamples) -> int:
    """All samples of a bin: those outside the map count in the average too."""
    return samples_y.num_samples * samples_x.num_samples


def average(
    feature_map: Float64Array, samples_y: BinSamples, samples_x: BinSamples
) -> Float64Array:
    """The average [C] of a bin; a sample's weight is a y-weight times an x-weight."""
    num_samples = _num_samples(samples_y, samples_x)
    return weighted_average(feature_map, samples_y.taps, samples_x.taps, num_samples)


def weighted_average(
    feature_map: Float64Array,
    taps_y: tuple[Int64Array, Float64Array],
    taps_x: tuple[Int64Array, Float64Array],
    num_samples: int,
) -> Float64Array:
    """The sum [C] over cells of y-weight times x-weight times cell, divided by `num_samples`."""
    (rows, weights_y), (columns, weights_x) = taps_y, taps_x
    window = feature_map[:, rows[:, np.newaxis], columns]
    with np.errstate(invalid="ignore"):
        total = np.einsum("chw,h,w->c", window, weights_y, weights_x)
    return np.asarray(total / max(num_samples, 1))


def scatter_average(
    dy_bin: Float64Array, samples_y: BinSamples, samples_x: BinSamples, dx_image: Float64Array
) -> None:
    """Adds to the gradient [C, H, W] of the map what one from `average`, [C], sends there."""
    (rows, weights_y), (columns, weights_x) = samples_y.taps, samples_x.taps
    share = dy_bin / max(_num_samples(samples_y, samples_x), 1)
    with np.errstate(invalid="ignore"):
        contribution = np.einsum("c,h,w->chw", share, weights_y, weights_x)
        dx_image[:, rows[:, np.newaxis], columns] += contribution


def _maximum(feature_map: Float64Array, samples_y: BinSamples, samples_x: BinSamples) -> _Winners:
    """The largest sample of a bin, for each channel: the first of equals, the first NaN if any."""
    values = _interpolate(feature_map, samples_y, samples_x)
    rows = samples_y.first_inside + np.arange(samples_y.num_inside)
    columns = samples_x.first_inside + np.arange(samples_x.num_inside)
    numbers = rows[:, np.newaxis] * samples_x.num_samples + columns
    value, winner = largest_sample(
        values.reshape(len(values), numbers.size),
        numbers.ravel(),
        _num_samples(samples_y, samples_x),
    )
    sample_y, sample_x = np.divmod(winner, max(samples_x.num_inside, 1))
    return _Winners(value, sample_y, sample_x)


def largest_sample(
    values: Float64Array, numbers: Int64Array, num_samples: int
) -> tuple[Float64Array, Int64Array]:
    """The maximum over a bin's samples, for each channel.

    Args:
        values: [C, num_inside], of the samples on the map; those outside are equal to 0.
        numbers: [num_inside], ascending: which of the bin's samples these are, in row-major order.
        num_samples: how many the bin has in all.

    Returns:
        The maxima [C], and the winners' places in `values` [C]: the first of equals, the first NaN
        if any; -1 where a sample outside wins or there is no sample.
    """
    channels, num_inside = values.shape
    if num_inside == 0:
        return np.zeros(channels), np.full(channels, -1, np.int64)
    # argmax takes a NaN for larger than any number.
    winner = values.argmax(axis=1)
    value = values[np.arange(channels), winner]
    if num_samples == num_inside:
        return value, winner
    # All samples outside are equal to 0, so the first of them stands for all.
    others = np.flatnonzero(numbers != np.arange(num_inside))
    first_outside = others[0] if len(others) else num_inside
    zero_wins = (value < 0) | ((value == 0) & (first_outside < numbers[winner]))
    return np.where(zero_wins, 0.0, value), np.where(zero_wins, -1, winner)


def _interpolate(
    feature_map: Float64Array, samples_y: BinSamples, samples_x: BinSamples
) -> Float64Array:
    """The surface at the samples on the map, [C, num_inside_y, num_inside_x]."""
    at_rows = _mix(
        feature_map[:, samples_y.low, :], feature_map[:, samples_y.high, :], samples_y, axis=1
    )
    return _mix(at_rows[:, :, samples_x.low], at_rows[:, :, samples_x.high], samples_x, axis=2)


def _mix(low: Float64Array, high: Float64Array, samples: BinSamples, axis: int) -> Float64Array:
    fraction = np.expand_dims(samples.fraction, [other for other in range(3) if other != axis])
    with np.errstate(invalid="ignore"):
        return (1 - fraction) * low + fraction * high


def _scatter_maximum(
    dy_bin: Float64Array,
    winners: _Winners,
    samples_y: BinSamples,
    samples_x: BinSamples,
    dx_image: Float64Array,
) -> None:
    channels = np.flatnonzero(winners.sample_y >= 0)
    sample_y, sample_x = winners.sample_y[channels], winners.sample_x[channels]
    fraction_y, fraction_x = samples_y.fraction[sample_y], samples_x.fraction[sample_x]
    corners_y = ((samples_y.low, 1 - fraction_y), (samples_y.high, fraction_y))
    corners_x = ((samples_x.low, 1 - fraction_x), (samples_x.high, fraction_x))
    with np.errstate(invalid="ignore"):
        for rows, weight_y in corners_y:
            for columns, weight_x in corners_x:
                cells = (channels, rows[sample_y], columns[sample_x])
                dx_image[cells] += dy_bin[channels] * weight_y * weight_x
