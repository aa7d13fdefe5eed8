"""PasteMasks' kernel on NumPy arrays.

Letters: `R` masks, `M K` height and width of a mask, `H W` of the image.
"""

from __future__ import annotations

import numpy.typing as npt

from ort_roialign.ops._call import Array, forward


def paste_masks(
    masks: npt.ArrayLike,
    boxes: npt.ArrayLike,
    image_size: npt.ArrayLike,
    *,
    padding: int = 1,
    threshold: float | None = None,
    threads: int = 0,
) -> Array:
    """Paste each mask into an image of its own.

    Args:
        masks: [R, 1, M, K]; float16, bfloat16, float32 or float64.
        boxes: [R, 4] as x1, y1, x2, y2 in image pixels; of the masks' type, or float32 beside
            half-precision masks.
        image_size: integers [2], H and W.
        padding: cells of zeros around each mask.
        threshold: if given, the result says where values reach it.
        threads: to run on; 0: one a core that this process may use.

    Returns:
        Values in the masks' type [R, 1, H, W], 0 where the mask is not; with a threshold uint8, 1
        where a value reaches it.

    Raises:
        InvalidArgumentError: an argument breaks the rules above, or a coordinate is not finite.

    Source:
        He et al., "Mask R-CNN", 2017, section 3; torchvision's `paste_masks_in_image`.
    """
    return forward("PasteMasks", locals())[0]
