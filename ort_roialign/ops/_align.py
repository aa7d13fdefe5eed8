"""RoIAlign's kernels on NumPy arrays, of boxes upright or turned.

Letters: `N` images, `C` channels, `H W` height and width of the feature maps, `R` regions,
`PH PW` output bins.
"""

from __future__ import annotations

import numpy.typing as npt

from ort_roialign.ops._call import Array, forward, gradient


def roi_align(
    x: npt.ArrayLike,
    rois: npt.ArrayLike,
    batch_indices: npt.ArrayLike,
    *,
    mode: str = "avg",
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
    coordinate_transformation_mode: str = "half_pixel",
    threads: int = 0,
) -> Array:
    """Pool each box into a fixed number of bins, without rounding it.

    Args:
        x: feature maps [N, C, H, W]; float16, bfloat16, float32 or float64.
        rois: boxes [R, 4] as x1, y1, x2, y2 in image pixels; of the maps' type, or float32 beside
            half-precision maps.
        batch_indices: integers [R], the image of each box, in [0, N).
        mode: "avg" or "max" of a bin's interpolated samples.
        output_height: bins PH along y.
        output_width: bins PW along x.
        sampling_ratio: samples per bin and axis; 0 takes ceil(box size in cells / bins).
        spatial_scale: feature cells per image pixel.
        coordinate_transformation_mode: "half_pixel" subtracts half a cell from the scaled box;
            "output_half_pixel" does not, and makes every box at least one cell wide and high.
        threads: to run on; 0: one a core that this process may use.

    Returns:
        Pooled boxes [R, C, PH, PW].

    Raises:
        InvalidArgumentError: an argument breaks the rules above, or a coordinate is not finite.

    Source:
        He et al., "Mask R-CNN", 2017, section 3; the ONNX operator RoiAlign-16.
    """
    return forward("RoiAlign", locals())[0]


def roi_align_grad(
    dy: npt.ArrayLike,
    x: npt.ArrayLike,
    rois: npt.ArrayLike,
    batch_indices: npt.ArrayLike,
    *,
    mode: str = "avg",
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
    coordinate_transformation_mode: str = "half_pixel",
    threads: int = 0,
) -> Array:
    """Gradient of a loss for the inputs of `roi_align`, from the one for its output.

    `dy` is the gradient for the output, in its shape and type; the other arguments are those of
    `roi_align`.

    Returns:
        The gradient for `x`, in its type, [N, C, H, W].

    Raises:
        InvalidArgumentError: as the forward operator, or `dy` does not have the output's shape.

    Source:
        The transpose of `roi_align`.
    """
    return gradient("RoiAlign", locals())[0]


def roi_align_rotated(
    x: npt.ArrayLike,
    rois: npt.ArrayLike,
    batch_indices: npt.ArrayLike,
    *,
    mode: str = "avg",
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
    coordinate_transformation_mode: str = "half_pixel",
    angle_unit: str = "radians",
    clockwise: int = 0,
    threads: int = 0,
) -> Array:
    """Pool each box, turned about its centre, into bins along its own sides.

    Args:
        x: feature maps [N, C, H, W]; float16, bfloat16, float32 or float64.
        rois: boxes [R, 5] as centre x, centre y, width and height in image pixels, and an angle;
            of the maps' type, or float32 beside half-precision maps.
        batch_indices: integers [R], the image of each box, in [0, N).
        mode: "avg" or "max" of a bin's interpolated samples.
        output_height: bins PH along y.
        output_width: bins PW along x.
        sampling_ratio: samples per bin and axis; 0 takes ceil(box size in cells / bins).
        spatial_scale: feature cells per image pixel.
        coordinate_transformation_mode: "half_pixel" subtracts half a cell from the scaled box;
            "output_half_pixel" does not, and makes every box at least one cell wide and high.
        angle_unit: "radians" or "degrees".
        clockwise: 0: a positive angle turns the box counter-clockwise, as seen with y pointing
            down; 1: clockwise.
        threads: to run on; 0: one a core that this process may use.

    Returns:
        Pooled boxes [R, C, PH, PW].

    Raises:
        InvalidArgumentError: an argument breaks the rules above, or a coordinate is not finite.

    Source:
        detectron2's ROIAlignRotated; mmcv's RoIAlignRotated.
    """
    return forward("RoiAlignRotated", locals())[0]


def roi_align_rotated_grad(
    dy: npt.ArrayLike,
    x: npt.ArrayLike,
    rois: npt.ArrayLike,
    batch_indices: npt.ArrayLike,
    *,
    mode: str = "avg",
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
    coordinate_transformation_mode: str = "half_pixel",
    angle_unit: str = "radians",
    clockwise: int = 0,
    threads: int = 0,
) -> Array:
    """Gradient of a loss for the inputs of `roi_align_rotated`, from the one for its output.

    `dy` is the gradient for the output, in its shape and type; the other arguments are those of
    `roi_align_rotated`.

    Returns:
        The gradient for `x`, in its type, [N, C, H, W].

    Raises:
        InvalidArgumentError: as the forward operator, or `dy` does not have the output's shape.

    Source:
        The transpose of `roi_align_rotated`.
    """
    return gradient("RoiAlignRotated", locals())[0]
