"""Under autocast the types that a network mixes go together, and the result has the map's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from calls import SCALE, VARIANTS, Call, make_call
from tolerances import GRADIENT, KERNEL
from torch import Tensor, nn
from torch.nn import functional

import ort_roialign
import ort_roialign.torch as ops
from ort_roialign._signatures import OPERATORS
from ort_roialign.errors import InvalidArgumentError

TYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
HALVES = (torch.float16, torch.bfloat16)
NUM_BOXES = 5
SCALES = [SCALE, SCALE / 2]
# name -> the function of two maps, boxes [K, 5], turned boxes [K, 6], and an offset.
FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "roi_align": lambda maps, boxes, *_: ops.roi_align(maps[0], boxes, 2, SCALE, 2, True),
    "maximum": lambda maps, boxes, *_: ops.roi_align(maps[0], boxes, 2, SCALE, mode="max"),
    "multiscale_roi_align": lambda maps, boxes, *_: ops.multiscale_roi_align(
        maps, boxes, 2, SCALES, canonical_scale=16
    ),
    "roi_align_rotated": lambda maps, _, turned, __: ops.roi_align_rotated(
        maps[0], turned, 2, SCALE
    ),
    "multiscale_roi_align_rotated": lambda maps, _, turned, __: ops.multiscale_roi_align_rotated(
        maps, turned, 2, SCALES, canonical_scale=16
    ),
    "roi_pool": lambda maps, boxes, *_: ops.roi_pool(maps[0], boxes, 2, SCALE),
    "ps_roi_align": lambda maps, boxes, *_: ops.ps_roi_align(maps[0], boxes, 2, SCALE, 2),
    "ps_roi_pool": lambda maps, boxes, *_: ops.ps_roi_pool(maps[0], boxes, 2, SCALE),
    "prroi_pool": lambda maps, boxes, *_: ops.prroi_pool(maps[0], boxes, 2, SCALE),
    "deform_roi_pool": lambda maps, boxes, _, offset: ops.deform_roi_pool(
        maps[0], boxes, offset, 2, SCALE, 2
    ),
}


class Net(nn.Module):
    """Convolutions, a pooling and a linear layer, with boxes and an offset that are learned too."""

    def __init__(self, function: Callable[..., Tensor], rng: np.random.Generator) -> None:
        super().__init__()
        self.function = function
        self.fine, self.coarse = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 2, stride=2)
        self.linear = nn.LazyLinear(4)
        corner = rng.uniform(0, 30, (NUM_BOXES, 2))
        boxes = np.column_stack([corner, corner + rng.uniform(8, 24, (NUM_BOXES, 2))])
        self.boxes = nn.Parameter(torch.tensor(boxes, dtype=torch.float32))
        self.offset = nn.Parameter(torch.tensor(rng.uniform(-1, 1, (NUM_BOXES, 2, 2, 2))).float())

    def maps(self, images: Tensor) -> list[Tensor]:
        fine = self.fine(images)
        return [fine, self.coarse(fine)]

    def pool(self, maps: list[Tensor]) -> Tensor:
        rows = functional.pad(self.boxes, (1, 0))
        turned = functional.pad(rows.detach(), (0, 1), value=0.5)
        return self.function(maps, rows, turned, self.offset)

    def forward(self, images: Tensor) -> Tensor:
        result: Tensor = self.linear(self.pool(self.maps(images)).flatten(1))
        return result


def _net(name: str, rng: np.random.Generator) -> tuple[Net, Tensor]:
    torch.manual_seed(0)
    return Net(FUNCTIONS[name], rng), torch.tensor(rng.standard_normal((1, 3, 14, 16))).float()


def test_every_operator_has_a_function_here() -> None:
    functions = {name for name in ops.__all__ if name.islower()}
    assert set(FUNCTIONS) - {"maximum"} == functions - {"paste_masks"}  # which nobody trains
    assert len(FUNCTIONS) - 1 == len(OPERATORS)


@pytest.mark.parametrize("backward_inside", [False, True])
@pytest.mark.parametrize("name", list(FUNCTIONS))
def test_a_network_trains(name: str, backward_inside: bool, rng: np.random.Generator) -> None:
    net, images = _net(name, rng)
    with torch.autocast("cpu", torch.bfloat16):
        maps = net.maps(images)
        assert {each.dtype for each in maps} == {torch.bfloat16}
        assert net.pool(maps).dtype == torch.bfloat16
        loss = net(images).float().square().mean()
        if backward_inside:
            loss.backward()
    if not backward_inside:
        loss.backward()
    learned = {"fine.weight", "linear.weight"}
    learned |= {"coarse.weight"} if "multiscale" in name else set()
    learned |= {"prroi_pool": {"boxes"}, "deform_roi_pool": {"offset"}}.get(name, set())
    for parameter_name, parameter in net.named_parameters():
        if parameter_name in learned:
            assert parameter.grad is not None, parameter_name
            assert parameter.grad.dtype == torch.float32
            assert parameter.grad.isfinite().all()
            assert parameter.grad.abs().max() > 0, parameter_name


@pytest.mark.parametrize("name", list(FUNCTIONS))
def test_values_and_gradients_are_those_of_float32(name: str, rng: np.random.Generator) -> None:
    net, images = _net(name, rng)
    with torch.autocast("cpu", torch.bfloat16):
        half = [each.detach().requires_grad_() for each in net.maps(images)]
        pooled = net.pool(half)
    full = [each.detach().float().requires_grad_() for each in half]
    with torch.no_grad():
        net.offset.copy_(net.offset.bfloat16())  # as far as it goes in the maps' type
    expected = net.pool(full)
    torch.testing.assert_close(pooled.float(), expected, **KERNEL["bfloat16"]._asdict())
    wanted = torch.autograd.grad(expected.sum(), full, allow_unused=True)
    for found, other in zip(
        torch.autograd.grad(pooled.sum(), half, allow_unused=True), wanted, strict=True
    ):
        assert (found is None) == (other is None)
        if found is not None:
            assert found.dtype == torch.bfloat16
            torch.testing.assert_close(found.float(), other, **GRADIENT["bfloat16"]._asdict())


def _cast_by_hand(call: Call, x_type: torch.dtype, rois_type: torch.dtype) -> Call:
    types = {"X": x_type, "rois": rois_type, "offset": x_type, "batch_indices": torch.int64}
    tensors = [
        [each.to(types[name]) for each in value]
        if isinstance(value, list)
        else value.to(types[name])
        for name, value in zip(OPERATORS[call.name].inputs, call.tensors, strict=True)
    ]
    return Call(call.name, tensors, call.attributes)


@pytest.mark.parametrize(("name", "mode"), VARIANTS)
def test_any_mixture_of_types(name: str, mode: str, rng: np.random.Generator) -> None:
    for x_type in TYPES:
        for other_type in TYPES:
            call = make_call(rng, name, mode=mode, x_type=x_type, rois_type=other_type)
            if name == "DeformRoiPool":
                call.tensors[3] = call.tensors[3].to(other_type)
            variables = [tensor.requires_grad_() for tensor in call.variables()]
            by_hand = _cast_by_hand(call, x_type, torch.float32 if x_type in HALVES else x_type)
            with torch.autocast("cpu", torch.bfloat16):
                found = call.operator(*call.arguments)
            expected = by_hand.operator(*by_hand.arguments)
            assert found.dtype == x_type
            assert torch.equal(found, expected)
            gradients = torch.autograd.grad(found.sum(), variables)
            others = torch.autograd.grad(expected.sum(), variables)
            for variable, gradient, other in zip(variables, gradients, others, strict=True):
                assert gradient.dtype == variable.dtype
                assert torch.equal(gradient, other)


def test_maps_of_a_pyramid_take_the_type_of_the_first(rng: np.random.Generator) -> None:
    for name in ("MultiScaleRoiAlign", "MultiScaleRoiAlignRotated"):
        for first, second in ((torch.bfloat16, torch.float32), (torch.float32, torch.bfloat16)):
            call = make_call(rng, name, x_type=torch.float32)
            rois, images, maps = call.tensors
            mixed = [maps[0].to(first).requires_grad_(), maps[1].to(second).requires_grad_()]
            with torch.autocast("cpu", torch.bfloat16):
                found = call.operator(rois, images, mixed, *call.attributes)
            expected = call.operator(
                rois, images, [each.to(first) for each in mixed], *call.attributes
            )
            assert found.dtype == first
            assert torch.equal(found, expected)
            gradients = torch.autograd.grad(found.sum(), mixed)
            assert [gradient.dtype for gradient in gradients] == [first, second]


def test_an_offset_that_is_left_out(rng: np.random.Generator) -> None:
    call = make_call(rng, "DeformRoiPool", x_type=torch.bfloat16, rois_type=torch.float32)
    call.tensors[3] = None
    with torch.autocast("cpu", torch.bfloat16):
        found = call.operator(*call.arguments)
    assert torch.equal(found, call.operator(*call.arguments))


def test_roi_align_is_torchvisions(rng: np.random.Generator) -> None:
    x = torch.tensor(rng.standard_normal((1, 3, 14, 16)))
    for x_type, boxes_type in ((torch.bfloat16, torch.float32), (torch.float32, torch.bfloat16)):
        boxes = torch.tensor([[0.0, 3.0, 5.0, 40.0, 30.0]], dtype=boxes_type)
        with torch.autocast("cpu", torch.bfloat16):
            found = ops.roi_align(x.to(x_type), boxes, 2, SCALE, 2)
            expected = torchvision.ops.roi_align(x.to(x_type), boxes, 2, SCALE, 2)
        assert found.dtype == expected.dtype == x_type
        tolerance = KERNEL[str(x_type).removeprefix("torch.")]
        torch.testing.assert_close(found, expected, **tolerance._asdict())


def test_without_autocast_types_are_the_caller_s(rng: np.random.Generator) -> None:
    call = make_call(rng, "RoiAlign", x_type=torch.float32, rois_type=torch.bfloat16)
    text = "rois must be of type float32, as X; got bfloat16"
    with pytest.raises(InvalidArgumentError, match=text):
        call.operator(*call.arguments)
    with torch.autocast("cpu", enabled=False), pytest.raises(InvalidArgumentError, match=text):
        call.operator(*call.arguments)


def test_errors_are_the_same_under_autocast() -> None:
    x, boxes = torch.ones(1, 1, 4, 4), torch.zeros(1, 5)
    with torch.autocast("cpu", torch.bfloat16):
        with pytest.raises(InvalidArgumentError, match=r"X must have shape .*; got none"):
            torch.ops.ort_roialign.multi_scale_roi_align(
                boxes[:, 1:], boxes[:, 0].long(), [], [1.0], 224.0, 4, None, None, 0.0, 0.0, "avg",
                1, 1, 0, "half_pixel",
            )  # fmt: skip
        with pytest.raises(InvalidArgumentError, match="output_height must be at least 1; got 0"):
            ops.roi_align(x, boxes, 0)
        with pytest.raises(InvalidArgumentError, match=r"float32, .*; got int32"):
            ops.roi_align(x.int(), boxes, 1)


@pytest.mark.parametrize("name", list(FUNCTIONS))
def test_compiled(name: str, rng: np.random.Generator) -> None:
    torch._dynamo.reset()
    net, images = _net(name, rng)

    def step(images: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return net(images)

    expected = step(images)
    compiled: Any = torch.compile(step, fullgraph=True, backend="aot_eager")
    found = compiled(images)
    assert torch.equal(found, expected)
    parameters = [net.fine.weight, *([net.boxes] if name == "prroi_pool" else [])]
    for one, other in zip(
        torch.autograd.grad(found.sum(), parameters),
        torch.autograd.grad(expected.sum(), parameters),
        strict=True,
    ):
        assert torch.equal(one, other)


@pytest.mark.gpu
@pytest.mark.parametrize("name", list(FUNCTIONS))
def test_a_network_trains_on_a_gpu(name: str, rng: np.random.Generator) -> None:
    if not torch.cuda.is_available():
        pytest.skip("PyTorch finds no GPU")
    if not ort_roialign.build_info()["cuda"]:
        pytest.skip("the library was built without CUDA kernels")
    net, images = _net(name, rng)
    net, images = net.cuda(), images.cuda()
    with torch.autocast("cuda", torch.float16):
        assert net.pool(net.maps(images)).dtype == torch.float16
        loss = net(images).float().square().mean()
    loss.backward()
    assert net.fine.weight.grad is not None
    assert net.fine.weight.grad.dtype == torch.float32
    assert net.fine.weight.grad.abs().max() > 0
