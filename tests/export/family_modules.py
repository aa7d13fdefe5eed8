"""Modules around one operator of the family each: torchvision's, and this package's own."""

from __future__ import annotations

from typing import Any

import torch
import torchvision

import ort_roialign.torch as roi
from ort_roialign._signatures import OPERATORS


class PositionSensitive(torch.nn.Module):
    """A pooler as a module, its function with a list of boxes, and the channels that it read."""

    def __init__(self, name: str, sampling_ratio: int | None) -> None:
        super().__init__()
        self.options = {} if sampling_ratio is None else {"sampling_ratio": sampling_ratio}
        module = {"ps_roi_align": "PSRoIAlign", "ps_roi_pool": "PSRoIPool"}[name]
        self.pool = getattr(torchvision.ops, module)((3, 2), 0.125, **self.options)
        self.function = getattr(torchvision.ops, name)
        self.operator = getattr(torch.ops.torchvision, name)

    def forward(self, x: torch.Tensor, rois: torch.Tensor, boxes: torch.Tensor) -> Any:
        options = self.options
        _, channels = self.operator(x, rois, 0.25, 3, 2, *options.values())
        return self.pool(x, rois), self.function(x, [boxes], 3 - 1, 0.25, **options), channels


class Operator(torch.nn.Module):
    """One of `torch.ops.ort_roialign`, its inputs in the order of the ONNX operator's."""

    def __init__(self, name: str, attributes: dict[str, Any]) -> None:
        super().__init__()
        self.signature = OPERATORS[name]
        self.operator = getattr(torch.ops.ort_roialign, self.signature.function_name)
        self.attributes = attributes

    def forward(self, *inputs: torch.Tensor) -> Any:
        arguments: list[Any] = list(inputs)
        if self.signature.variadic:
            arguments = [*inputs[:2], list(inputs[2:])]
        arguments += [None] * (len(self.signature.inputs) - len(arguments))
        return self.operator(*arguments, *self.attributes.values())


class Pyramid(torch.nn.Module):
    """`multiscale_roi_align` on two maps and a list with the boxes of two images."""

    def forward(
        self, fine: torch.Tensor, coarse: torch.Tensor, boxes0: torch.Tensor, boxes1: torch.Tensor
    ) -> Any:
        return roi.multiscale_roi_align(
            [fine, coarse], [boxes0, boxes1], (3, 2), (0.125, 0.0625), 2, canonical_scale=448
        )
