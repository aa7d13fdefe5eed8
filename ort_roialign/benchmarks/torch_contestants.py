"""The operators as PyTorch trains with them: forward, and backward from a given gradient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ort_roialign.benchmarks.problems import Array, Call

# The operators that torchvision has too, with the same arguments.
IN_TORCHVISION = frozenset({"roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool"})
GRADIENT_SEED = 0


@dataclass(frozen=True)
class Invocation:
    """One call of a function.

    Attributes:
        arguments: in the function's order.
        leaves: those tensors among them that gradients are computed for.
    """

    arguments: tuple[Any, ...]
    leaves: tuple[Tensor, ...]


class TorchRunner:
    """A function with everything prepared for both directions.

    Results and gradients are allocated in each call, as PyTorch does it.

    Args:
        function: of `ort_roialign.torch` or `torchvision.ops`.
        invocations: its calls.
    """

    def __init__(self, function: Any, invocations: Sequence[Invocation]) -> None:
        self._function = function
        self._invocations = invocations
        self._results = self.forward()
        rng = np.random.default_rng(GRADIENT_SEED)
        self._gradients = [_normal(rng, *result.shape) for result in self._results]

    def forward(self) -> list[Tensor]:
        """Compute all calls, and remember what backward needs."""
        return [self._function(*each.arguments) for each in self._invocations]

    def backward(self) -> list[Tensor]:
        """Compute the gradients of each call's leaves."""
        calls = zip(self._results, self._invocations, self._gradients, strict=True)
        return [
            gradient
            for result, each, dy in calls
            for gradient in torch.autograd.grad(result, each.leaves, dy, retain_graph=True)
        ]

    def outputs(self) -> dict[str, list[Array]]:
        """Return what both directions compute."""
        return {
            "forward": [result.detach().numpy() for result in self.forward()],
            "backward": [gradient.numpy() for gradient in self.backward()],
        }


def invocations(operator: str, calls: Sequence[Call], rng: np.random.Generator) -> list[Invocation]:
    """Return the calls of an operator's function.

    Args:
        operator: name of a function of `ort_roialign.torch`.
        calls: maps, boxes and sizes; of a multi-scale operator the levels, which make one call.
        rng: where angles and offsets come from.
    """
    if operator == "multiscale_roi_align":
        return [_on_levels(calls)]
    return [_on_map(operator, call, rng) for call in calls]


def _on_map(operator: str, call: Call, rng: np.random.Generator) -> Invocation:
    x = torch.from_numpy(call.x).requires_grad_()
    boxes = torch.from_numpy(call.numbered_rois)
    sizes = (call.bins, 1 / call.stride)
    match operator:
        case "roi_align":
            return Invocation((x, boxes, *sizes, call.sampling_ratio, True), (x,))
        case "ps_roi_align":
            return Invocation((x, boxes, *sizes, call.sampling_ratio), (x,))
        case "roi_pool" | "ps_roi_pool":
            return Invocation((x, boxes, *sizes), (x,))
        case "roi_align_rotated":
            return Invocation((x, _turned(boxes, rng), *sizes, call.sampling_ratio), (x,))
        case "prroi_pool":
            boxes.requires_grad_()
            return Invocation((x, boxes, *sizes), (x, boxes))
        case "deform_roi_pool":
            offset = _normal(rng, len(boxes), 2, call.bins, call.bins).requires_grad_()
            return Invocation((x, boxes, offset, *sizes, call.sampling_ratio), (x, offset))
    raise ValueError(operator)


def _on_levels(calls: Sequence[Call]) -> Invocation:
    maps = tuple(torch.from_numpy(call.x).requires_grad_() for call in calls)
    boxes = torch.from_numpy(np.concatenate([call.numbered_rois for call in calls]))
    scales = [1 / call.stride for call in calls]
    sampling_ratio = calls[0].sampling_ratio
    return Invocation((maps, boxes, calls[0].bins, scales, sampling_ratio, True), maps)


def _turned(boxes: Tensor, rng: np.random.Generator) -> Tensor:
    """Return boxes [num_rois, 5] as image, centre, sides and a random angle in radians."""
    image, start, end = boxes[:, :1], boxes[:, 1:3], boxes[:, 3:]
    angles = rng.uniform(-np.pi, np.pi, (len(boxes), 1)).astype(np.float32)
    return torch.cat([image, (start + end) / 2, end - start, torch.from_numpy(angles)], dim=1)


def _normal(rng: np.random.Generator, *shape: int) -> Tensor:
    return torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))
