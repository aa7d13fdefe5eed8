"""A detector and example images as arguments of an exporter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.roi_heads import RoIHeads

from ort_roialign.errors import InvalidArgumentError
from ort_roialign.onnx_export._batched_detector import BatchedDetector

_IMAGE = {1: "height", 2: "width"}
_BATCH = {0: "num_images", 2: "height", 3: "width"}


def takes_images(module: torch.nn.Module, args: object) -> bool:
    """Return whether `args` are images for a detector of torchvision, not an exporter's tuple."""
    return isinstance(module, GeneralizedRCNN) and isinstance(args, list | Tensor)


def detector_call(
    detector: torch.nn.Module,
    images: Sequence[Tensor] | Tensor,
    *,
    dynamo: bool,
    input_names: Sequence[str] | None,
) -> tuple[torch.nn.Module, tuple[Any, ...], Mapping[str, Any]]:
    """Return what to export: a module, its inputs, and names and free sizes as options.

    Args:
        detector: torchvision's, in evaluation mode.
        images: [3, H, W] each, for as many inputs; or a batch [N, 3, H, W].
        dynamo: which exporter the options are for.
        input_names: where they are given, the free sizes are those of inputs of these names.

    Raises:
        InvalidArgumentError: if the images are none, or the detector would be trained.
    """
    _check(detector, images)
    results = _results(detector)
    example: Any
    free: dict[str, dict[int, str]]  # sizes of one name would have to be equal
    if isinstance(images, Tensor):
        detector, example = BatchedDetector(detector), images
        free, outputs = {"images": _BATCH}, [*results, "image_indices"]
    elif len(images) == 1:
        example, free, outputs = list(images), {"image": _IMAGE}, results
    else:
        numbers, example = range(len(images)), list(images)
        free = {
            f"image_{i}": {axis: f"{name}_{i}" for axis, name in _IMAGE.items()} for i in numbers
        }
        outputs = [f"{result}_{i}" for i in numbers for result in results]
    names, shapes = list(free if input_names is None else input_names), list(free.values())
    sizes: dict[str, Any] = {"dynamic_axes": dict(zip(names, shapes, strict=False))}
    if dynamo:
        sizes = {"dynamic_shapes": tuple(shapes) if isinstance(images, Tensor) else (shapes,)}
    return detector, (example,), {"input_names": names, "output_names": outputs, **sizes}


def _results(detector: Any) -> list[str]:
    """Return the names of a detector's results, in its order."""
    if not isinstance(detector.roi_heads, RoIHeads):
        raise InvalidArgumentError(
            "export: module must have torchvision's RoIHeads where args are images; got "
            f"{type(detector.roi_heads).__name__}: give args as a tuple"
        )
    names = ["boxes", "labels", "scores"]
    if detector.roi_heads.has_mask():
        names.append("masks")
    if detector.roi_heads.has_keypoint():
        names += ["keypoints", "keypoints_scores"]
    return names


def _check(detector: torch.nn.Module, images: Sequence[Tensor] | Tensor) -> None:
    if detector.training:
        raise InvalidArgumentError(
            "export: module must be in evaluation mode to detect in images; got one in training "
            "mode: call its eval()"
        )
    given, axes, required = list(images), 3, "images [3, H, W]"
    if isinstance(images, Tensor):
        given, axes, required = [images] if images.numel() else [], 4, "a batch [N, 3, H, W]"
    for each in given:
        if not isinstance(each, Tensor) or each.ndim != axes or not each.is_floating_point():
            got = (
                f"{str(each.dtype).removeprefix('torch.')} {list(each.shape)}"
                if isinstance(each, Tensor)
                else type(each).__name__
            )
            raise InvalidArgumentError(
                f"export: args must be {required} of floating-point numbers; got {got}"
            )
    if not given:
        raise InvalidArgumentError(f"export: args must be {required}, at least one; got none")
