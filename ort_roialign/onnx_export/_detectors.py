"""What torchvision's detectors need while they are traced; all of it is undone afterwards."""

from __future__ import annotations

import builtins
import functools
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import torch
import torchvision
from onnxscript import opset18
from torchvision.models.detection import transform
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import MultiScaleRoIAlign, poolers
from torchvision.ops import boxes as box_ops

from ort_roialign.torch import paste_masks


@contextmanager
def dynamo_friendly_detectors() -> Iterator[None]:
    """Replace the places where torchvision's detectors stop torch.export or mislead it.

    - `batched_nms` asks whether there are no boxes, which is unknown when tracing.
    - `MultiScaleRoIAlign` takes `len(rois)`, which makes the example's number of RoIs a constant.
    - `GeneralizedRCNNTransform` rounds the batch's size in Python floats, which makes the
      example's size a constant, and takes Python's `min` of two scale factors, which keeps only
      the factor that the example needs.

    The replacements give torchvision's results. A module that imported `batched_nms` by name keeps
    torchvision's.
    """
    with ExitStack() as stack:
        for holder in (box_ops, torchvision.ops):
            stack.enter_context(_replaced(holder, "batched_nms", _batched_nms))
        # A module's global goes before the builtin of the same name.
        stack.enter_context(_replaced(poolers, "len", _symbolic_len))
        stack.enter_context(_replaced(transform, "min", _symbolic_min))
        stack.enter_context(_replaced(GeneralizedRCNNTransform, "batch_images", _batch_images))
        stack.enter_context(_replaced(transform, "paste_masks_in_image", _paste_masks))
        yield


@contextmanager
def torchscript_friendly_detectors() -> Iterator[None]:
    """Replace the place where torchvision's detectors mislead the TorchScript exporter.

    While traced, `_resize_image_and_masks` computes an image's new size in float32, and eagerly in
    float64: for about one size in ten it is then a pixel less, and all detections move.
    """
    with (
        _replaced(transform, "_resize_image_and_masks", _resize_image_and_masks),
        _replaced(transform, "paste_masks_in_image", _paste_masks),
    ):
        yield


_eager_resize: Any = transform._resize_image_and_masks


def _resize_image_and_masks(
    image: torch.Tensor,
    self_min_size: float,
    self_max_size: float,
    target: dict[str, torch.Tensor] | None = None,
    fixed_size: tuple[int, int] | None = None,
) -> Any:
    """Resize an image [C, H, W] to the size that torchvision computes eagerly."""
    if fixed_size is not None or target is not None:
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
    """Suppress per class by moving each class's boxes [D, 4] apart, as torchvision does.

    The added 0 gives the maximum a value when there are no boxes.
    """
    largest = torch.cat([boxes.reshape(-1), boxes.new_zeros(1)]).max()
    offsets = idxs.to(boxes) * (largest + 1)
    kept: torch.Tensor = box_ops.nms(boxes + offsets[:, None], scores, iou_threshold)
    return kept


def _paste_masks(
    masks: torch.Tensor, boxes: torch.Tensor, img_shape: tuple[int, int], padding: int = 1
) -> torch.Tensor:
    """Paste masks by this package's operator, where torchvision loops over them."""
    return paste_masks(masks, boxes, img_shape, padding)


def _symbolic_len(value: Any) -> Any:
    """Return `len`, but the symbolic size of a tensor."""
    return value.shape[0] if isinstance(value, torch.Tensor) else builtins.len(value)


def _symbolic_min(*values: Any) -> Any:
    """Return `min` of several numbers or of one sequence, without comparing traced numbers."""
    return functools.reduce(torch.sym_min, values[0] if len(values) == 1 else values)


def _batch_images(
    _: GeneralizedRCNNTransform, images: Sequence[torch.Tensor], size_divisible: int = 32
) -> torch.Tensor:
    """Pad images [C, H_i, W_i] at their ends to one size, a multiple of `size_divisible`."""

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
def cached_scales(
    module: torch.nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Iterator[None]:
    """Let each MultiScaleRoIAlign know its scales while the module is traced.

    It computes them from the sizes of the first images it sees, which cannot be traced with
    dynamic sizes. So one eager forward runs first, if any pooler needs it, in evaluation mode: it
    must not touch batch norm's statistics. Scales and modes are as before afterwards.
    """
    unset = [
        pooler
        for pooler in module.modules()
        if isinstance(pooler, MultiScaleRoIAlign) and pooler.scales is None
    ]
    if not unset:
        yield
        return
    try:
        with torch.no_grad(), kept_modes(module):
            module.eval()
            module(*args, **kwargs)
        yield
    finally:
        for pooler in unset:
            pooler.scales = None
            pooler.map_levels = None


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


def known_obstacle(module: torch.nn.Module) -> str | None:
    """Return what in a module's detector heads torch.export cannot trace, or None if unknown."""
    for submodule in module.modules():
        if not isinstance(submodule, RoIHeads):
            continue
        if submodule.has_mask():
            return "paste_masks_in_image, which loops over the detections (Mask R-CNN)"
        if submodule.has_keypoint():
            return "heatmaps_to_keypoints, which loops over the detections (Keypoint R-CNN)"
    return None
