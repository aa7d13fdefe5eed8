"""Functions with torchvision's and mmcv's signatures, on the operators of `_library_ops`.

Those on feature pyramids are in `_multi_scale`.

Letters: `N` images, `C` channels, `H W` height and width of the feature maps, `K` boxes, `L` boxes
of one image, `PH PW` output bins.

The result has the maps' type. Under autocast, boxes, offset and further maps may have any floating
type; they are cast to what goes with the first map, and their gradients back. Scales are rounded to
float32, as the operators' attributes are.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ort_roialign.torch._boxes import (
    TURNED,
    Boxes,
    OutputSize,
    check_map,
    given_offset,
    origin,
    pair,
    refuse_tangent,
    samples,
    split_boxes,
    split_rows,
)


def roi_align(
    input: Tensor,  # noqa: A002  as torchvision names it
    boxes: Boxes,
    output_size: OutputSize,
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = False,
    mode: str = "avg",
) -> Tensor:
    """Pool each box into a fixed number of bins, without rounding it.

    Args:
        input: feature maps [N, C, H, W].
        boxes: [K, 5] with the image's number, whose fraction is cut off, in front of x1, y1, x2, y2
            in image pixels, or a list with the boxes [L, 4] of each image; of the maps' type, or
            float32 beside half-precision maps.
        output_size: bins PH, PW, or one number for both.
        spatial_scale: feature cells per image pixel.
        sampling_ratio: samples per bin and axis; 0 or less takes ceil(box size in cells / bins).
        aligned: True subtracts half a cell from the scaled box; False does not, and makes every box
            at least one cell wide and high.
        mode: "avg" or "max" of a bin's interpolated samples.

    Returns:
        Pooled boxes [K, C, PH, PW], differentiable by `input`.

    Raises:
        InvalidArgumentError: if an argument breaks the rules above, or a coordinate is not finite.

    Source:
        He et al., "Mask R-CNN", 2017, section 3; the signature is torchvision's, but for `mode`.
    """
    check_map("roi_align", "input", input)
    rois, images = split_boxes("roi_align", boxes, input)
    height, width = pair("roi_align", output_size)
    ratio = samples("roi_align", sampling_ratio)
    pooled: Tensor = torch.ops.ort_roialign.roi_align(
        input, rois, images, mode, height, width, ratio, spatial_scale,
        origin(aligned),
    )  # fmt: skip
    return pooled


def roi_align_rotated(
    input: Tensor,  # noqa: A002  as mmcv names it
    rois: Tensor,
    output_size: OutputSize,
    spatial_scale: float = 1.0,
    sampling_ratio: int = 0,
    aligned: bool = True,
    clockwise: bool = False,
    *,
    mode: str = "avg",
    angle_unit: str = "radians",
) -> Tensor:
    """Pool each box, turned about its centre, into bins along its own sides.

    Args:
        input: feature maps [N, C, H, W].
        rois: [K, 6], the image's number as in `roi_align`, centre x, centre y, width, height in
            image pixels, angle; of the maps' type, or float32 beside half-precision maps.
        output_size: bins PH, PW, or one number for both.
        spatial_scale: feature cells per image pixel.
        sampling_ratio: samples per bin and axis; 0 or less takes ceil(box size in cells / bins).
        aligned: True subtracts half a cell from the scaled centre; False does not, and makes every
            box at least one cell wide and high.
        clockwise: whether a positive angle turns the box clockwise, as seen with y pointing down.
        mode: "avg" or "max" of a bin's interpolated samples.
        angle_unit: "radians", as mmcv, or "degrees", as detectron2.

    Returns:
        Pooled boxes [K, C, PH, PW], differentiable by `input`.

    Raises:
        InvalidArgumentError: if an argument breaks the rules above, or a coordinate is not finite.

    Source:
        detectron2's ROIAlignRotated; the signature is mmcv's, but for the keywords.
    """
    check_map("roi_align_rotated", "input", input)
    boxes, images = split_rows("roi_align_rotated", "rois", rois, TURNED)
    height, width = pair("roi_align_rotated", output_size)
    ratio = samples("roi_align_rotated", sampling_ratio)
    pooled: Tensor = torch.ops.ort_roialign.roi_align_rotated(
        input, boxes, images, mode, height, width, ratio, spatial_scale,
        origin(aligned), angle_unit, int(clockwise),
    )  # fmt: skip
    return pooled


def roi_pool(
    input: Tensor,  # noqa: A002  as torchvision names it
    boxes: Boxes,
    output_size: OutputSize,
    spatial_scale: float = 1.0,
) -> Tensor:
    """Take the maximum of each bin of each box, with box and bins rounded to whole cells.

    Args:
        input: feature maps [N, C, H, W].
        boxes: as in `roi_align`.
        output_size: bins PH, PW, or one number for both.
        spatial_scale: feature cells per image pixel.

    Returns:
        The maxima [K, C, PH, PW], 0 for an empty bin, differentiable by `input`.

    Raises:
        InvalidArgumentError: if an argument breaks the rules above, or a coordinate is not finite.

    Source:
        Girshick, "Fast R-CNN", 2015, section 2.1; the signature is torchvision's.
    """
    check_map("roi_pool", "input", input)
    rois, images = split_boxes("roi_pool", boxes, input)
    height, width = pair("roi_pool", output_size)
    pooled: Tensor = torch.ops.ort_roialign.roi_pool(
        input, rois, images, height, width, spatial_scale
    )
    return pooled


def ps_roi_align(
    input: Tensor,  # noqa: A002  as torchvision names it
    boxes: Boxes,
    output_size: OutputSize,
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
) -> Tensor:
    """Pool each bin of each box, as `roi_align` does with `aligned`, from channels of its own.

    Args:
        input: feature maps [N, C, H, W], C a multiple of PH * PW.
        boxes: as in `roi_align`.
        output_size: bins PH, PW, or one number for both.
        spatial_scale: feature cells per image pixel.
        sampling_ratio: as in `roi_align`.

    Returns:
        Pooled boxes [K, C / (PH * PW), PH, PW], differentiable by `input`. A bin without samples
        is 0, where torchvision has NaN.

    Raises:
        InvalidArgumentError: if an argument breaks the rules above, or a coordinate is not finite.

    Source:
        Li et al., "Light-Head R-CNN", 2017; the signature is torchvision's.
    """
    check_map("ps_roi_align", "input", input)
    rois, images = split_boxes("ps_roi_align", boxes, input)
    height, width = pair("ps_roi_align", output_size)
    ratio = samples("ps_roi_align", sampling_ratio)
    pooled: Tensor = torch.ops.ort_roialign.ps_roi_align(
        input, rois, images, height, width, ratio, spatial_scale
    )
    return pooled


def ps_roi_pool(
    input: Tensor,  # noqa: A002  as torchvision names it
    boxes: Boxes,
    output_size: OutputSize,
    spatial_scale: float = 1.0,
) -> Tensor:
    """Average the cells of each bin of each box, over channels of the bin's own.

    Args:
        input: feature maps [N, C, H, W], C a multiple of PH * PW.
        boxes: as in `roi_align`.
        output_size: bins PH, PW, or one number for both.
        spatial_scale: feature cells per image pixel.

    Returns:
        Pooled boxes [K, C / (PH * PW), PH, PW], 0 for an empty bin, differentiable by `input`.

    Raises:
        InvalidArgumentError: if an argument breaks the rules above, or a coordinate is not finite.

    Source:
        Dai et al., "R-FCN", 2016, section 2; the signature is torchvision's.
    """
    check_map("ps_roi_pool", "input", input)
    rois, images = split_boxes("ps_roi_pool", boxes, input)
    height, width = pair("ps_roi_pool", output_size)
    pooled: Tensor = torch.ops.ort_roialign.ps_roi_pool(
        input, rois, images, height, width, spatial_scale
    )
    return pooled


def prroi_pool(
    features: Tensor, rois: Tensor, output_size: OutputSize, spatial_scale: float = 1.0
) -> Tensor:
    """Average the interpolated map over each bin of each box, exactly.

    Args:
        features: feature maps [N, C, H, W].
        rois: [K, 5], the image's number as in `roi_align`, x1, y1, x2, y2 in image pixels; of the
            maps' type, or float32 beside half-precision maps.
        output_size: bins PH, PW, or one number for both.
        spatial_scale: feature cells per image pixel.

    Returns:
        Pooled boxes [K, C, PH, PW], differentiable by `features` and by the boxes.

    Raises:
        InvalidArgumentError: if an argument breaks the rules above, or a coordinate is not finite.

    Source:
        Jiang et al., "IoU-Net", 2018, section 3.2; the signature is mmcv's.
    """
    check_map("prroi_pool", "features", features)
    boxes, images = split_rows("prroi_pool", "rois", rois, "x1, y1, x2, y2")
    refuse_tangent("prroi_pool", "rois", rois)
    height, width = pair("prroi_pool", output_size)
    pooled: Tensor = torch.ops.ort_roialign.pr_roi_pool(
        features, boxes, images, height, width, spatial_scale
    )
    return pooled


def deform_roi_pool(
    input: Tensor,  # noqa: A002  as mmcv names it
    rois: Tensor,
    offset: Tensor | None,
    output_size: OutputSize,
    spatial_scale: float = 1.0,
    sampling_ratio: int = 0,
    gamma: float = 0.1,
) -> Tensor:
    """Average each bin of each box, as `roi_align` does with `aligned`, moved by an offset.

    Args:
        input: feature maps [N, C, H, W].
        rois: as in `prroi_pool`.
        offset: [K, 2, PH, PW] in the maps' type: each bin's way along x, then along y, in parts of
            the box's size times `gamma`; None, or mmcv's empty tensor [0]: no bin moves.
        output_size: bins PH, PW, or one number for both.
        spatial_scale: feature cells per image pixel.
        sampling_ratio: samples per bin and axis; 0 or less takes ceil(box size in cells / bins).
        gamma: part of the box's size that an offset of 1 is.

    Returns:
        Pooled boxes [K, C, PH, PW], differentiable by `input` and `offset`.

    Raises:
        InvalidArgumentError: if an argument breaks the rules above, or a coordinate is not finite.

    Source:
        Dai et al., "Deformable Convolutional Networks", 2017, section 2.2; the signature is mmcv's.
    """
    check_map("deform_roi_pool", "input", input)
    boxes, images = split_rows("deform_roi_pool", "rois", rois, "x1, y1, x2, y2")
    offset = given_offset("deform_roi_pool", offset)
    height, width = pair("deform_roi_pool", output_size)
    ratio = samples("deform_roi_pool", sampling_ratio)
    pooled: Tensor = torch.ops.ort_roialign.deform_roi_pool(
        input, boxes, images, offset, height, width, ratio, spatial_scale,
        origin(True), gamma,
    )  # fmt: skip
    return pooled
