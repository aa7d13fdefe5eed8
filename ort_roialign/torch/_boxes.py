"""Turns the arguments of torchvision's and mmcv's functions into those of the operators.

Letters: `N` images, `K` boxes, `L` boxes of one image.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeGuard

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ort_roialign.errors import InvalidArgumentError, OrtRoiAlignError

# `OutputSize` is one number for both axes, or height and width.
OutputSize = int | Sequence[int]
Boxes = Tensor | Sequence[Tensor]
TURNED = "centre x, centre y, width, height, angle"
_unpack_dual: Any = forward_ad.unpack_dual  # which has no type hints
_MAP_TYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def check_map(function: str, name: str, value: object) -> None:
    """Check that an argument is a map; of its axes, the library says more.

    Raises:
        InvalidArgumentError: if it is no tensor, or of a type that maps cannot have.
        OrtRoiAlignError: as `refuse_tangent`.
    """
    if not isinstance(value, Tensor):
        raise InvalidArgumentError(
            f"{function}: {name} must be a tensor [N, C, H, W]; got {type(value).__name__}"
        )
    if value.dtype not in _MAP_TYPES:
        raise InvalidArgumentError(
            f"{function}: {name} must be of type float32, float64, float16 or bfloat16; "
            f"got {str(value.dtype).removeprefix('torch.')}"
        )
    refuse_tangent(function, name, value)


def refuse_tangent(function: str, name: str, tensor: Tensor) -> None:
    """Refuse what PyTorch would take for a constant: a tensor with a derivative of forward mode.

    Raises:
        OrtRoiAlignError: if it has one, as in `torch.func.jvp`.
    """
    if torch.compiler.is_compiling():  # the compiler cannot trace the question
        return
    if _unpack_dual(tensor).tangent is not None:
        raise OrtRoiAlignError(
            f"{function}: {name} has a tangent, and there is no derivative in forward mode here, "
            f"only in reverse mode"
        )


def pyramid(
    function: str, features: Any, spatial_scales: Sequence[float]
) -> tuple[list[Tensor], list[float]]:
    """Return the maps and their scales as lists.

    Raises:
        InvalidArgumentError: if they are no lists of maps and of numbers.
    """
    if isinstance(features, (Tensor, Mapping)) or not isinstance(features, Iterable):
        raise InvalidArgumentError(
            f"{function}: features must be a list of maps, the finest first; "
            f"got {type(features).__name__}"
        )
    maps = list(features)
    for number, each in enumerate(maps):
        check_map(function, f"features[{number}]", each)
    try:
        return maps, [float(scale) for scale in spatial_scales]
    except (TypeError, ValueError) as error:
        raise InvalidArgumentError(
            f"{function}: spatial_scales must be a list of numbers, one of each map; "
            f"got {spatial_scales!r}"
        ) from error


def split_boxes(function: str, boxes: Boxes, first_map: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return boxes [K, 4] and the images' numbers, int64 [K].

    Args:
        function: whose argument it is, for the error texts.
        boxes: [K, 5] with the image's number in front of x1, y1, x2, y2; or a list with the boxes
            [L, 4] of each image.
        first_map: has the images that the boxes are of; None if there is no map.

    Raises:
        InvalidArgumentError: if the shapes are others, or there are boxes of more images.
    """
    if isinstance(boxes, Tensor):
        return split_rows(function, "boxes", boxes, "x1, y1, x2, y2")
    if not isinstance(boxes, (list, tuple)) or not boxes:
        given = "an empty list" if isinstance(boxes, (list, tuple)) else type(boxes).__name__
        raise InvalidArgumentError(
            f"{function}: boxes must be a tensor [K, 5] or a list of tensors [L, 4], one an image; "
            f"got {given}"
        )
    for number, of_image in enumerate(boxes):
        if not isinstance(of_image, Tensor):
            raise InvalidArgumentError(
                f"{function}: boxes[{number}] must be a tensor [L, 4]; got "
                f"{type(of_image).__name__}"
            )
        if not _has_columns(of_image, 4):
            raise InvalidArgumentError(
                f"{function}: boxes[{number}] must have shape [L, 4]; got {list(of_image.shape)}"
            )
    num_images = first_map.shape[0] if first_map is not None and first_map.dim() else None
    # A comparison of a size that may vary would tie what is compiled to its outcome.
    if _is_number(num_images) and len(boxes) > num_images:
        raise InvalidArgumentError(
            f"{function}: boxes must have one tensor an image, {num_images}; got {len(boxes)}"
        )
    numbers = [
        torch.full_like(of_image[:, 0], number, dtype=torch.int64)
        for number, of_image in enumerate(boxes)
    ]
    return torch.cat(list(boxes)), torch.cat(numbers)


def _is_number(size: object) -> TypeGuard[int]:
    return isinstance(size, int) and not torch.compiler.is_compiling()


def split_rows(function: str, name: str, rows: Tensor, columns: str) -> tuple[Tensor, Tensor]:
    """Return the boxes without the first column, and that column, the images' numbers, as int64.

    A fraction of such a number is cut off, as torchvision does: to look at the numbers would take
    longer than to pool a few boxes, and make the host wait for a GPU.

    Raises:
        InvalidArgumentError: if it is no tensor, or the rows have other columns than the image's
            number and `columns`.
    """
    num_columns = columns.count(",") + 2
    if not isinstance(rows, Tensor):
        raise InvalidArgumentError(
            f"{function}: {name} must be a tensor [K, {num_columns}]; got {type(rows).__name__}"
        )
    if not _has_columns(rows, num_columns):
        raise InvalidArgumentError(
            f"{function}: {name} must have shape [K, {num_columns}], each row being the image's "
            f"number, {columns}; got {list(rows.shape)}"
        )
    return rows[:, 1:], rows[:, 0].to(torch.int64)


def _has_columns(rows: Tensor, number: int) -> bool:
    if rows.dim() != 2:
        return False
    # In a trace, sizes are tensors, and PyTorch warns of decisions by them.
    columns: Any = rows.shape[1]
    return isinstance(columns, Tensor) or bool(columns == number)


def pair(function: str, output_size: OutputSize) -> tuple[int, int]:
    """Return output height and width of one number for both, or of two.

    Raises:
        InvalidArgumentError: if there are more or fewer, or they are no integers.
    """
    if isinstance(output_size, int):
        return output_size, output_size
    sizes: Any = output_size if isinstance(output_size, Sequence) else [output_size, output_size]
    try:
        height, width = [each if isinstance(each, int) else operator.index(each) for each in sizes]
    except (TypeError, ValueError) as error:
        given = list(output_size) if isinstance(output_size, Sequence) else output_size
        raise InvalidArgumentError(
            f"{function}: output_size must be one integer or two, height and width; got {given}"
        ) from error
    return height, width


def samples(function: str, sampling_ratio: int) -> int:
    """Return the samples per bin and axis as the operators take them: 0 is adaptive.

    Raises:
        InvalidArgumentError: if it is no integer.
    """
    try:
        return max(operator.index(sampling_ratio), 0)
    except TypeError as error:
        raise InvalidArgumentError(
            f"{function}: sampling_ratio must be an integer; got {sampling_ratio!r}"
        ) from error


def given_offset(function: str, offset: Tensor | None) -> Tensor | None:
    """Return an offset, or None for mmcv's empty tensor [0], which says that there is none.

    Raises:
        InvalidArgumentError: if it is no tensor.
        OrtRoiAlignError: as `refuse_tangent`.
    """
    if offset is None:
        return None
    if not isinstance(offset, Tensor):
        raise InvalidArgumentError(
            f"{function}: offset must be a tensor [K, 2, PH, PW] or None; "
            f"got {type(offset).__name__}"
        )
    refuse_tangent(function, "offset", offset)
    return None if offset.dim() == 1 and offset.numel() == 0 else offset


def origin(aligned: bool) -> str:
    """Return the coordinate transformation that torchvision and mmcv call aligned or not."""
    return "half_pixel" if aligned else "output_half_pixel"
