"""The kernels of RoIAlign on a pyramid of maps, on NumPy arrays.

Letters: `N` images, `C` channels, `H W` height and width of the feature maps, `R` regions,
`H_l W_l` those of map `l`, `PH PW` output bins.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy.typing as npt

from ort_roialign.ops._call import Array, forward, gradient


def multi_scale_roi_align(
    rois: npt.ArrayLike,
    batch_indices: npt.ArrayLike,
    *maps: npt.ArrayLike,
    mode: str = "avg",
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scales: Sequence[float],
    coordinate_transformation_mode: str = "half_pixel",
    canonical_scale: float = 224.0,
    canonical_level: int = 4,
    min_level: int | None = None,
    max_level: int | None = None,
    log_epsilon: float = 0.0,
    level_epsilon: float = 1e-06,
    threads: int = 0,
) -> Array:
    """Pool each box, as `roi_align` does, from the map that its size says.

    Args:
        rois: boxes [R, 4] as x1, y1, x2, y2 in image pixels; of the maps' type, or float32 beside
            half-precision maps.
        batch_indices: integers [R], the image of each box, in [0, N).
        *maps: feature maps [N, C, H_l, W_l], the finest first; all of one type.
        mode: "avg" or "max" of a bin's interpolated samples.
        output_height: bins PH along y.
        output_width: bins PW along x.
        sampling_ratio: samples per bin and axis; 0 takes ceil(box size in cells / bins).
        spatial_scales: feature cells per image pixel, one of each map.
        coordinate_transformation_mode: "half_pixel" subtracts half a cell from the scaled box;
            "output_half_pixel" does not, and makes every box at least one cell wide and high.
        canonical_scale: side of a square box of the canonical level, in image pixels.
        canonical_level: level of such a box.
        min_level: level of the first map; by default -log2 of its scale, rounded.
        max_level: highest level in use; by default `min_level` and as many levels as the first and
            the last scale are apart.
        log_epsilon: added before the logarithm of the level's rule.
        level_epsilon: added to the level before it is rounded down.
        threads: to run on; 0: one a core that this process may use.

    Returns:
        Pooled boxes [R, C, PH, PW].

    Raises:
        InvalidArgumentError: an argument breaks the rules above, or a coordinate is not finite.

    Source:
        Lin et al., "Feature Pyramid Networks", 2017, equation 1.
    """
    return forward("MultiScaleRoiAlign", locals())[0]


def multi_scale_roi_align_grad(
    dy: npt.ArrayLike,
    rois: npt.ArrayLike,
    batch_indices: npt.ArrayLike,
    *maps: npt.ArrayLike,
    mode: str = "avg",
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scales: Sequence[float],
    coordinate_transformation_mode: str = "half_pixel",
    canonical_scale: float = 224.0,
    canonical_level: int = 4,
    min_level: int | None = None,
    max_level: int | None = None,
    log_epsilon: float = 0.0,
    level_epsilon: float = 1e-06,
    threads: int = 0,
) -> list[Array]:
    """Gradient of a loss for the inputs of `multi_scale_roi_align`, from the one for its output.

    `dy` is the gradient for the output, in its shape and type; the other arguments are those of
    `multi_scale_roi_align`.

    Returns:
        The gradient for each map, in its type and shape.

    Raises:
        InvalidArgumentError: as the forward operator, or `dy` does not have the output's shape.

    Source:
        The transpose of `multi_scale_roi_align`.
    """
    return gradient("MultiScaleRoiAlign", locals())


def multi_scale_roi_align_rotated(
    rois: npt.ArrayLike,
    batch_indices: npt.ArrayLike,
    *maps: npt.ArrayLike,
    mode: str = "avg",
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scales: Sequence[float],
    coordinate_transformation_mode: str = "half_pixel",
    angle_unit: str = "radians",
    clockwise: int = 0,
    canonical_scale: float = 224.0,
    canonical_level: int = 4,
    min_level: int | None = None,
    max_level: int | None = None,
    log_epsilon: float = 0.0,
    level_epsilon: float = 1e-06,
    threads: int = 0,
) -> Array:
    """Pool each turned box, as `roi_align_rotated` does, from the map that its size says.

    Args:
        rois: boxes [R, 5] as centre x, centre y, width and height in image pixels, and an angle;
            of the maps' type, or float32 beside half-precision maps.
        batch_indices: integers [R], the image of each box, in [0, N).
        *maps: feature maps [N, C, H_l, W_l], the finest first; all of one type.
        mode: "avg" or "max" of a bin's interpolated samples.
        output_height: bins PH along y.
        output_width: bins PW along x.
        sampling_ratio: samples per bin and axis; 0 takes ceil(box size in cells / bins).
        spatial_scales: feature cells per image pixel, one of each map.
        coordinate_transformation_mode: "half_pixel" subtracts half a cell from the scaled box;
            "output_half_pixel" does not, and makes every box at least one cell wide and high.
        angle_unit: "radians" or "degrees".
        clockwise: 0: a positive angle turns the box counter-clockwise, as seen with y pointing
            down; 1: clockwise.
        canonical_scale: side of a square box of the canonical level, in image pixels.
        canonical_level: level of such a box.
        min_level: level of the first map; by default -log2 of its scale, rounded.
        max_level: highest level in use; by default `min_level` and as many levels as the first and
            the last scale are apart.
        log_epsilon: added before the logarithm of the level's rule.
        level_epsilon: added to the level before it is rounded down.
        threads: to run on; 0: one a core that this process may use.

    Returns:
        Pooled boxes [R, C, PH, PW].

    Raises:
        InvalidArgumentError: an argument breaks the rules above, or a coordinate is not finite.

    Source:
        Lin et al., "Feature Pyramid Networks", 2017, equation 1; detectron2's ROIPooler.
    """
    return forward("MultiScaleRoiAlignRotated", locals())[0]


def multi_scale_roi_align_rotated_grad(
    dy: npt.ArrayLike,
    rois: npt.ArrayLike,
    batch_indices: npt.ArrayLike,
    *maps: npt.ArrayLike,
    mode: str = "avg",
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scales: Sequence[float],
    coordinate_transformation_mode: str = "half_pixel",
    angle_unit: str = "radians",
    clockwise: int = 0,
    canonical_scale: float = 224.0,
    canonical_level: int = 4,
    min_level: int | None = None,
    max_level: int | None = None,
    log_epsilon: float = 0.0,
    level_epsilon: float = 1e-06,
    threads: int = 0,
) -> list[Array]:
    """Gradient for the inputs of `multi_scale_roi_align_rotated`, from the one for its output.

    `dy` is the gradient for the output, in its shape and type; the other arguments are those of
    `multi_scale_roi_align_rotated`.

    Returns:
        The gradient for each map, in its type and shape.

    Raises:
        InvalidArgumentError: as the forward operator, or `dy` does not have the output's shape.

    Source:
        The transpose of `multi_scale_roi_align_rotated`.
    """
    return gradient("MultiScaleRoiAlignRotated", locals())
