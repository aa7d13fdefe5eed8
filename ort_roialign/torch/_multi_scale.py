"""Functions on feature pyramids: each box is pooled from the map that its size says.

Letters: `N` images, `C` channels, `H_l W_l` height and width of the feature maps, `K` boxes, `L`
boxes of one image, `PH PW` output bins.

Types, autocast and scales are as in `_functional`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ort_roialign.torch._boxes import (
    TURNED,
    Boxes,
    OutputSize,
    origin,
    pair,
    pyramid,
    samples,
    split_boxes,
    split_rows,
)


def multiscale_roi_align(
    features: Sequence[Tensor],
    boxes: Boxes,
    output_size: OutputSize,
    spatial_scales: Sequence[float],
    sampling_ratio: int = -1,
    aligned: bool = False,
    mode: str = "avg",
    canonical_scale: float = 224,
    canonical_level: int = 4,
    *,
    min_level: int | None = None,
    max_level: int | None = None,
    log_epsilon: float = 0.0,
    level_epsilon: float = 1e-6,
) -> Tensor:
    """Pool each box, as `roi_align` does, from the feature map that its size says.

    The level of a box with the sides `w` and `h` is
    `floor(canonical_level + log2(sqrt(w * h) / canonical_scale + log_epsilon) + level_epsilon)`,
    at least `min_level` and at most `max_level`; its map is number `level - min_level`.

    Args:
        features: feature maps [N, C, H_l, W_l] of one type, the finest first.
        boxes: as in `roi_align`.
        output_size: bins PH, PW, or one number for both.
        spatial_scales: feature cells per image pixel, one of each map.
        sampling_ratio: as in `roi_align`.
        aligned: as in `roi_align`.
        mode: as in `roi_align`.
        canonical_scale: side of a square box of the canonical level, in image pixels.
        canonical_level: level of such a box.
        min_level: level of the first map; by default -log2 of its scale, rounded.
        max_level: highest level in use; by default `min_level` and as many levels as the first and
            the last scale are apart.
        log_epsilon: added before the logarithm.
        level_epsilon: added to the level before it is rounded down.

    Returns:
        Pooled boxes [K, C, PH, PW], differentiable by `features`.

    Raises:
        InvalidArgumentError: if an argument breaks the rules above, or a coordinate is not finite.

    Source:
        Lin et al., "Feature Pyramid Networks", 2017, equation 1; levels as torchvision's
        MultiScaleRoIAlign.
    """
    maps, scales = pyramid("multiscale_roi_align", features, spatial_scales)
    rois, images = split_boxes("multiscale_roi_align", boxes, maps[0] if maps else None)
    height, width = pair("multiscale_roi_align", output_size)
    ratio = samples("multiscale_roi_align", sampling_ratio)
    pooled: Tensor = torch.ops.ort_roialign.multi_scale_roi_align(
        rois, images, maps, scales, canonical_scale, canonical_level, min_level,
        max_level, log_epsilon, level_epsilon, mode, height, width, ratio,
        origin(aligned),
    )  # fmt: skip
    return pooled


def multiscale_roi_align_rotated(
    features: Sequence[Tensor],
    rois: Tensor,
    output_size: OutputSize,
    spatial_scales: Sequence[float],
    sampling_ratio: int = 0,
    aligned: bool = True,
    clockwise: bool = False,
    *,
    mode: str = "avg",
    angle_unit: str = "radians",
    canonical_scale: float = 224,
    canonical_level: int = 4,
    min_level: int | None = None,
    max_level: int | None = None,
    log_epsilon: float = 0.0,
    level_epsilon: float = 1e-6,
) -> Tensor:
    """Pool each turned box, as `roi_align_rotated` does, from the feature map that its size says.

    The level of a box is that of `multiscale_roi_align`.

    Args:
        features: feature maps [N, C, H_l, W_l] of one type, the finest first.
        rois: as in `roi_align_rotated`.
        output_size: bins PH, PW, or one number for both.
        spatial_scales: feature cells per image pixel, one of each map.
        sampling_ratio: as in `roi_align_rotated`.
        aligned: as in `roi_align_rotated`.
        clockwise: as in `roi_align_rotated`.
        mode: as in `roi_align_rotated`.
        angle_unit: as in `roi_align_rotated`.
        canonical_scale: as in `multiscale_roi_align`, like the arguments after it.
        canonical_level: level of a box of that scale.
        min_level: level of the first map.
        max_level: highest level in use.
        log_epsilon: added before the logarithm.
        level_epsilon: added to the level before it is rounded down.

    Returns:
        Pooled boxes [K, C, PH, PW], differentiable by `features`.

    Raises:
        InvalidArgumentError: if an argument breaks the rules above, or a coordinate is not finite.

    Source:
        detectron2's ROIPooler with ROIAlignRotated; the arguments are those of the two functions.
    """
    maps, scales = pyramid("multiscale_roi_align_rotated", features, spatial_scales)
    boxes, images = split_rows("multiscale_roi_align_rotated", "rois", rois, TURNED)
    height, width = pair("multiscale_roi_align_rotated", output_size)
    ratio = samples("multiscale_roi_align_rotated", sampling_ratio)
    pooled: Tensor = torch.ops.ort_roialign.multi_scale_roi_align_rotated(
        boxes, images, maps, scales, canonical_scale, canonical_level, min_level,
        max_level, log_epsilon, level_epsilon, mode, height, width, ratio,
        origin(aligned), angle_unit, int(clockwise),
    )  # fmt: skip
    return pooled
