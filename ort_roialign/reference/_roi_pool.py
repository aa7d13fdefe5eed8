"""RoiPool and its gradient: Girshick, "Fast R-CNN", 2015, section 2.1; torchvision's `roi_pool`.

A box is rounded to whole cells, each bin to whole cells that may overlap, and the largest cell of
a bin is its value. Differs from torchvision in that a NaN cell wins, so that it is not hidden, and
that a bin whose cells are all minus infinity has a winner.

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
    Int64Array,
    RegionInputs,
    check_inputs,
    check_output_gradient,
    check_output_size,
    check_spatial_scale,
)

# A box edge further out than this counts as being here: the limit is exact in float32, and int64
# holds every sum of edges.
MAX_EDGE_CELLS = 2**31


def roi_pool(
    x: npt.ArrayLike,
    rois: npt.ArrayLike,
    batch_indices: npt.ArrayLike,
    *,
    output_height: int = 1,
    output_width: int = 1,
    spatial_scale: float = 1.0,
) -> tuple[Float64Array, Int64Array]:
    """Takes the maximum of each bin of each region, with boxes and bins rounded to whole cells.

    Args:
        x: feature maps [N, C, H, W]; float16, bfloat16, float32 or float64.
        rois: boxes [R, 4] as x1, y1, x2, y2 in image pixels; x2 and y2 belong to the box.
        batch_indices: integers [R], the image of each box, in [0, N).
        output_height: bins PH along y.
        output_width: bins PW along x.
        spatial_scale: feature cells per image pixel; rounded to float32.

    Returns:
        The maxima, float64 [R, C, PH, PW], and the winning cells as row * W + column, int64 of the
        same shape. The first cell wins a tie, the first NaN wins over all. A bin without cells on
        the map has the value 0 and the cell -1.

    Raises:
        InvalidArgumentError: an argument breaks the rules above, or a coordinate is not finite.

    Source:
        Girshick, "Fast R-CNN", 2015, section 2.1; torchvision.ops.roi_pool.
    """
    check_output_size("RoiPool", output_height, output_width)
    scale = check_spatial_scale("RoiPool", spatial_scale)
    inputs = check_inputs("RoiPool", x, rois, batch_indices)
    return _pool(inputs, output_height, output_width, scale)


def roi_pool_grad(
    dy: npt.ArrayLike,
    x: npt.ArrayLike,
    rois: npt.ArrayLike,
    batch_indices: npt.ArrayLike,
    *,
    output_height: int = 1,
    output_width: int = 1,
    spatial_scale: float = 1.0,
) -> Float64Array:
    """Gradient of a loss for the feature maps of `roi_pool`, from the one for its output.

    Each bin sends its gradient to its winning cell; an empty bin sends nothing.

    Args:
        dy: gradient for the output, [R, C, PH, PW].
        x: feature maps [N, C, H, W]; float16, bfloat16, float32 or float64.
        rois: boxes [R, 4] as x1, y1, x2, y2 in image pixels.
        batch_indices: integers [R], the image of each box, in [0, N).
        output_height: bins PH along y.
        output_width: bins PW along x.
        spatial_scale: feature cells per image pixel.

    Returns:
        The gradient for `x`, float64 [N, C, H, W].

    Raises:
        InvalidArgumentError: as `roi_pool`, or `dy` does not have the output's shape.

    Source:
        Girshick, "Fast R-CNN", 2015, section 2.3.
    """
    check_output_size("RoiPoolGrad", output_height, output_width)
    scale = check_spatial_scale("RoiPoolGrad", spatial_scale)
    inputs = check_inputs("RoiPoolGrad", x, rois, batch_indices)
    num_images, channels, height, width = inputs.feature_maps.shape
    output_shape = (len(inputs.boxes_image), channels, output_height, output_width)
    dy_checked = check_output_gradient("RoiPoolGrad", dy, output_shape)

    _, argmax = _pool(inputs, output_height, output_width, scale)
    roi, channel, _, _ = has_winner = np.nonzero(argmax >= 0)
    dx = np.zeros((num_images, channels, height * width))
    cells = (inputs.batch_indices[roi], channel, argmax[has_winner])
    np.add.at(dx, cells, dy_checked[has_winner])
    return dx.reshape(inputs.feature_maps.shape)


class _Window(NamedTuple):
    """The cells of one bin: rows `begin_y ... end_y - 1`, likewise the columns; may be none."""

    roi: int
    ph: int
    pw: int
    begin_y: int
    end_y: int
    begin_x: int
    end_x: int


def _pool(
    inputs: RegionInputs, output_height: int, output_width: int, scale: np.float32
) -> tuple[Float64Array, Int64Array]:
    channels, _, map_width = inputs.feature_maps.shape[1:]
    y = np.zeros((len(inputs.boxes_image), channels, output_height, output_width))
    argmax = np.full(y.shape, -1, np.int64)
    for window in _windows(inputs, output_height, output_width, scale):
        rows, columns = window.end_y - window.begin_y, window.end_x - window.begin_x
        if rows <= 0 or columns <= 0:
            continue
        feature_map = inputs.feature_maps[inputs.batch_indices[window.roi]]
        cells = feature_map[:, window.begin_y : window.end_y, window.begin_x : window.end_x]
        values = cells.reshape(channels, rows * columns)
        # argmax takes a NaN for larger than any number, and the first of equals.
        winner = values.argmax(axis=1)
        row, column = np.divmod(winner, columns)
        bin_index = (window.roi, slice(None), window.ph, window.pw)
        y[bin_index] = values[np.arange(channels), winner]
        argmax[bin_index] = (window.begin_y + row) * map_width + (window.begin_x + column)
    return y, argmax


def _windows(
    inputs: RegionInputs, output_height: int, output_width: int, scale: np.float32
) -> Iterator[_Window]:
    height, width = inputs.feature_maps.shape[2:]
    for roi, (x1, y1, x2, y2) in enumerate(inputs.boxes_image):
        bins_y = round_to_cells(y1, y2, output_height, scale, end_belongs=True, limit_cell=height)
        bins_x = round_to_cells(x1, x2, output_width, scale, end_belongs=True, limit_cell=width)
        for ph, pw in np.ndindex(output_height, output_width):
            yield _Window(roi, ph, pw, *bins_y[ph], *bins_x[pw])


def round_to_cells(
    begin_image: np.floating[Any],
    end_image: np.floating[Any],
    num_bins: int,
    scale: np.float32,
    *,
    end_belongs: bool,
    limit_cell: int,
) -> list[tuple[int, int]]:
    """Rounds a box along one axis to whole cells, at least one, and its bins too.

    Args:
        begin_image: x1 or y1 in image pixels; its type is that of all coordinate arithmetic.
        end_image: x2 or y2 in image pixels, of the same type.
        num_bins: bins along the axis.
        scale: feature cells per image pixel.
        end_belongs: whether the cell that the end is rounded to belongs to the box.
        limit_cell: bins are cut off at this cell.

    Returns:
        First and one past the last cell of each bin, in [0, limit_cell]; a bin may have none.
    """
    real = type(begin_image)
    with np.errstate(over="ignore"):
        begin_cell = _round_to_cell(begin_image * real(scale))
        end_cell = _round_to_cell(end_image * real(scale)) + end_belongs
    num_cells = max(end_cell - begin_cell, 1)
    bin_size_cells = np.int64(num_cells).astype(real) / real(num_bins)
    bins = []
    for number in range(num_bins):
        begin = begin_cell + int(np.floor(real(number) * bin_size_cells))
        end = begin_cell + int(np.ceil(real(number + 1) * bin_size_cells))
        bins.append((min(max(begin, 0), limit_cell), min(max(end, 0), limit_cell)))
    return bins


def _round_to_cell(coordinate: np.floating[Any]) -> int:
    """The nearest integer, halves away from zero as C's `round`; NumPy's goes to even."""
    magnitude = min(abs(float(coordinate)), float(MAX_EDGE_CELLS))
    nearest = int(magnitude)
    nearest += magnitude - nearest >= 0.5
    return -nearest if coordinate < 0 else nearest
