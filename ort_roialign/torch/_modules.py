"""Modules with the signatures of torchvision's and mmcv's, around the functions.

torchvision's MultiScaleRoIAlign is in `_detector_pooler`.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence

from torch import Tensor, nn

from ort_roialign.torch import _functional as functional
from ort_roialign.torch._boxes import Boxes, OutputSize
from ort_roialign.torch._multi_scale import multiscale_roi_align_rotated


class _Pooler(nn.Module):
    """Shows its constructor's arguments when printed; the derived class keeps them by name."""

    def extra_repr(self) -> str:
        """The arguments, as PyTorch prints them."""
        names = inspect.signature(type(self)).parameters
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in names)


class RoIAlign(_Pooler):
    """`roi_align` as a module, with torchvision's signature and `mode`.

    Args:
        output_size: bins PH, PW, or one number for both.
        spatial_scale: feature cells per image pixel.
        sampling_ratio: samples per bin and axis; 0 or less is adaptive.
        aligned: whether half a cell is subtracted from the scaled boxes.
        mode: "avg" or "max" of a bin's interpolated samples.
    """

    def __init__(
        self,
        output_size: OutputSize,
        spatial_scale: float,
        sampling_ratio: int,
        aligned: bool = False,
        mode: str = "avg",
    ) -> None:
        super().__init__()
        self.output_size = output_size
        self.spatial_scale = spatial_scale
        self.sampling_ratio = sampling_ratio
        self.aligned = aligned
        self.mode = mode

    def forward(self, input: Tensor, rois: Boxes) -> Tensor:  # noqa: A002
        """Return `roi_align` of maps [N, C, H, W] and boxes [K, 5] or a list of [L, 4]."""
        return functional.roi_align(
            input,
            rois,
            self.output_size,
            self.spatial_scale,
            self.sampling_ratio,
            self.aligned,
            self.mode,
        )


class RoIAlignRotated(_Pooler):
    """`roi_align_rotated` as a module, with mmcv's signature and two keywords.

    Args:
        output_size: bins PH, PW, or one number for both.
        spatial_scale: feature cells per image pixel.
        sampling_ratio: samples per bin and axis; 0 or less is adaptive.
        aligned: whether half a cell is subtracted from the scaled centres.
        clockwise: whether a positive angle turns a box clockwise.
        mode: "avg" or "max" of a bin's interpolated samples.
        angle_unit: "radians" or "degrees".
    """

    def __init__(
        self,
        output_size: OutputSize,
        spatial_scale: float,
        sampling_ratio: int = 0,
        aligned: bool = True,
        clockwise: bool = False,
        *,
        mode: str = "avg",
        angle_unit: str = "radians",
    ) -> None:
        super().__init__()
        self.output_size = output_size
        self.spatial_scale = spatial_scale
        self.sampling_ratio = sampling_ratio
        self.aligned = aligned
        self.clockwise = clockwise
        self.mode = mode
        self.angle_unit = angle_unit

    def forward(self, input: Tensor, rois: Tensor) -> Tensor:  # noqa: A002
        """Return `roi_align_rotated` of maps [N, C, H, W] and boxes [K, 6]."""
        return functional.roi_align_rotated(
            input,
            rois,
            self.output_size,
            self.spatial_scale,
            self.sampling_ratio,
            self.aligned,
            self.clockwise,
            mode=self.mode,
            angle_unit=self.angle_unit,
        )


class MultiScaleRoIAlignRotated(_Pooler):
    """`multiscale_roi_align_rotated` as a module.

    Args:
        output_size: bins PH, PW, or one number for both.
        spatial_scales: feature cells per image pixel, one of each map.
        sampling_ratio: samples per bin and axis; 0 or less is adaptive.
        aligned: whether half a cell is subtracted from the scaled centres.
        clockwise: whether a positive angle turns a box clockwise.
        mode: "avg" or "max" of a bin's interpolated samples.
        angle_unit: "radians" or "degrees".
        canonical_scale: side of a square box of the canonical level, in image pixels.
        canonical_level: level of such a box.
        min_level: level of the first map; None takes that of its scale.
        max_level: highest level in use; None takes that of the last scale.
        log_epsilon: added before the logarithm.
        level_epsilon: added to the level before it is rounded down.
    """

    def __init__(
        self,
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
    ) -> None:
        super().__init__()
        self.output_size = output_size
        self.spatial_scales = spatial_scales
        self.sampling_ratio = sampling_ratio
        self.aligned = aligned
        self.clockwise = clockwise
        self.mode = mode
        self.angle_unit = angle_unit
        self.canonical_scale = canonical_scale
        self.canonical_level = canonical_level
        self.min_level = min_level
        self.max_level = max_level
        self.log_epsilon = log_epsilon
        self.level_epsilon = level_epsilon

    def forward(self, features: Sequence[Tensor], rois: Tensor) -> Tensor:
        """Return `multiscale_roi_align_rotated` of maps [N, C, H_l, W_l] and boxes [K, 6]."""
        return multiscale_roi_align_rotated(
            features,
            rois,
            self.output_size,
            self.spatial_scales,
            self.sampling_ratio,
            self.aligned,
            self.clockwise,
            mode=self.mode,
            angle_unit=self.angle_unit,
            canonical_scale=self.canonical_scale,
            canonical_level=self.canonical_level,
            min_level=self.min_level,
            max_level=self.max_level,
            log_epsilon=self.log_epsilon,
            level_epsilon=self.level_epsilon,
        )


class RoIPool(_Pooler):
    """`roi_pool` as a module, with torchvision's signature.

    Args:
        output_size: bins PH, PW, or one number for both.
        spatial_scale: feature cells per image pixel.
    """

    def __init__(self, output_size: OutputSize, spatial_scale: float) -> None:
        super().__init__()
        self.output_size = output_size
        self.spatial_scale = spatial_scale

    def forward(self, input: Tensor, rois: Boxes) -> Tensor:  # noqa: A002
        """Return `roi_pool` of maps [N, C, H, W] and boxes [K, 5] or a list of [L, 4]."""
        return functional.roi_pool(input, rois, self.output_size, self.spatial_scale)


class PSRoIAlign(_Pooler):
    """`ps_roi_align` as a module, with torchvision's signature.

    Args:
        output_size: bins PH, PW, or one number for both.
        spatial_scale: feature cells per image pixel.
        sampling_ratio: samples per bin and axis; 0 or less is adaptive.
    """

    def __init__(self, output_size: OutputSize, spatial_scale: float, sampling_ratio: int) -> None:
        super().__init__()
        self.output_size = output_size
        self.spatial_scale = spatial_scale
        self.sampling_ratio = sampling_ratio

    def forward(self, input: Tensor, rois: Boxes) -> Tensor:  # noqa: A002
        """Return `ps_roi_align` of maps [N, C, H, W] and boxes [K, 5] or a list of [L, 4]."""
        return functional.ps_roi_align(
            input, rois, self.output_size, self.spatial_scale, self.sampling_ratio
        )


class PSRoIPool(_Pooler):
    """`ps_roi_pool` as a module, with torchvision's signature.

    Args:
        output_size: bins PH, PW, or one number for both.
        spatial_scale: feature cells per image pixel.
    """

    def __init__(self, output_size: OutputSize, spatial_scale: float) -> None:
        super().__init__()
        self.output_size = output_size
        self.spatial_scale = spatial_scale

    def forward(self, input: Tensor, rois: Boxes) -> Tensor:  # noqa: A002
        """Return `ps_roi_pool` of maps [N, C, H, W] and boxes [K, 5] or a list of [L, 4]."""
        return functional.ps_roi_pool(input, rois, self.output_size, self.spatial_scale)


class PrRoIPool(_Pooler):
    """`prroi_pool` as a module, with mmcv's signature.

    Args:
        output_size: bins PH, PW, or one number for both.
        spatial_scale: feature cells per image pixel.
    """

    def __init__(self, output_size: OutputSize, spatial_scale: float = 1.0) -> None:
        super().__init__()
        self.output_size = output_size
        self.spatial_scale = spatial_scale

    def forward(self, features: Tensor, rois: Tensor) -> Tensor:
        """Return `prroi_pool` of maps [N, C, H, W] and boxes [K, 5]."""
        return functional.prroi_pool(features, rois, self.output_size, self.spatial_scale)


class DeformRoIPool(_Pooler):
    """`deform_roi_pool` as a module, with mmcv's signature.

    Args:
        output_size: bins PH, PW, or one number for both.
        spatial_scale: feature cells per image pixel.
        sampling_ratio: samples per bin and axis; 0 or less is adaptive.
        gamma: part of the box's size that an offset of 1 is.
    """

    def __init__(
        self,
        output_size: OutputSize,
        spatial_scale: float = 1.0,
        sampling_ratio: int = 0,
        gamma: float = 0.1,
    ) -> None:
        super().__init__()
        self.output_size = output_size
        self.spatial_scale = spatial_scale
        self.sampling_ratio = sampling_ratio
        self.gamma = gamma

    def forward(
        self,
        input: Tensor,  # noqa: A002
        rois: Tensor,
        offset: Tensor | None = None,
    ) -> Tensor:
        """Return `deform_roi_pool` of maps [N, C, H, W], boxes [K, 5], offset [K, 2, PH, PW]."""
        return functional.deform_roi_pool(
            input,
            rois,
            offset,
            self.output_size,
            self.spatial_scale,
            self.sampling_ratio,
            self.gamma,
        )
