"""PsRoiAlign and its gradient: Dai et al., "R-FCN", 2016, section 2, with RoIAlign's samples.

Position-sensitive pooling: each bin reads channels of its own, bin `(ph, pw)` of output channel `c`
the channel `(c * PH + ph) * PW + pw` of the maps. Apart from that it is RoIAlign's average with
`half_pixel`. Differs from torchvision's `ps_roi_align` in that a bin without samples is 0, not NaN.

Letters: `N` images, `C` channels, `H W` height and width of the feature maps, `R` regions,
`PH PW` output bins.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ort_roialign.errors import InvalidArgumentError
from ort_roialign.reference._inputs import (
    Float64Array,
    RegionInputs,
    check_inputs,
    check_output_gradient,
    check_output_size,
    check_sampling_ratio,
    check_spatial_scale,
    shape_text,
)
from ort_roialign.reference._roi_align import roi_align, roi_align_grad


def ps_roi_align(
    x: npt.ArrayLike,
    rois: npt.ArrayLike,
    batch_indices: npt.ArrayLike,
    *,
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
) -> Float64Array:
    """Averages the samples of each bin of each region, each bin in channels of its own.

    Args:
        x: feature maps [N, C, H, W], C a multiple of PH * PW; float16, bfloat16, float32 or
            float64.
        rois: boxes [R, 4] as x1, y1, x2, y2 in image pixels.
        batch_indices: integers [R], the image of each box, in [0, N).
        output_height: bins PH along y.
        output_width: bins PW along x.
        sampling_ratio: samples per bin and axis; 0 takes ceil(box size in cells / bins).
        spatial_scale: feature cells per image pixel; rounded to float32.

    Returns:
        The averages, float64 [R, C / (PH * PW), PH, PW]. A bin without samples is 0.

    Raises:
        InvalidArgumentError: an argument breaks the rules above, or a coordinate is not finite.

    Source:
        Dai et al., "R-FCN", 2016, section 2; torchvision.ops.ps_roi_align.
    """
    _check_attributes("PsRoiAlign", output_height, output_width, sampling_ratio, spatial_scale)
    inputs = check_inputs("PsRoiAlign", x, rois, batch_indices)
    channels = position_sensitive_channels("PsRoiAlign", inputs, output_height, output_width)
    of_all_channels = roi_align(
        x,
        rois,
        batch_indices,
        output_height=output_height,
        output_width=output_width,
        sampling_ratio=sampling_ratio,
        spatial_scale=spatial_scale,
    )
    return _own_channels(of_all_channels, channels).copy()


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
) -> Float64Array:
    """Gradient of a loss for the feature maps of `ps_roi_align`, from the one for its output.

    Each bin sends its gradient back through the weights of its average, to its own channels.

    Args:
        dy: gradient for the output, [R, C / (PH * PW), PH, PW].
        x: feature maps [N, C, H, W]; float16, bfloat16, float32 or float64.
        rois: boxes [R, 4] as x1, y1, x2, y2 in image pixels.
        batch_indices: integers [R], the image of each box, in [0, N).
        output_height: bins PH along y.
        output_width: bins PW along x.
        sampling_ratio: samples per bin and axis; 0 is adaptive.
        spatial_scale: feature cells per image pixel.

    Returns:
        The gradient for `x`, float64 [N, C, H, W].

    Raises:
        InvalidArgumentError: as `ps_roi_align`, or `dy` does not have the output's shape.

    Source:
        The transpose of Dai et al., "R-FCN", 2016, section 2.
    """
    operator = "PsRoiAlignGrad"
    _check_attributes(operator, output_height, output_width, sampling_ratio, spatial_scale)
    inputs = check_inputs(operator, x, rois, batch_indices)
    channels = position_sensitive_channels(operator, inputs, output_height, output_width)
    num_rois, map_channels = len(inputs.boxes_image), inputs.feature_maps.shape[1]
    output_shape = (num_rois, channels, output_height, output_width)
    dy_checked = check_output_gradient(operator, dy, output_shape)

    dy_of_all_channels = np.zeros((num_rois, map_channels, output_height, output_width))
    _own_channels(dy_of_all_channels, channels)[...] = dy_checked
    return roi_align_grad(
        dy_of_all_channels,
        x,
        rois,
        batch_indices,
        output_height=output_height,
        output_width=output_width,
        sampling_ratio=sampling_ratio,
        spatial_scale=spatial_scale,
    )


def position_sensitive_channels(
    operator: str, inputs: RegionInputs, output_height: int, output_width: int
) -> int:
    """The number of output channels, each of which takes one channel of the maps for each bin.

    Raises:
        InvalidArgumentError: the maps' channels are not a multiple of the number of bins.
    """
    shape, num_bins = inputs.feature_maps.shape, output_height * output_width
    if shape[1] % num_bins != 0:
        raise InvalidArgumentError(
            f"{operator}: X must have a multiple of output_height * output_width = {num_bins} "
            f"channels; got {shape_text(shape)}"
        )
    channels: int = shape[1] // num_bins
    return channels


def _check_attributes(
    operator: str,
    output_height: int,
    output_width: int,
    sampling_ratio: int,
    spatial_scale: float,
) -> None:
    check_output_size(operator, output_height, output_width)
    check_sampling_ratio(operator, sampling_ratio)
    check_spatial_scale(operator, spatial_scale)


def _own_channels(of_all_channels: Float64Array, channels: int) -> Float64Array:
    """Of all bins in all channels, [R, C, PH, PW], those of the bin's own channels: a view."""
    num_rois, _, output_height, output_width = of_all_channels.shape
    by_position = of_all_channels.reshape(
        num_rois, channels, output_height, output_width, output_height, output_width
    )
    own: Float64Array = np.einsum("rcijij->rcij", by_position)
    return own
