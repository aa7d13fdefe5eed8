"""DeformRoiPool and its gradients: RoIAlign's average, each bin moved by an offset of its own.

Dai et al., "Deformable Convolutional Networks", 2017, section 2.2, with RoIAlign's samples as
mmcv's `DeformRoIPool` has it. The offset is in parts of the box's size, times `gamma`. The gradient
for the offset is the exact derivative of the bilinear surface; mmcv's is not 0 where a sample is
held at the first cell.

Letters: `N` images, `C` channels, `H W` height and width of the feature maps, `R` regions,
`PH PW` output bins.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ort_roialign.errors import InvalidArgumentError
from ort_roialign.reference._inputs import (
    CoordinateArray,
    Float64Array,
    RegionInputs,
    check_finite,
    check_inputs,
    check_output_gradient,
    shape_text,
)
from ort_roialign.reference._roi_align import (
    AlignAttributes,
    average,
    check_attributes,
    output_shape,
    scatter_average,
    weighted_average,
)
from ort_roialign.reference._sampling import AxisGrid, BinSamples, lay_side, sample_bins


def deform_roi_pool(
    x: npt.ArrayLike,
    rois: npt.ArrayLike,
    batch_indices: npt.ArrayLike,
    offset: npt.ArrayLike | None = None,
    *,
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
    coordinate_transformation_mode: str = "half_pixel",
    gamma: float = 0.1,
) -> Float64Array:
    """Averages each bin of each region, moved by the bin's offset.

    Coordinates are computed in float32 (float64 for a float64 `x`), everything else in float64.

    Args:
        x: feature maps [N, C, H, W]; float16, bfloat16, float32 or float64.
        rois: boxes [R, 4] as x1, y1, x2, y2 in image pixels.
        batch_indices: integers [R], the image of each box, in [0, N).
        offset: [R, 2, PH, PW]: how far each bin moves along x, then along y, in units of `gamma`
            times the box's width or height; absent: no bin moves. A bin whose offset is not finite
            lies outside the map.
        output_height: bins PH along y.
        output_width: bins PW along x.
        sampling_ratio: samples per bin and axis; 0 takes ceil(box size in cells / bins).
        spatial_scale: feature cells per image pixel; rounded to float32.
        coordinate_transformation_mode: "half_pixel" or "output_half_pixel", as in `roi_align`.
        gamma: part of the box's size that an offset of 1 is; rounded to float32.

    Returns:
        The pooled regions, float64 [R, C, PH, PW].

    Raises:
        InvalidArgumentError: an argument breaks the rules above, or a coordinate is not finite.

    Source:
        Dai et al., "Deformable Convolutional Networks", 2017, section 2.2; mmcv.ops.DeformRoIPool.
    """
    operator = "DeformRoiPool"
    sampling = (sampling_ratio, spatial_scale, coordinate_transformation_mode)
    attributes = check_attributes(operator, "avg", (output_height, output_width), sampling)
    gamma_f32 = check_finite(operator, "gamma", gamma)
    inputs = check_inputs(operator, x, rois, batch_indices)
    offset_checked = _check_offset(operator, offset, inputs, attributes)
    y = np.zeros(output_shape(inputs, attributes))
    for moved in _moved_bins(inputs, offset_checked, attributes, gamma_f32):
        y[moved.roi, :, moved.ph, moved.pw] = average(
            moved.feature_map, moved.samples_y, moved.samples_x
        )
    return y


def deform_roi_pool_grad(
    dy: npt.ArrayLike,
    x: npt.ArrayLike,
    rois: npt.ArrayLike,
    batch_indices: npt.ArrayLike,
    offset: npt.ArrayLike | None = None,
    *,
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
    coordinate_transformation_mode: str = "half_pixel",
    gamma: float = 0.1,
) -> tuple[Float64Array, Float64Array]:
    """Gradients of a loss for `x` and `offset` of `deform_roi_pool`, from the one for its output.

    Args:
        dy: gradient for the output, [R, C, PH, PW].
        x: feature maps [N, C, H, W]; float16, bfloat16, float32 or float64.
        rois: boxes [R, 4] as x1, y1, x2, y2 in image pixels.
        batch_indices: integers [R], the image of each box, in [0, N).
        offset: [R, 2, PH, PW], or absent.
        output_height: bins PH along y.
        output_width: bins PW along x.
        sampling_ratio: samples per bin and axis; 0 is adaptive.
        spatial_scale: feature cells per image pixel.
        coordinate_transformation_mode: "half_pixel" or "output_half_pixel".
        gamma: part of the box's size that an offset of 1 is.

    Returns:
        The gradient for `x`, float64 [N, C, H, W], and the one for the offset, float64
        [R, 2, PH, PW], at offset 0 where it is absent. On a cell's centre, where the surface has a
        kink, it is the derivative towards greater coordinates, but 0 on the first and on the last
        centre.

    Raises:
        InvalidArgumentError: as `deform_roi_pool`, or `dy` does not have the output's shape.

    Source:
        Dai et al., "Deformable Convolutional Networks", 2017, appendix A.
    """
    operator = "DeformRoiPoolGrad"
    sampling = (sampling_ratio, spatial_scale, coordinate_transformation_mode)
    attributes = check_attributes(operator, "avg", (output_height, output_width), sampling)
    gamma_f32 = check_finite(operator, "gamma", gamma)
    inputs = check_inputs(operator, x, rois, batch_indices)
    offset_checked = _check_offset(operator, offset, inputs, attributes)
    dy_checked = check_output_gradient(operator, dy, output_shape(inputs, attributes))
    dx = np.zeros(inputs.feature_maps.shape)
    doffset = np.zeros((len(dy_checked), 2, output_height, output_width))
    for moved in _moved_bins(inputs, offset_checked, attributes, gamma_f32):
        dy_bin = dy_checked[moved.roi, :, moved.ph, moved.pw]
        dx_image = dx[inputs.batch_indices[moved.roi]]
        scatter_average(dy_bin, moved.samples_y, moved.samples_x, dx_image)
        with np.errstate(invalid="ignore"):
            doffset[moved.roi, :, moved.ph, moved.pw] = moved.slopes() @ dy_bin
    return dx, doffset


def _check_offset(
    operator: str,
    offset: npt.ArrayLike | None,
    inputs: RegionInputs,
    attributes: AlignAttributes,
) -> CoordinateArray:
    """The offset in the type of the coordinates; zeros where it is absent."""
    real = inputs.boxes_image.dtype
    expected = (
        len(inputs.boxes_image),
        2,
        attributes.output_height,
        attributes.output_width,
    )
    if offset is None:
        return np.zeros(expected, real)
    given = np.asarray(offset)
    if given.shape != expected:
        raise InvalidArgumentError(
            f"{operator}: offset must have shape [num_rois, 2, output_height, output_width]"
            f" = {shape_text(expected)}; got {shape_text(given.shape)}"
        )
    moves: CoordinateArray = given.astype(real)
    return moves


class _MovedBin(NamedTuple):
    """One bin where its offset moved it to."""

    roi: int
    ph: int
    pw: int
    feature_map: Float64Array  # [C, H, W]
    samples_y: BinSamples
    samples_x: BinSamples
    step_y_feature: np.floating[Any]  # cells that an offset of 1 moves the bin by
    step_x_feature: np.floating[Any]

    def slopes(self) -> Float64Array:
        """Derivatives [2, C] of the bin's average by its offset along x, and along y."""
        num_samples = self.samples_y.num_samples * self.samples_x.num_samples
        along_x = weighted_average(
            self.feature_map, self.samples_y.taps, self.samples_x.slope_taps, num_samples
        )
        along_y = weighted_average(
            self.feature_map, self.samples_y.slope_taps, self.samples_x.taps, num_samples
        )
        return np.stack(
            [float(self.step_x_feature) * along_x, float(self.step_y_feature) * along_y]
        )


def _moved_bins(
    inputs: RegionInputs, offset: CoordinateArray, attributes: AlignAttributes, gamma: np.float32
) -> Iterator[_MovedBin]:
    height, width = inputs.feature_maps.shape[2:]
    for roi, (x1, y1, x2, y2) in enumerate(inputs.boxes_image):
        grid_y = lay_side(y1, y2, attributes.output_height, attributes.rule)
        grid_x = lay_side(x1, x2, attributes.output_width, attributes.rule)
        step_y_feature, step_x_feature = _step(grid_y, gamma), _step(grid_x, gamma)
        for ph, pw in np.ndindex(attributes.output_height, attributes.output_width):
            with np.errstate(over="ignore", invalid="ignore"):
                by_x, by_y = np.array([step_x_feature, step_y_feature]) * offset[roi, :, ph, pw]
            yield _MovedBin(
                roi,
                ph,
                pw,
                inputs.feature_maps[inputs.batch_indices[roi]],
                _sample_bin(grid_y, ph, by_y, height),
                _sample_bin(grid_x, pw, by_x, width),
                step_y_feature,
                step_x_feature,
            )


def _step(grid: AxisGrid, gamma: np.float32) -> np.floating[Any]:
    with np.errstate(over="ignore", invalid="ignore"):
        step: np.floating[Any] = type(grid.length_feature)(gamma) * grid.length_feature
    return step


def _sample_bin(
    grid: AxisGrid, number: int, by_feature: np.floating[Any], extent_cells: int
) -> BinSamples:
    (samples,) = sample_bins(grid.moved(by_feature), np.array([number]), extent_cells)
    return samples
