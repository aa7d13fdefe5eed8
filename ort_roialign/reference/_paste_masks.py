"""PasteMasks: the masks of boxes, resampled into the image that they were found in.

He et al., "Mask R-CNN", 2017, section 3; rounding as in torchvision's `paste_masks_in_image`. A
mask is framed with zeros and stretched over its box, which grows by the frame and is cut to whole
pixels.

Letters: `R` masks, `M K` height and width of a mask, `H W` of the image.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ort_roialign.errors import InvalidArgumentError
from ort_roialign.reference._inputs import (
    Float64Array,
    check_finite,
    check_integer,
    coordinate_type,
    shape_text,
)

_FLOAT_TYPES = ("float16", "bfloat16", "float32", "float64")
_MOST_PADDING = 2**20
_MOST_PIXELS = 2**40  # further out there is no image


def paste_masks(
    masks: npt.ArrayLike,
    boxes: npt.ArrayLike,
    image_size: npt.ArrayLike,
    *,
    padding: int = 1,
    threshold: float | None = None,
) -> Float64Array | npt.NDArray[np.uint8]:
    """Pastes each mask into an image of its own.

    Edges of boxes are computed in float32 (float64 for float64 masks), as are the places that
    pixels read; everything else in float64.

    Args:
        masks: [R, 1, M, K]; float16, bfloat16, float32 or float64.
        boxes: [R, 4] as x1, y1, x2, y2 in image pixels.
        image_size: integers [2], H and W.
        padding: cells of zeros around each mask.
        threshold: rounded to float32.

    Returns:
        [R, 1, H, W]: the values, 0 where the mask is not; with a threshold uint8, 1 where a value
        reaches it.

    Raises:
        InvalidArgumentError: an argument breaks the rules above, or a coordinate is not finite.

    Source:
        torchvision's `paste_masks_in_image`.
    """
    check_integer("PasteMasks", "padding", padding, least=0, most=_MOST_PADDING)
    masks, boxes, (height, width) = _check_inputs(masks, boxes, image_size)
    pasted = np.zeros((len(masks), 1, height, width))
    real = coordinate_type(masks.dtype)
    for number, (x1, y1, x2, y2) in enumerate(boxes.astype(real)):
        framed = np.pad(masks[number, 0].astype(np.float64), padding)
        # Both axes grow by what the frame adds to the width.
        growth = real(framed.shape[1] / masks.shape[3])
        rows, of_rows = _stretch(y1, y2, growth, framed.shape[0], height)
        columns, of_columns = _stretch(x1, x2, growth, framed.shape[1], width)
        with np.errstate(invalid="ignore"):
            pasted[number, 0, rows, columns] = of_rows @ framed @ of_columns.T
    if threshold is None:
        return pasted
    return (pasted >= check_finite("PasteMasks", "threshold", threshold)).astype(np.uint8)


def _stretch(
    low_image: np.floating[Any],
    high_image: np.floating[Any],
    growth: np.floating[Any],
    framed: int,
    extent: int,
) -> tuple[slice, Float64Array]:
    """The pixels of the image that a mask covers along one axis, and what its cells weigh in each.

    Returns:
        The pixels, and weights [pixels, cells with the frame].
    """
    real = type(low_image)
    # Halved before they meet, so that huge edges give no inf - inf.
    low_half, high_half = low_image * real(0.5), high_image * real(0.5)
    with np.errstate(over="ignore"):
        centre = high_half + low_half
        reach = (high_half - low_half) * growth
        edges = np.clip([centre - reach, centre + reach], -_MOST_PIXELS, _MOST_PIXELS)
    first, last = (int(edge) for edge in edges)  # cuts towards 0
    cells_per_pixel = real(framed) / real(max(last - first + 1, 1))
    begin = min(max(first, 0), extent)
    pixels = slice(begin, max(min(last + 1, extent), begin))
    weights = np.zeros((pixels.stop - pixels.start, framed))
    for row, pixel in zip(weights, range(pixels.start, pixels.stop), strict=True):
        at = cells_per_pixel * (real(pixel - first) + real(0.5)) - real(0.5)
        at = max(at, real(0))
        low = min(int(at), framed - 1)
        share = min(float(at - real(low)), 1.0)
        row[low] += 1 - share
        row[min(low + 1, framed - 1)] += share
    return pixels, weights


def _check_inputs(
    masks: npt.ArrayLike, boxes: npt.ArrayLike, image_size: npt.ArrayLike
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], tuple[int, int]]:
    masks, boxes, image_size = np.asarray(masks), np.asarray(boxes), np.asarray(image_size)
    for name, array in (("masks", masks), ("boxes", boxes)):
        if array.dtype.name not in _FLOAT_TYPES:
            raise InvalidArgumentError(
                f"PasteMasks: {name} must be of type float32, float64, float16 or bfloat16; "
                f"got {array.dtype.name}"
            )
    if masks.ndim != 4 or masks.shape[1] != 1:
        raise InvalidArgumentError(
            "PasteMasks: masks must have shape [num_masks, 1, height, width]; "
            f"got {shape_text(masks.shape)}"
        )
    if min(masks.shape[2:]) < 1:
        raise InvalidArgumentError(
            "PasteMasks: masks must have height and width of 1 to 1048576; "
            f"got {shape_text(masks.shape)}"
        )
    if boxes.shape != (len(masks), 4):
        raise InvalidArgumentError(
            f"PasteMasks: boxes must have shape [num_masks, 4] = [{len(masks)}, 4]; "
            f"got {shape_text(boxes.shape)}"
        )
    if image_size.shape != (2,):
        raise InvalidArgumentError(
            "PasteMasks: image_size must have shape [2], height and width; "
            f"got {shape_text(image_size.shape)}"
        )
    height, width = (int(size) for size in image_size)
    if not (0 <= height <= 2**30 and 0 <= width <= 2**30):
        raise InvalidArgumentError(
            f"PasteMasks: image_size must be height and width of 0 to {2**30}; "
            f"got [{height}, {width}]"
        )
    for number, box in enumerate(boxes.astype(np.float64)):
        if not np.isfinite(box).all():
            raise InvalidArgumentError(
                f"PasteMasks: boxes[{number}] must have finite coordinates; "
                f"got [{', '.join(f'{value:g}' for value in box)}]"
            )
    return masks, boxes, (height, width)
