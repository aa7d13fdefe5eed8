"""The four functions that torchvision has too, and its MultiScaleRoIAlign: values and gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from tolerances import GRADIENT, KERNEL
from torch import Tensor

import ort_roialign.torch

SCALE = 0.125
CASES = [
    ("roi_align", {"sampling_ratio": 2, "aligned": True}),
    ("roi_align", {"sampling_ratio": -1, "aligned": True}),
    ("roi_align", {"sampling_ratio": 3, "aligned": False}),
    ("roi_align", {"sampling_ratio": -1, "aligned": False}),
    ("roi_pool", {}),
    ("ps_roi_align", {"sampling_ratio": 2}),
    ("ps_roi_align", {"sampling_ratio": -1}),
    ("ps_roi_pool", {}),
]
TYPES = {"float32": torch.float32, "float64": torch.float64}


def _contiguous(x: Tensor) -> Tensor:
    return x


def _channels_last(x: Tensor) -> Tensor:
    return x.to(memory_format=torch.channels_last)


def _every_other_column(x: Tensor) -> Tensor:
    return torch.stack([x, x], dim=-1).flatten(3)[..., ::2]


LAYOUTS = [_contiguous, _channels_last, _every_other_column]


def _boxes(rng: np.random.Generator, type_: torch.dtype) -> list[Tensor]:
    """Boxes of two images, at least a cell wide and high, some of them partly outside."""
    boxes = []
    for count in (5, 4):
        first = rng.uniform(-30, 150, (count, 2))
        boxes.append(np.column_stack([first, first + rng.uniform(8, 100, (count, 2))]))
    return [torch.tensor(of_image).to(type_) for of_image in boxes]


def _as_rows(boxes: list[Tensor]) -> Tensor:
    return torch.cat(
        [torch.nn.functional.pad(b, (1, 0), value=number) for number, b in enumerate(boxes)]
    )


def _pool(
    function: Callable[..., Tensor], x: Tensor, boxes: Any, dy: Tensor, **options: Any
) -> tuple[Tensor, Tensor]:
    x = x.detach().requires_grad_()
    y = function(x, boxes, (2, 3), SCALE, **options)
    (dx,) = torch.autograd.grad(y, x, dy)
    return y.detach(), dx


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("as_list", [False, True], ids=["rows", "list"])
@pytest.mark.parametrize("type_name", list(TYPES))
@pytest.mark.parametrize(("name", "options"), CASES)
def test_equals_torchvision(
    name: str,
    options: dict[str, Any],
    type_name: str,
    as_list: bool,
    layout: Callable[[Tensor], Tensor],
    rng: np.random.Generator,
) -> None:
    type_ = TYPES[type_name]
    boxes = _boxes(rng, type_)
    given = boxes if as_list else _as_rows(boxes)
    x = layout(torch.tensor(rng.standard_normal((2, 12, 17, 22))).to(type_))
    channels = 2 if name.startswith("ps") else 12
    dy = torch.tensor(rng.standard_normal((9, channels, 2, 3))).to(type_)
    if name == "ps_roi_pool":
        # Forward, torchvision's bins never reach the last row and column; backward, they do. Only
        # boxes that end before these have the same gradient.
        ends_feature = (torch.cat(boxes)[:, 2:] * SCALE).round()
        dy[(ends_feature > torch.tensor([21, 16])).any(dim=1)] = 0
    peer = getattr(torchvision.ops, name)
    y, dx = _pool(getattr(ort_roialign.torch, name), x, given, dy, **options)
    expected_y, expected_dx = _pool(peer, x.contiguous(), given, dy, **options)
    torch.testing.assert_close(y, expected_y, **KERNEL[type_name]._asdict())
    torch.testing.assert_close(dx, expected_dx, **GRADIENT[type_name]._asdict())


@pytest.mark.parametrize("sampling_ratio", [-1, 2])
def test_multiscale_equals_torchvision(sampling_ratio: int, rng: np.random.Generator) -> None:
    type_ = torch.float64
    maps = [
        torch.tensor(rng.standard_normal((2, 3, 128 // step, 192 // step))).requires_grad_()
        for step in (4, 8, 16)
    ]
    sides = rng.uniform(8, 500, (2, 12, 2))
    first = rng.uniform(-20, 100, (2, 12, 2))
    boxes = [torch.tensor(b).to(type_) for b in np.concatenate([first, first + sides], axis=2)]
    pooler = torchvision.ops.MultiScaleRoIAlign(["0", "1", "2"], 3, sampling_ratio)
    named = {str(number): each for number, each in enumerate(maps)}
    expected = pooler(named, boxes, [(128, 192), (128, 192)])
    y = ort_roialign.torch.multiscale_roi_align(
        maps, boxes, 3, [1 / 4, 1 / 8, 1 / 16], sampling_ratio
    )
    torch.testing.assert_close(y, expected, **KERNEL["float64"]._asdict())
    dy = torch.tensor(rng.standard_normal(y.shape))
    gradients = torch.autograd.grad(y, maps, dy)
    for dx, other in zip(gradients, torch.autograd.grad(expected, maps, dy), strict=True):
        assert dx.abs().max() > 0, "each level should have a box"
        torch.testing.assert_close(dx, other, **GRADIENT["float64"]._asdict())


def test_modules_of_both_are_built_and_called_alike(rng: np.random.Generator) -> None:
    x = torch.tensor(rng.standard_normal((2, 12, 17, 22)))
    boxes = _boxes(rng, torch.float64)
    for name, arguments in (
        ("RoIAlign", (2, SCALE, 2, True)),
        ("RoIPool", ((2, 3), SCALE)),
        ("PSRoIAlign", (2, SCALE, 2)),
        ("PSRoIPool", ((2, 3), SCALE)),
    ):
        ours = getattr(ort_roialign.torch, name)(*arguments)
        peer = getattr(torchvision.ops, name)(*arguments)
        assert repr(ours).replace(", mode='avg'", "") == repr(peer)
        torch.testing.assert_close(ours(x, boxes), peer(x, boxes), **KERNEL["float64"]._asdict())
