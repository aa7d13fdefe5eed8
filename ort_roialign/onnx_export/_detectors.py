"""What torchvision's detectors need while they are traced; all of it is undone afterwards."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import torch
import torchvision
from onnxscript import opset18
from torchvision.models.detection import _utils as det_utils
from torchvision.models.detection import roi_heads, transform
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import boxes as box_ops
from torchvision.ops import poolers

from ort_roialign.onnx_export._batched_detector import nms_of_groups
from ort_roialign.onnx_export._keypoints import heatmaps_to_keypoints
from ort_roialign.onnx_export._torchscript import is_torchscript_tracing
from ort_roialign.torch import MultiScaleRoIAlign, paste_masks


@contextmanager
def prepare(model: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """Let PyTorch's exporters take torchvision's detectors in a model, as long as the block runs.

    `export` does so itself; it is for calls of `torch.onnx.export` with `translation_table` or
    `register_symbolics`. Results stay what they are, and everything is as before afterwards.

    - Each `MultiScaleRoIAlign` gives way to this package's, which is one node.
    - `paste_masks_in_image` and `heatmaps_to_keypoints` loop over the detections: they become
      operators.
    - `batched_nms` asks whether there are no boxes, `_topk_min` and the resizing transform take the
      least of two sizes, and `batch_images` rounds in Python floats: traced, these keep what the
      example needs.
    - `_resize_image_and_masks` computes an image's new size in float32 while TorchScript traces it,
      and eagerly in float64: for about one size in ten it is a pixel less, and detections move.

    A module that imported `batched_nms` by name keeps torchvision's.

    Args:
        model: any module; detectors may lie anywhere in it.

    Yields:
        The model.
    """
    with ExitStack() as stack:
        for holder in (box_ops, torchvision.ops):
            stack.enter_context(_replaced(holder, "batched_nms", _batched_nms))
        # A module's global goes before the builtin of the same name.
        stack.enter_context(_replaced(transform, "min", _symbolic_min))
        stack.enter_context(_replaced(det_utils, "_topk_min", _topk_min))
        stack.enter_context(
            _replaced(transform, "_resize_image_and_masks", _resize_image_and_masks)
        )
        stack.enter_context(_replaced(GeneralizedRCNNTransform, "batch_images", _batch_images))
        stack.enter_context(_replaced(transform, "paste_masks_in_image", _paste_masks))
        stack.enter_context(_replaced(roi_heads, "heatmaps_to_keypoints", heatmaps_to_keypoints))
        stack.enter_context(_own_poolers(model))
        yield model


@contextmanager
def _own_poolers(model: torch.nn.Module) -> Iterator[None]:
    """Put this package's poolers into the places of torchvision's; none learns scales meanwhile."""
    every = [each for each in model.modules() if isinstance(each, poolers.MultiScaleRoIAlign)]
    learned = [(each, each.scales, each.map_levels) for each in every]
    own: dict[torch.nn.Module, torch.nn.Module] = {}
    places = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if _is_torchvision_pooler(child)
    ]
    try:
        for parent, name, pooler in places:
            setattr(parent, name, own.setdefault(pooler, _own_pooler(pooler)))
        yield
    finally:
        for parent, name, pooler in places:
            setattr(parent, name, pooler)
        for pooler, scales, map_levels in learned:
            pooler.scales, pooler.map_levels = scales, map_levels


def _is_torchvision_pooler(module: torch.nn.Module) -> bool:
    """Return whether a module pools as torchvision's does, a subclass of another forward not."""
    return (
        isinstance(module, poolers.MultiScaleRoIAlign)
        and type(module).forward is poolers.MultiScaleRoIAlign.forward
    )


def _own_pooler(pooler: Any) -> torch.nn.Module:
    own: Any = MultiScaleRoIAlign(
        pooler.featmap_names,
        pooler.output_size,
        pooler.sampling_ratio,
        canonical_scale=pooler.canonical_scale,
        canonical_level=pooler.canonical_level,
    )
    own.scales, own.map_levels = pooler.scales, pooler.map_levels
    own.train(pooler.training)
    return own  # type: ignore[no-any-return]


_eager_resize: Any = transform._resize_image_and_masks


def _resize_image_and_masks(
    image: torch.Tensor,
    self_min_size: float,
    self_max_size: float,
    target: dict[str, torch.Tensor] | None = None,
    fixed_size: tuple[int, int] | None = None,
) -> Any:
    """Resize an image [C, H, W] to the size that torchvision computes eagerly."""
    if fixed_size is not None or target is not None or not is_torchscript_tracing():
        return _eager_resize(image, self_min_size, self_max_size, target, fixed_size)
    sides = torch._shape_as_tensor(image)[-2:].to(torch.float64)
    # A tensor divided by a tensor: `number / tensor` is traced as a reciprocal, which rounds twice.
    limits = torch.tensor([self_min_size, self_max_size], dtype=torch.float64)
    factors = limits / torch.stack([sides.min(), sides.max()])
    sizes = torch.floor(sides * factors.min()).to(torch.int64)
    size: Any = [sizes[0], sizes[1]]  # traced numbers
    resized = torch.nn.functional.interpolate(
        image[None], size=size, mode="bilinear", align_corners=False
    )
    return resized[0], target


@contextmanager
def _replaced(holder: ModuleType | type, name: str, value: object) -> Iterator[None]:
    """Set a module's global or a class's method for a while, whether or not there was one."""
    missing = object()
    previous = vars(holder).get(name, missing)
    setattr(holder, name, value)
    try:
        yield
    finally:
        if previous is missing:
            delattr(holder, name)
        else:
            setattr(holder, name, previous)


def _batched_nms(
    boxes: torch.Tensor, scores: torch.Tensor, idxs: torch.Tensor, iou_threshold: float
) -> torch.Tensor:
    """Suppress boxes [D, 4] per class, without asking whether there are any."""
    return nms_of_groups(boxes, scores, idxs, idxs, iou_threshold)


def _paste_masks(
    masks: torch.Tensor, boxes: torch.Tensor, img_shape: tuple[int, int], padding: int = 1
) -> torch.Tensor:
    """Paste masks by this package's operator, where torchvision loops over them."""
    return paste_masks(masks, boxes, img_shape, padding)


_eager_topk_min: Any = det_utils._topk_min


def _topk_min(values: torch.Tensor, most: int, axis: int) -> Any:
    """Return the least of a number and a size, without comparing traced numbers."""
    if is_torchscript_tracing():
        return _eager_topk_min(values, most, axis)
    return torch.sym_min(most, values.shape[axis])


def _symbolic_min(*values: Any) -> Any:
    """Return `min` of several numbers or of one sequence, without comparing traced numbers."""
    return functools.reduce(torch.sym_min, values[0] if len(values) == 1 else values)


_eager_batch_images: Any = GeneralizedRCNNTransform.batch_images


def _batch_images(
    own: GeneralizedRCNNTransform, images: Sequence[torch.Tensor], size_divisible: int = 32
) -> torch.Tensor:
    """Pad images [C, H_i, W_i] at their ends to one size, a multiple of `size_divisible`."""
    if is_torchscript_tracing():
        batch: torch.Tensor = _eager_batch_images(own, images, size_divisible)
        return batch

    def batch_size(axis: int) -> Any:
        largest: int | torch.SymInt = images[0].shape[axis]
        for image in images[1:]:
            largest = torch.sym_max(largest, image.shape[axis])
        return (largest + size_divisible - 1) // size_divisible * size_divisible

    height, width = batch_size(1), batch_size(2)
    return torch.stack(
        [
            torch.nn.functional.pad(i, (0, width - i.shape[2], 0, height - i.shape[1]))
            for i in images
        ]
    )


@contextmanager
def kept_modes(module: torch.nn.Module) -> Iterator[None]:
    """Give every submodule its own mode back, training or evaluation."""
    modes = [(submodule, submodule.training) for submodule in module.modules()]
    try:
        yield
    finally:
        for submodule, training in modes:
            submodule.training = training


def has_resizing_transform(module: torch.nn.Module) -> bool:
    """Return whether a module resizes its images as torchvision's detectors do."""
    return any(isinstance(m, GeneralizedRCNNTransform) for m in module.modules())


def resize_translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Return translations for the dynamo exporter that keep an image's new size in float64.

    The exporter writes a quotient of sizes in float32, and eager PyTorch computes it in float64:
    for about one size in ten the resized image would be a pixel smaller. Only for modules with a
    resizing transform: elsewhere such a quotient may meet float32 tensors, and has to fit them.
    """
    double = onnx.TensorProto.DOUBLE

    def as_double(value: Any) -> Any:
        if isinstance(value, int | float):
            return opset18.Constant(value=onnx.numpy_helper.from_array(np.array(value, np.float64)))
        return opset18.Cast(value, to=double)

    return {
        operator.truediv: lambda a, b: opset18.Div(as_double(a), as_double(b)),
        torch.sym_float: as_double,
    }
