"""PrRoiPool and its gradients: Jiang et al., "IoU-Net", 2018, section 3.2, equations 5 and 6.

Each bin is the integral of the interpolated map over the bin, divided by the bin's area: the exact
average, without any sample points. The interpolated map is a sum of hats, one for each cell, and
falls to 0 over one cell beyond the border; the hat of cell `i` along one axis is
`max(0, 1 - |t - i|)`. A cell's weight in a bin is thus a product of one integral per axis. A bin
depends smoothly on the box, so that there is a gradient for the boxes too.

Letters: `N` images, `C` channels, `H W` height and width of the feature maps, `R` regions,
`PH PW` output bins.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ort_roialign.reference._inputs import (
    Float64Array,
    RegionInputs,
    check_inputs,
    check_output_gradient,
    check_output_size,
    check_spatial_scale,
)


def pr_roi_pool(
    x: npt.ArrayLike,
    rois: npt.ArrayLike,
    batch_indices: npt.ArrayLike,
    *,
    output_height: int = 1,
    output_width: int = 1,
    spatial_scale: float = 1.0,
) -> Float64Array:
    """Averages the interpolated map over each bin of each region, exactly.

    Edges of bins are computed in float32 (float64 for a float64 `x`), everything else in float64.

    Args:
        x: feature maps [N, C, H, W]; float16, bfloat16, float32 or float64.
        rois: boxes [R, 4] as x1, y1, x2, y2 in image pixels; pixel 0 is the centre of cell 0.
        batch_indices: integers [R], the image of each box, in [0, N).
        output_height: bins PH along y.
        output_width: bins PW along x.
        spatial_scale: feature cells per image pixel; rounded to float32.

    Returns:
        The averages, float64 [R, C, PH, PW]. A box without area, or mirrored, gives 0.

    Raises:
        InvalidArgumentError: an argument breaks the rules above, or a coordinate is not finite.

    Source:
        Jiang et al., "IoU-Net", 2018, section 3.2, equation 5.
    """
    check_output_size("PrRoiPool", output_height, output_width)
    scale = check_spatial_scale("PrRoiPool", spatial_scale)
    inputs = check_inputs("PrRoiPool", x, rois, batch_indices)
    channels = inputs.feature_maps.shape[1]
    y = np.zeros((len(inputs.boxes_image), channels, output_height, output_width))
    for region in _regions(inputs, output_height, output_width, scale):
        for ph, pw in np.ndindex(output_height, output_width):
            rows, columns = region.bins_y[ph], region.bins_x[pw]
            window = region.feature_map[:, rows.cells, columns.cells]
            with np.errstate(invalid="ignore"):
                average = np.einsum("chw,h,w->c", window, rows.weights, columns.weights)
            y[region.roi, :, ph, pw] = average
    return y


def pr_roi_pool_grad(
    dy: npt.ArrayLike,
    x: npt.ArrayLike,
    rois: npt.ArrayLike,
    batch_indices: npt.ArrayLike,
    *,
    output_height: int = 1,
    output_width: int = 1,
    spatial_scale: float = 1.0,
) -> tuple[Float64Array, Float64Array]:
    """Gradients of a loss for the maps and boxes of `pr_roi_pool`, from the one for its output.

    Args:
        dy: gradient for the output, [R, C, PH, PW].
        x: feature maps [N, C, H, W]; float16, bfloat16, float32 or float64.
        rois: boxes [R, 4] as x1, y1, x2, y2 in image pixels.
        batch_indices: integers [R], the image of each box, in [0, N).
        output_height: bins PH along y.
        output_width: bins PW along x.
        spatial_scale: feature cells per image pixel.

    Returns:
        The gradient for `x`, float64 [N, C, H, W], and the one for `rois`, float64 [R, 4], per
        image pixel. Both are 0 where a box has no area or is mirrored.

    Raises:
        InvalidArgumentError: as `pr_roi_pool`, or `dy` does not have the output's shape.

    Source:
        Jiang et al., "IoU-Net", 2018, section 3.2, equation 6.
    """
    check_output_size("PrRoiPoolGrad", output_height, output_width)
    scale = check_spatial_scale("PrRoiPoolGrad", spatial_scale)
    inputs = check_inputs("PrRoiPoolGrad", x, rois, batch_indices)
    num_rois, channels = len(inputs.boxes_image), inputs.feature_maps.shape[1]
    output_shape = (num_rois, channels, output_height, output_width)
    dy_checked = check_output_gradient("PrRoiPoolGrad", dy, output_shape)
    dx, drois = np.zeros(inputs.feature_maps.shape), np.zeros((num_rois, 4))
    for region in _regions(inputs, output_height, output_width, scale):
        dx_image = dx[inputs.batch_indices[region.roi]]
        for ph, pw in np.ndindex(output_height, output_width):
            rows, columns = region.bins_y[ph], region.bins_x[pw]
            dy_bin = dy_checked[region.roi, :, ph, pw]
            window = region.feature_map[:, rows.cells, columns.cells]
            with np.errstate(invalid="ignore"):
                share = np.einsum("c,h,w->chw", dy_bin, rows.weights, columns.weights)
                dx_image[:, rows.cells, columns.cells] += share
                by_x = np.einsum("c,chw,h,ew->e", dy_bin, window, rows.weights, columns.slopes)
                by_y = np.einsum("c,chw,eh,w->e", dy_bin, window, rows.slopes, columns.weights)
                drois[region.roi] += [by_x[0], by_y[0], by_x[1], by_y[1]]
    return dx, drois


class _Bin(NamedTuple):
    """The cells whose hats reach into a bin along one axis; none where it is not on the map."""

    cells: slice  # of the map, along the axis
    weights: Float64Array  # [num_cells]: the average of the cell's hat over the bin
    slopes: (
        Float64Array  # [2, num_cells]: the weight's derivatives by the box's begin and end, 1/px
    )


class _Region(NamedTuple):
    """One region: the map it reads, and its rows and columns of bins."""

    roi: int
    feature_map: Float64Array  # [C, H, W]
    bins_y: list[_Bin]  # [PH]
    bins_x: list[_Bin]  # [PW]


_NO_CELLS = _Bin(slice(0, 0), np.zeros(0), np.zeros((2, 0)))


def _regions(
    inputs: RegionInputs, output_height: int, output_width: int, scale: np.float32
) -> Iterator[_Region]:
    height, width = inputs.feature_maps.shape[2:]
    for roi, (x1, y1, x2, y2) in enumerate(inputs.boxes_image):
        yield _Region(
            roi,
            inputs.feature_maps[inputs.batch_indices[roi]],
            _axis_bins(y1, y2, output_height, height, scale),
            _axis_bins(x1, x2, output_width, width, scale),
        )


def _axis_bins(
    begin_image: np.floating[Any],
    end_image: np.floating[Any],
    num_bins: int,
    extent_cells: int,
    scale: np.float32,
) -> list[_Bin]:
    real = type(begin_image)
    # Huge boxes may overflow to infinity; a bin whose edges are not numbers has no cells, nor has
    # one that ends before it begins.
    with np.errstate(over="ignore", invalid="ignore"):
        begin_feature = begin_image * real(scale)
        bin_size_feature = (end_image * real(scale) - begin_feature) / real(num_bins)
        edge_numbers = np.arange(num_bins + 1)
        edges_feature = begin_feature + edge_numbers.astype(real) * bin_size_feature
    edges = edges_feature.astype(np.float64)
    # By how many cells an edge of a bin moves with the box's begin and end, per image pixel.
    share_of_end = edge_numbers / num_bins
    edge_slopes = float(scale) * np.stack([1 - share_of_end, share_of_end])
    bins = []
    for low, high, slope_low, slope_high in zip(
        edges[:-1], edges[1:], edge_slopes.T[:-1], edge_slopes.T[1:], strict=True
    ):
        if not (low < high and low < extent_cells and high > -1):
            bins.append(_NO_CELLS)
            continue
        first = int(max(low, 0.0))
        last = int(min(np.ceil(max(high, 0.0)), extent_cells - 1))
        cells = np.arange(first, last + 1)
        # What lies between the edges as they are rounded: the weights inside the map add up to 1.
        size = high - low
        weights = _hat_integral(low, high, cells) / size
        # The quotient rule: of the integral, and of the bin's size.
        integral_slopes = np.outer(slope_high, _hat(high - cells))
        integral_slopes -= np.outer(slope_low, _hat(low - cells))
        slopes = (integral_slopes - np.outer(slope_high - slope_low, weights)) / size
        bins.append(_Bin(slice(first, last + 1), weights, slopes))
    return bins


def _hat(t: Float64Array) -> Float64Array:
    height: Float64Array = np.maximum(0.0, 1 - np.abs(t))
    return height


def _hat_integral(begin: float, end: float, cells: npt.NDArray[np.int64]) -> Float64Array:
    """The integrals of hats, a trapezoid on either slope, so that small bins lose no digits.

    Lengths are taken before the cell is subtracted, which would round them.
    """
    begin_up, end_up = np.clip(begin, cells - 1, cells), np.clip(end, cells - 1, cells)
    begin_down, end_down = np.clip(begin, cells, cells + 1), np.clip(end, cells, cells + 1)
    up = (end_up - begin_up) * (1 + ((begin_up - cells) + (end_up - cells)) / 2)
    down = (end_down - begin_down) * (1 - ((begin_down - cells) + (end_down - cells)) / 2)
    integral: Float64Array = up + down
    return integral
