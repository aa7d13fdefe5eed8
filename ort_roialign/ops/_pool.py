"""The kernels of RoIAlign's relatives on NumPy arrays.

Letters: `N` images, `C` channels, `H W` height and width of the feature maps, `R` regions,
`PH PW` output bins.
"""

from __future__ import annotations

import numpy.typing as npt

from ort_roialign.ops._call import Array, forward, gradient


def roi_pool(
    x: npt.ArrayLike,
    rois: npt.ArrayLike,
    batch_indices: npt.ArrayLike,
    *,
    output_height: int = 1,
    output_width: int = 1,
    spatial_scale: float = 1.0,
    threads: int = 0,
) -> tuple[Array, Array]:
    """Take the maximum of each bin of each box, with box and bins rounded to whole cells.

    Args:
        x: feature maps [N, C, H, W]; float16, bfloat16, float32 or float64.
        rois: boxes [R, 4] as x1, y1, x2, y2 in image pixels; of the maps' type, or float32 beside
            half-precision maps.
        batch_indices: integers [R], the image of each box, in [0, N).
        output_height: bins PH along y.
        output_width: bins PW along x.
        spatial_scale: feature cells per image pixel.
        threads: to run on; 0: one a core that this process may use.

    Returns:
        The maxima [R, C, PH, PW], and the cells y * W + x that they come from, int64 of that shape;
        an empty bin has the maximum 0 and the cell -1.

    Raises:
        InvalidArgumentError: an argument breaks the rules above, or a coordinate is not finite.

    Source:
        Girshick, "Fast R-CNN", 2015, section 2.1; rounding as torchvision's roi_pool.
    """
    y, argmax = forward("RoiPool", locals(), num_outputs=2)
    return y, argmax


def roi_pool_grad(
    dy: npt.ArrayLike,
    x: npt.ArrayLike,
    rois: npt.ArrayLike,
    batch_indices: npt.ArrayLike,
    *,
    output_height: int = 1,
    output_width: int = 1,
    spatial_scale: float = 1.0,
    threads: int = 0,
) -> Array:
    """Gradient of a loss for the inputs of `roi_pool`, from the one for its output.

    `dy` is the gradient for the output, in its shape and type; the other arguments are those of
    `roi_pool`.

    Returns:
        The gradient for `x`, in its type, [N, C, H, W].

    Raises:
        InvalidArgumentError: as the forward operator, or `dy` does not have the output's shape.

    Source:
        The transpose of `roi_pool`.
    """
    return gradient("RoiPool", locals())[0]


def ps_roi_align(
    x: npt.ArrayLike,
    rois: npt.ArrayLike,
    batch_indices: npt.ArrayLike,
    *,
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
    threads: int = 0,
) -> Array:
    """Pool each bin of each box, as `roi_align` does, from channels of its own.

    Args:
        x: feature maps [N, C, H, W], C a multiple of PH * PW; float16, bfloat16, float32 or
            float64.
        rois: boxes [R, 4] as x1, y1, x2, y2 in image pixels; of the maps' type, or float32 beside
            half-precision maps.
        batch_indices: integers [R], the image of each box, in [0, N).
        output_height: bins PH along y.
        output_width: bins PW along x.
        sampling_ratio: samples per bin and axis; 0 takes ceil(box size in cells / bins).
        spatial_scale: feature cells per image pixel.
        threads: to run on; 0: one a core that this process may use.

    Returns:
        Pooled boxes [R, C / (PH * PW), PH, PW].

    Raises:
        InvalidArgumentError: an argument breaks the rules above, or a coordinate is not finite.

    Source:
        Dai et al., "R-FCN", 2016, section 2; torchvision's ps_roi_align.
    """
    return forward("PsRoiAlign", locals())[0]


def ps_roi_align_grad(
    dy: npt.ArrayLike,
    x: npt.ArrayLike,
    rois: npt.ArrayLike,
    batch_indices: npt.ArrayLike,
    *,
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
    threads: int = 0,
) -> Array:
    """Gradient of a loss for the inputs of `ps_roi_align`, from the one for its output.

    `dy` is the gradient for the output, in its shape and type; the other arguments are those of
    `ps_roi_align`.

    Returns:
        The gradient for `x`, in its type, [N, C, H, W].

    Raises:
        InvalidArgumentError: as the forward operator, or `dy` does not have the output's shape.

    Source:
        The transpose of `ps_roi_align`.
    """
    return gradient("PsRoiAlign", locals())[0]


def ps_roi_pool(
    x: npt.ArrayLike,
    rois: npt.ArrayLike,
    batch_indices: npt.ArrayLike,
    *,
    output_height: int = 1,
    output_width: int = 1,
    spatial_scale: float = 1.0,
    threads: int = 0,
) -> Array:
    """Average the cells of each bin of each box, over channels of the bin's own.

    Args:
        x: feature maps [N, C, H, W], C a multiple of PH * PW; float16, bfloat16, float32 or
            float64.
        rois: boxes [R, 4] as x1, y1, x2, y2 in image pixels; of the maps' type, or float32 beside
            half-precision maps.
        batch_indices: integers [R], the image of each box, in [0, N).
        output_height: bins PH along y.
        output_width: bins PW along x.
        spatial_scale: feature cells per image pixel.
        threads: to run on; 0: one a core that this process may use.

    Returns:
        Pooled boxes [R, C / (PH * PW), PH, PW].

    Raises:
        InvalidArgumentError: an argument breaks the rules above, or a coordinate is not finite.

    Source:
        Dai et al., "R-FCN", 2016, section 2; torchvision's ps_roi_pool.
    """
    return forward("PsRoiPool", locals())[0]


def ps_roi_pool_grad(
    dy: npt.ArrayLike,
    x: npt.ArrayLike,
    rois: npt.ArrayLike,
    batch_indices: npt.ArrayLike,
    *,
    output_height: int = 1,
    output_width: int = 1,
    spatial_scale: float = 1.0,
    threads: int = 0,
) -> Array:
    """Gradient of a loss for the inputs of `ps_roi_pool`, from the one for its output.

    `dy` is the gradient for the output, in its shape and type; the other arguments are those of
    `ps_roi_pool`.

    Returns:
        The gradient for `x`, in its type, [N, C, H, W].

    Raises:
        InvalidArgumentError: as the forward operator, or `dy` does not have the output's shape.

    Source:
        The transpose of `ps_roi_pool`.
    """
    return gradient("PsRoiPool", locals())[0]


def pr_roi_pool(
    x: npt.ArrayLike,
    rois: npt.ArrayLike,
    batch_indices: npt.ArrayLike,
    *,
    output_height: int = 1,
    output_width: int = 1,
    spatial_scale: float = 1.0,
    threads: int = 0,
) -> Array:
    """Average the interpolated map over each bin of each box, exactly.

    Args:
        x: feature maps [N, C, H, W]; float16, bfloat16, float32 or float64.
        rois: boxes [R, 4] as x1, y1, x2, y2 in image pixels; of the maps' type, or float32 beside
            half-precision maps.
        batch_indices: integers [R], the image of each box, in [0, N).
        output_height: bins PH along y.
        output_width: bins PW along x.
        spatial_scale: feature cells per image pixel.
        threads: to run on; 0: one a core that this process may use.

    Returns:
        Pooled boxes [R, C, PH, PW].

    Raises:
        InvalidArgumentError: an argument breaks the rules above, or a coordinate is not finite.

    Source:
        Jiang et al., "IoU-Net", 2018, section 3.2, equation 5.
    """
    return forward("PrRoiPool", locals())[0]


def pr_roi_pool_grad(
    dy: npt.ArrayLike,
    x: npt.ArrayLike,
    rois: npt.ArrayLike,
    batch_indices: npt.ArrayLike,
    *,
    output_height: int = 1,
    output_width: int = 1,
    spatial_scale: float = 1.0,
    threads: int = 0,
) -> tuple[Array, Array]:
    """Gradient of a loss for the inputs of `pr_roi_pool`, from the one for its output.

    `dy` is the gradient for the output, in its shape and type; the other arguments are those of
    `pr_roi_pool`.

    Returns:
        The gradients for `x`, [N, C, H, W], and for `rois`, [R, 4], per image pixel.

    Raises:
        InvalidArgumentError: as the forward operator, or `dy` does not have the output's shape.

    Source:
        Jiang et al., "IoU-Net", 2018, section 3.2, equation 6.
    """
    dx, drois = gradient("PrRoiPool", locals())
    return dx, drois


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
    threads: int = 0,
) -> Array:
    """Average each bin of each box, as `roi_align` does, with the bin moved by an offset.

    Args:
        x: feature maps [N, C, H, W]; float16, bfloat16, float32 or float64.
        rois: boxes [R, 4] as x1, y1, x2, y2 in image pixels; of the maps' type, or float32 beside
            half-precision maps.
        batch_indices: integers [R], the image of each box, in [0, N).
        offset: [R, 2, PH, PW], each bin's way along x, then along y, in parts of the box's size
            times `gamma`; 0 where absent.
        output_height: bins PH along y.
        output_width: bins PW along x.
        sampling_ratio: samples per bin and axis; 0 takes ceil(box size in cells / bins).
        spatial_scale: feature cells per image pixel.
        coordinate_transformation_mode: "half_pixel" subtracts half a cell from the scaled box;
            "output_half_pixel" does not, and makes every box at least one cell wide and high.
        gamma: part of the box's size that an offset of 1 is.
        threads: to run on; 0: one a core that this process may use.

    Returns:
        Pooled boxes [R, C, PH, PW].

    Raises:
        InvalidArgumentError: an argument breaks the rules above, or a coordinate is not finite.

    Source:
        Dai et al., "Deformable Convolutional Networks", 2017, section 2.2; mmcv's DeformRoIPool.
    """
    return forward("DeformRoiPool", locals())[0]


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
    threads: int = 0,
) -> tuple[Array, Array]:
    """Gradient of a loss for the inputs of `deform_roi_pool`, from the one for its output.

    `dy` is the gradient for the output, in its shape and type; the other arguments are those of
    `deform_roi_pool`.

    Returns:
        The gradients for `x`, [N, C, H, W], and for `offset`, [R, 2, PH, PW]; at offset 0 where it
        is absent.

    Raises:
        InvalidArgumentError: as the forward operator, or `dy` does not have the output's shape.

    Source:
        Dai et al., "Deformable Convolutional Networks", 2017, appendix A.
    """
    dx, doffset = gradient("DeformRoiPool", locals())
    return dx, doffset
