"""Turns the arguments of torchvision's and mmcv's functions into those of the operators.

Letters: `K` boxes, `L` boxes of one image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, SupportsIndex

import torch
from torch import Tensor

from ort_roialign.errors import InvalidArgumentError


def split_boxes(function: str, boxes: Tensor | Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return boxes [K, 4] and the images' numbers, int64 [K].

    Args:
        function: whose argument it is, for the error texts.
        boxes: [K, 5] with the image's number in front of x1, y1, x2, y2; or a list with the boxes
            [L, 4] of each image.

    Raises:
        InvalidArgumentError: if the shapes are others.
    """
    if isinstance(boxes, Tensor):
        return split_rows(function, "boxes", boxes, "x1, y1, x2, y2")
    if not isinstance(boxes, (list, tuple)) or not boxes:
        raise InvalidArgumentError(
            f"{function}: boxes must be a tensor [K, 5] or a list of tensors [L, 4], one an image; "
            f"got {type(boxes).__name__ if boxes else 'an empty list'}"
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
    numbers = [
        torch.full_like(of_image[:, 0], number, dtype=torch.int64)
        for number, of_image in enumerate(boxes)
    ]
    return torch.cat(list(boxes)), torch.cat(numbers)


def split_rows(function: str, name: str, rows: Tensor, columns: str) -> tuple[Tensor, Tensor]:
    """Return the boxes without the first column, and that column, the images' numbers, as int64.

    Raises:
        InvalidArgumentError: if the rows have other columns than the image's number and `columns`.
    """
    num_columns = len(columns.split(",")) + 1
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


def pair(function: str, output_size: int | Sequence[int]) -> tuple[int, int]:
    """Return output height and width of one number for both, or of two.

    Raises:
        InvalidArgumentError: if there are more or fewer.
    """
    if isinstance(output_size, SupportsIndex):
        return int(output_size), int(output_size)
    if not isinstance(output_size, Sequence) or len(output_size) != 2:
        given = list(output_size) if isinstance(output_size, Sequence) else output_size
        raise InvalidArgumentError(
            f"{function}: output_size must be one integer or two, height and width; got {given}"
        )
    return output_size[0], output_size[1]


def origin(aligned: bool) -> str:
    """Return the coordinate transformation that torchvision and mmcv call aligned or not."""
    return "half_pixel" if aligned else "output_half_pixel"
