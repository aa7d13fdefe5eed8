"""PsRoiPool and its gradient: Dai et al., "R-FCN", 2016, section 2; torchvision's `ps_roi_pool`.

Position-sensitive pooling: each bin reads channels of its own, bin `(ph, pw)` of output channel `c`
the channel `(c * PH + ph) * PW + pw` of the maps. Box and bins are rounded to whole cells, and a
bin is the average of its cells. As in torchvision, bins end before the map's last row and column.
Differs in the gradient, which is the transpose of this; there, torchvision's end one cell later.

Letters: `N` images, `C` channels, `H W` height and width of the feature maps, `R` regions,
`PH PW` output bins.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

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
from ort_roialign.reference._ps_roi_align import position_sensitive_channels
from ort_roialign.reference._roi_pool import round_to_cells


def ps_roi_pool(
    x: npt.ArrayLike,
    rois: npt.ArrayLike,
    batch_indices: npt.ArrayLike,
    *,
    output_height: int = 1,
    output_width: int = 1,
    spatial_scale: float = 1.0,
) -> Float64Array:
    """Averages the cells of each bin of each region, each bin in channels of its own.

    Args:
        x: feature maps [N, C, H, W], C a multiple of PH * PW; float16, bfloat16, float32 or
            float64.
        rois: boxes [R, 4] as x1, y1, x2, y2 in image pixels; the cells that x2 and y2 are rounded
            to do not belong to the box.
        batch_indices: integers [R], the image of each box, in [0, N).
        output_height: bins PH along y.
        output_width: bins PW along x.
        spatial_scale: feature cells per image pixel; rounded to float32.

    Returns:
        The averages, float64 [R, C / (PH * PW), PH, PW]. A bin without cells is 0.

    Raises:
        InvalidArgumentError: an argument breaks the rules above, or a coordinate is not finite.

    Source:
        Dai et al., "R-FCN", 2016, section 2; torchvision.ops.ps_roi_pool.
    """
    operator, output_size = "PsRoiPool", (output_height, output_width)
    check_output_size(operator, *output_size)
    scale = check_spatial_scale(operator, spatial_scale)
    inputs = check_inputs(operator, x, rois, batch_indices)
    channels = position_sensitive_channels(operator, inputs, *output_size)
    y = np.zeros((len(inputs.boxes_image), channels, *output_size))
    maps = _by_position(inputs.feature_maps, channels, *output_size)
    for window in _windows(inputs, *output_size, scale):
        with np.errstate(invalid="ignore"):
            total = maps[window.cells].sum(axis=(1, 2))
        y[window.bin] = total / window.num_cells
    return y


def ps_roi_pool_grad(
    dy: npt.ArrayLike,
    x: npt.ArrayLike,
    rois: npt.ArrayLike,
    batch_indices: npt.ArrayLike,
    *,
    output_height: int = 1,
    output_width: int = 1,
    spatial_scale: float = 1.0,
) -> Float64Array:
    """Gradient of a loss for the feature maps of `ps_roi_pool`, from the one for its output.

    Each bin sends equal shares of its gradient to its cells; an empty bin sends nothing.

    Args:
        dy: gradient for the output, [R, C / (PH * PW), PH, PW].
        x: feature maps [N, C, H, W]; float16, bfloat16, float32 or float64.
        rois: boxes [R, 4] as x1, y1, x2, y2 in image pixels.
        batch_indices: integers [R], the image of each box, in [0, N).
        output_height: bins PH along y.
        output_width: bins PW along x.
        spatial_scale: feature cells per image pixel.

    Returns:
        The gradient for `x`, float64 [N, C, H, W].

    Raises:
        InvalidArgumentError: as `ps_roi_pool`, or `dy` does not have the output's shape.

    Source:
        The transpose of Dai et al., "R-FCN", 2016, section 2.
    """
    operator, output_size = "PsRoiPoolGrad", (output_height, output_width)
    check_output_size(operator, *output_size)
    scale = check_spatial_scale(operator, spatial_scale)
    inputs = check_inputs(operator, x, rois, batch_indices)
    channels = position_sensitive_channels(operator, inputs, *output_size)
    output_shape = (len(inputs.boxes_image), channels, output_height, output_width)
    dy_checked = check_output_gradient(operator, dy, output_shape)
    dx = np.zeros(inputs.feature_maps.shape)
    dx_maps = _by_position(dx, channels, *output_size)
    for window in _windows(inputs, *output_size, scale):
        share = dy_checked[window.bin] / window.num_cells
        with np.errstate(invalid="ignore"):
            dx_maps[window.cells] += share[:, np.newaxis, np.newaxis]
    return dx


class _Window(NamedTuple):
    """A bin that has cells: where it is in the output, and where its cells are in the maps."""

    bin: tuple[int, slice, int, int]  # of [R, C_out, PH, PW]
    cells: tuple[int, slice, int, int, slice, slice]  # of [N, C_out, PH, PW, H, W]
    num_cells: int  # of one channel


def _by_position(
    maps: Float64Array, channels: int, output_height: int, output_width: int
) -> Float64Array:
    """Maps [N, C, H, W] as a view [N, C_out, PH, PW, H, W]: the channels of each bin."""
    num_images, _, height, width = maps.shape
    return maps.reshape(num_images, channels, output_height, output_width, height, width)


def _windows(
    inputs: RegionInputs, output_height: int, output_width: int, scale: np.float32
) -> Iterator[_Window]:
    last_row, last_column = (extent - 1 for extent in inputs.feature_maps.shape[2:])
    every = slice(None)
    for roi, (x1, y1, x2, y2) in enumerate(inputs.boxes_image):
        image = int(inputs.batch_indices[roi])
        bins_y = round_to_cells(
            y1, y2, output_height, scale, end_belongs=False, limit_cell=last_row
        )
        bins_x = round_to_cells(
            x1, x2, output_width, scale, end_belongs=False, limit_cell=last_column
        )
        for ph, pw in np.ndindex(output_height, output_width):
            rows, columns = slice(*bins_y[ph]), slice(*bins_x[pw])
            num_cells = len(range(*bins_y[ph])) * len(range(*bins_x[pw]))
            if num_cells > 0:
                yield _Window(
                    (roi, every, ph, pw), (image, every, ph, pw, rows, columns), num_cells
                )
