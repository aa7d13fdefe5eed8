"""Checks of the arguments that all operators on regions share.

Every text names the operator, the argument, what is required and what was given. The kernels
raise the same texts, so that a caller may swap one for the other.

Letters: `N` images, `C` channels, `H W` height and width of the feature maps, `R` regions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ort_roialign.errors import InvalidArgumentError

Float64Array = npt.NDArray[np.float64]
Int64Array = npt.NDArray[np.int64]
# Box coordinates: float32 or float64, see `coordinate_type`.
CoordinateArray = npt.NDArray[np.floating[Any]]

_FLOAT_TYPES = ("float16", "bfloat16", "float32", "float64")


@dataclass(frozen=True)
class RegionInputs:
    """The checked tensors of an operator that reads regions from feature maps."""

    feature_maps: Float64Array  # [N, C, H, W]
    # [R, 4]: x1, y1, x2, y2 in image pixels; [R, 5] for an operator on rotated boxes
    boxes_image: CoordinateArray
    batch_indices: Int64Array  # [R]: number of the image that a box belongs to


def coordinate_type(feature_type: np.dtype[Any]) -> type[np.floating[Any]]:
    """The type of all coordinate arithmetic: float64 for float64 maps, float32 for all others."""
    return np.float64 if feature_type == np.float64 else np.float32


def shape_text(shape: Iterable[object]) -> str:
    """A shape as the error texts write it: `[12, 5]`."""
    return "[" + ", ".join(str(extent) for extent in shape) + "]"


def check_output_size(operator: str, output_height: int, output_width: int) -> None:
    """Raises `InvalidArgumentError` unless there is at least one bin on each axis."""
    for name, value in (("output_height", output_height), ("output_width", output_width)):
        if value < 1:
            raise InvalidArgumentError(
                f"{operator}: attribute {name} must be at least 1; got {value}"
            )


def check_sampling_ratio(operator: str, sampling_ratio: int) -> None:
    """Raises `InvalidArgumentError` for a negative sampling ratio."""
    if sampling_ratio < 0:
        raise InvalidArgumentError(
            f"{operator}: attribute sampling_ratio must be at least 0; got {sampling_ratio}"
        )


def check_choice(operator: str, name: str, value: str, choices: Sequence[str]) -> None:
    """Raises `InvalidArgumentError` unless a string attribute has one of the allowed values."""
    if value not in choices:
        allowed = " or ".join(f'"{choice}"' for choice in choices)
        raise InvalidArgumentError(f'{operator}: attribute {name} must be {allowed}; got "{value}"')


def check_spatial_scale(
    operator: str, spatial_scale: float, name: str = "spatial_scale"
) -> np.float32:
    """Returns the scale as the float32 that an ONNX attribute holds.

    Raises:
        InvalidArgumentError: the float32 value is not finite or not greater than 0.
    """
    with np.errstate(over="ignore"):
        scale = np.float32(spatial_scale)
    if not (np.isfinite(scale) and scale > 0):
        raise InvalidArgumentError(
            f"{operator}: attribute {name} must be finite and greater than 0; got {float(scale):g}"
        )
    return scale


def check_finite(operator: str, name: str, value: float) -> np.float32:
    """Returns an attribute as the float32 that ONNX holds.

    Raises:
        InvalidArgumentError: the float32 value is not finite.
    """
    with np.errstate(over="ignore"):
        rounded = np.float32(value)
    if not np.isfinite(rounded):
        raise InvalidArgumentError(
            f"{operator}: attribute {name} must be finite; got {float(rounded):g}"
        )
    return rounded


def check_integer(
    operator: str, name: str, value: int, *, least: int, most: int = 2**31 - 1
) -> None:
    """Raises `InvalidArgumentError` unless an attribute is in `[least, most]`."""
    if value < least:
        raise InvalidArgumentError(
            f"{operator}: attribute {name} must be at least {least}; got {value}"
        )
    if value > most:
        raise InvalidArgumentError(
            f"{operator}: attribute {name} must be at most {most}; got {value}"
        )


def check_inputs(
    operator: str,
    x: npt.ArrayLike,
    rois: npt.ArrayLike,
    batch_indices: npt.ArrayLike,
    *,
    columns: int = 4,
) -> RegionInputs:
    """Checks shapes and values, and converts the tensors to the types of the computation.

    `columns` is how many numbers `rois` must have for each region.

    Raises:
        InvalidArgumentError: a shape, a type, a batch index or a coordinate breaks the contract.
    """
    boxes, indices = check_region_list(operator, rois, batch_indices, columns)
    maps = check_feature_maps(operator, "X", x, num_rois=len(boxes))
    check_region_values(operator, boxes, indices, num_images=maps.shape[0])
    return RegionInputs(
        feature_maps=maps.astype(np.float64),
        boxes_image=boxes.astype(coordinate_type(maps.dtype)),
        batch_indices=indices.astype(np.int64),
    )


def check_output_gradient(
    operator: str, dy: npt.ArrayLike, expected_shape: tuple[int, int, int, int]
) -> Float64Array:
    """Returns `dY` in float64.

    Raises:
        InvalidArgumentError: `dY` does not have the shape of the forward operator's output.
    """
    gradient = np.asarray(dy)
    if gradient.shape != expected_shape:
        raise InvalidArgumentError(
            f"{operator}: dY must have shape [num_rois, channels, output_height, output_width]"
            f" = {shape_text(expected_shape)}; got {shape_text(gradient.shape)}"
        )
    return gradient.astype(np.float64)


def check_region_list(
    operator: str, rois: npt.ArrayLike, batch_indices: npt.ArrayLike, columns: int
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Returns both tensors as they are.

    Raises:
        InvalidArgumentError: their shapes or the type of `batch_indices` break the contract.
    """
    boxes, indices = np.asarray(rois), np.asarray(batch_indices)
    if boxes.ndim != 2 or boxes.shape[1] != columns:
        raise InvalidArgumentError(
            f"{operator}: rois must have shape [num_rois, {columns}]; got {shape_text(boxes.shape)}"
        )
    num_rois = boxes.shape[0]
    if indices.shape != (num_rois,):
        raise InvalidArgumentError(
            f"{operator}: batch_indices must have shape [num_rois] = [{num_rois}]; "
            f"got {shape_text(indices.shape)}"
        )
    # An empty list has no integers to show its type by.
    if indices.size and indices.dtype.kind not in "iu":
        raise InvalidArgumentError(
            f"{operator}: batch_indices must be of type int64; got {indices.dtype.name}"
        )
    return boxes, indices


def check_feature_maps(
    operator: str, name: str, x: npt.ArrayLike, num_rois: int
) -> npt.NDArray[Any]:
    """Returns the tensor as it is; `name` is what the error texts call it.

    Raises:
        InvalidArgumentError: its shape or type breaks the contract.
    """
    maps = np.asarray(x)
    if maps.ndim != 4:
        raise InvalidArgumentError(
            f"{operator}: {name} must have shape [num_images, channels, height, width]; "
            f"got {shape_text(maps.shape)}"
        )
    if num_rois > 0 and min(maps.shape[2:]) < 1:
        raise InvalidArgumentError(
            f"{operator}: {name} must have height and width of at least 1; "
            f"got {shape_text(maps.shape)}"
        )
    if maps.dtype.name not in _FLOAT_TYPES:
        raise InvalidArgumentError(
            f"{operator}: {name} must be of type float16, bfloat16, float32 or float64; "
            f"got {maps.dtype.name}"
        )
    return maps


def check_region_values(
    operator: str, boxes: npt.NDArray[Any], indices: npt.NDArray[Any], num_images: int
) -> None:
    """Raises `InvalidArgumentError` for an image that is not there or a coordinate not finite."""
    for roi, (box, batch_index) in enumerate(zip(boxes, indices, strict=True)):
        if not 0 <= batch_index < num_images:
            raise InvalidArgumentError(
                f"{operator}: batch_indices[{roi}] must be in [0, {num_images}); got {batch_index}"
            )
        coordinates = [float(coordinate) for coordinate in box]
        if not np.isfinite(coordinates).all():
            raise InvalidArgumentError(
                f"{operator}: rois[{roi}] must have finite coordinates; "
                f"got {shape_text(f'{coordinate:g}' for coordinate in coordinates)}"
            )
