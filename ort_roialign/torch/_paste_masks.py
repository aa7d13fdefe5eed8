"""Masks of boxes, resampled into their image: what a Mask R-CNN does last.

Letters: `R` masks, `M K` height and width of a mask, `H W` of the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ort_roialign._kernels import Attribute, Call
from ort_roialign._kernels import Tensor as Memory
from ort_roialign.errors import InvalidArgumentError
from ort_roialign.torch._library_ops import NAMESPACE

_library: Any = torch.library  # its functions have no type hints, nor have these
_jit: Any = torch.jit
_NAME = "PasteMasks"
_TYPE_NAMES = {
    torch.float32: "float32",
    torch.float64: "float64",
    torch.float16: "float16",
    torch.bfloat16: "bfloat16",
}


def paste_masks(
    masks: Tensor,
    boxes: Tensor,
    image_size: Sequence[int],
    padding: int = 1,
    threshold: float | None = None,
) -> Tensor:
    """Paste each mask into an image of its own, as torchvision's `paste_masks_in_image`.

    Args:
        masks: [R, 1, M, K], values of any range.
        boxes: [R, 4] as x1, y1, x2, y2 in image pixels; of the masks' type, or float32 beside
            half-precision masks.
        image_size: H, W.
        padding: cells of zeros around each mask.
        threshold: if given, the result says where values reach it.

    Returns:
        Values in the masks' type [R, 1, H, W], 0 where the mask is not; with a threshold uint8, 1
        where a value reaches it. There is no gradient: `backward` raises NotImplementedError.

    Raises:
        InvalidArgumentError: if an argument breaks the rules above, or a coordinate is not finite.

    Source:
        He et al., "Mask R-CNN", 2017, section 3; rounding as torchvision's.
    """
    sizes = _sizes(image_size)
    pasted: Tensor
    if _jit.is_tracing():
        # TorchScript keeps track of a size as long as it is a tensor.
        tensors = [torch.as_tensor(size, dtype=torch.int64) for size in sizes]
        pasted = torch.ops.ort_roialign.paste_masks_traced(
            masks, boxes, torch.stack(tensors), padding, threshold
        )
    else:
        pasted = torch.ops.ort_roialign.paste_masks(masks, boxes, *sizes, padding, threshold)
    return pasted


def _sizes(image_size: object) -> list[Any]:
    sizes = list(image_size) if isinstance(image_size, (Sequence, Tensor)) else []
    if len(sizes) != 2 or not all(_is_whole(size) for size in sizes):
        raise InvalidArgumentError(
            f"paste_masks: image_size must be height and width, two integers; got {image_size!r}"
        )
    return sizes


def _is_whole(size: object) -> bool:
    if isinstance(size, Tensor):  # while a size is traced
        return not (size.is_floating_point() or size.is_complex())
    return isinstance(size, (int, torch.SymInt, np.integer, torch.fx.Proxy))


def _attributes(padding: int, threshold: float | None) -> dict[str, Attribute]:
    return (
        {"padding": padding} if threshold is None else {"padding": padding, "threshold": threshold}
    )


def _memory(name: str, tensor: Tensor) -> Memory:
    if tensor.dtype not in _TYPE_NAMES:
        raise InvalidArgumentError(
            f"{_NAME}: {name} must be of type {', '.join(_TYPE_NAMES.values())}; "
            f"got {str(tensor.dtype).removeprefix('torch.')}"
        )
    return Memory(tensor.data_ptr(), _TYPE_NAMES[tensor.dtype], tuple(tensor.shape))


def _compute(
    masks: Tensor, boxes: Tensor, height: int, width: int, padding: int, threshold: float | None
) -> Tensor:
    if boxes.device != masks.device:
        raise InvalidArgumentError(
            f"{_NAME}: boxes must be on {masks.device}, as masks; got {boxes.device}"
        )
    masks, boxes = masks.contiguous(), boxes.contiguous()
    size = np.array([height, width], np.int64)
    inputs = [
        _memory("masks", masks),
        _memory("boxes", boxes),
        Memory(size.ctypes.data, "int64", (2,)),
    ]
    call = Call(_NAME, _attributes(padding, threshold), inputs, 1)
    (expected,) = call.infer()
    pasted = _result(masks, height, width, threshold)
    outputs = [Memory(pasted.data_ptr(), expected.type_name, expected.shape)]
    if masks.device.type == "cuda":
        with torch.cuda.device(masks.device):
            call.run(outputs, cuda_stream=torch.cuda.current_stream().cuda_stream)
    else:
        call.run(outputs, threads=torch.get_num_threads())
    return pasted


def _compute_traced(
    masks: Tensor, boxes: Tensor, image_size: Tensor, padding: int, threshold: float | None
) -> Tensor:
    height, width = image_size.tolist()
    return _compute(masks, boxes, height, width, padding, threshold)


def _result(masks: Tensor, height: int, width: int, threshold: float | None) -> Tensor:
    dtype = masks.dtype if threshold is None else torch.uint8
    return masks.new_empty((masks.shape[0], 1, height, width), dtype=dtype)


def _fake(
    masks: Tensor, boxes: Tensor, height: int, width: int, padding: int, threshold: float | None
) -> Tensor:
    return _result(masks, height, width, threshold)


def _backward(_context: Any, *_gradients: Tensor) -> None:
    raise NotImplementedError(
        f"{_NAME}: there is no gradient; detach the masks, or paste them under torch.no_grad()"
    )


_library.define(
    f"{NAMESPACE}::paste_masks",
    "(Tensor masks, Tensor boxes, SymInt height, SymInt width, int padding, float? threshold)"
    " -> Tensor",
    tags=torch.Tag.pt2_compliant_tag,
)
_library.impl(f"{NAMESPACE}::paste_masks", ("cpu", "cuda"))(_compute)
_library.register_fake(f"{NAMESPACE}::paste_masks")(_fake)
_library.register_autograd(f"{NAMESPACE}::paste_masks", _backward)

# The same with a tensor [2] for the size, for the TorchScript exporter alone.
_library.define(
    f"{NAMESPACE}::paste_masks_traced",
    "(Tensor masks, Tensor boxes, Tensor image_size, int padding, float? threshold) -> Tensor",
)
_library.impl(f"{NAMESPACE}::paste_masks_traced", ("cpu", "cuda"))(_compute_traced)
