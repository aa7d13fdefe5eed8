"""Gradients in PyTorch: equal to finite differences, and to the bit for any number of threads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from calls import VARIANTS, make_call
from tolerances import FINITE_DIFFERENCE, FINITE_DIFFERENCE_STEP

from ort_roialign import _kernels
from ort_roialign._signatures import OPERATORS
from ort_roialign.errors import OrtRoiAlignError
from ort_roialign.torch import _library_ops


@pytest.fixture(autouse=True)
def _same_number_of_threads_after() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"channels": 3, "num_rois": 1, "sampling_ratio": 0},
        {"height": 1, "width": 4, "images": 1, "output_height": 1, "output_width": 2},
    ],
    ids=["plain", "adaptive", "one-row"],
)
@pytest.mark.parametrize(("name", "mode"), VARIANTS)
def test_gradients_equal_finite_differences(
    name: str, mode: str, shape: dict[str, int], rng: np.random.Generator
) -> None:
    call = make_call(rng, name, mode=mode, **shape)
    variables = [tensor.requires_grad_() for tensor in call.variables()]
    assert torch.autograd.gradcheck(
        call.of_variables(),
        variables,
        eps=FINITE_DIFFERENCE_STEP,
        rtol=FINITE_DIFFERENCE.rtol,
        atol=FINITE_DIFFERENCE.atol,
    )


@pytest.mark.parametrize("coordinate_transformation_mode", ["half_pixel", "output_half_pixel"])
@pytest.mark.parametrize("name", ["RoiAlign", "MultiScaleRoiAlignRotated", "DeformRoiPool"])
def test_gradients_of_both_origins_equal_finite_differences(
    name: str, coordinate_transformation_mode: str, rng: np.random.Generator
) -> None:
    mode = coordinate_transformation_mode
    call = make_call(rng, name, coordinate_transformation_mode=mode)
    variables = [tensor.requires_grad_() for tensor in call.variables()]
    assert torch.autograd.gradcheck(
        call.of_variables(),
        variables,
        eps=FINITE_DIFFERENCE_STEP,
        rtol=FINITE_DIFFERENCE.rtol,
        atol=FINITE_DIFFERENCE.atol,
    )


@pytest.mark.parametrize(("name", "mode"), VARIANTS)
def test_no_boxes_give_gradients_of_zero(name: str, mode: str, rng: np.random.Generator) -> None:
    call = make_call(rng, name, mode=mode, num_rois=0)
    variables = [tensor.requires_grad_() for tensor in call.variables()]
    y = call.of_variables()(*variables)
    assert y.shape == (0, 1, 2, 3)
    for variable, gradient in zip(variables, torch.autograd.grad(y.sum(), variables), strict=True):
        assert torch.equal(gradient, torch.zeros_like(variable))


@pytest.mark.parametrize("type_", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("name", "mode"), VARIANTS)
def test_one_and_two_threads_give_the_same_bits(
    name: str, mode: str, type_: torch.dtype, rng: np.random.Generator
) -> None:
    call = make_call(
        rng, name, mode=mode, x_type=type_, channels=20, height=24, width=30, num_rois=40,
        output_height=3, output_width=3,
    )  # fmt: skip
    variables = [tensor.requires_grad_() for tensor in call.variables()]
    dy = torch.tensor(rng.standard_normal((40, 20, 3, 3))).to(type_)
    results = []
    for threads in (1, 2, 2):
        torch.set_num_threads(threads)
        y = call.of_variables()(*variables)
        results.append([y, *torch.autograd.grad(y, variables, dy)])
    for other in results[1:]:
        for first, second in zip(results[0], other, strict=True):
            assert torch.equal(first, second)


@pytest.mark.parametrize(("name", "mode"), VARIANTS)
def test_a_gradient_that_is_not_contiguous(name: str, mode: str, rng: np.random.Generator) -> None:
    call = make_call(rng, name, mode=mode)
    variables = [tensor.requires_grad_() for tensor in call.variables()]
    y = call.of_variables()(*variables)
    dy = torch.tensor(rng.standard_normal(y.shape))
    turned = dy.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
    assert not turned.is_contiguous()
    expected = torch.autograd.grad(y, variables, dy, retain_graph=True)
    for gradient, other in zip(torch.autograd.grad(y, variables, turned), expected, strict=True):
        assert torch.equal(gradient, other)
    # The gradient of a sum is one number, expanded.
    ones = torch.autograd.grad(call.of_variables()(*variables), variables, torch.ones_like(y))
    sums = torch.autograd.grad(call.of_variables()(*variables).sum(), variables)
    for gradient, other in zip(sums, ones, strict=True):
        assert torch.equal(gradient, other)


@pytest.mark.parametrize(("name", "mode"), VARIANTS)
def test_only_what_the_output_depends_on_smoothly_has_a_gradient(
    name: str, mode: str, rng: np.random.Generator
) -> None:
    call = make_call(rng, name, mode=mode)
    rois = next(t for t in call.tensors if not isinstance(t, list) and t.dim() == 2)
    rois.requires_grad_()
    variables = [tensor.requires_grad_() for tensor in call.variables()]
    call.operator(*call.arguments).sum().backward()
    assert (rois.grad is not None) == (name == "PrRoiPool")
    assert all(variable.grad is not None for variable in variables)


def test_each_gradient_alone_equals_the_one_beside_the_other(rng: np.random.Generator) -> None:
    for name in ("PrRoiPool", "DeformRoiPool"):
        call = make_call(rng, name)
        dy, *_ = call.gradient_arguments
        together = None
        for wanted in ((True, True), (True, False), (False, True)):
            variables = [
                tensor.detach().clone().requires_grad_(needed)
                for tensor, needed in zip(call.variables(), wanted, strict=True)
            ]
            call.of_variables()(*variables).backward(dy)
            gradients = [variable.grad for variable in variables]
            together = together or gradients
            for gradient, other, needed in zip(gradients, together, wanted, strict=True):
                assert torch.equal(gradient, other) if needed else gradient is None


def test_an_offset_that_is_left_out_is_one_of_zeros(rng: np.random.Generator) -> None:
    call = make_call(rng, "DeformRoiPool")
    x, rois, images, offset = call.tensors
    x.requires_grad_()
    y = call.operator(x, rois, images, None, *call.attributes)
    (dx,) = torch.autograd.grad(y.sum(), x)
    zeros = torch.zeros_like(offset)
    y_of_zeros = call.operator(x, rois, images, zeros, *call.attributes)
    assert torch.equal(y, y_of_zeros)
    assert torch.equal(dx, torch.autograd.grad(y_of_zeros.sum(), x)[0])


@pytest.mark.parametrize(("name", "second"), [("PrRoiPool", "rois"), ("DeformRoiPool", "offset")])
def test_only_the_gradients_that_are_needed_are_computed(
    name: str, second: str, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = make_call(rng, name)
    inputs = {each: call.tensors[OPERATORS[name].inputs.index(each)] for each in ("X", second)}
    for each in inputs.values():
        each.requires_grad_()
    expected = torch.autograd.grad(call.operator(*call.arguments).sum(), list(inputs.values()))
    computed = []

    class WatchedCall(_kernels.Call):
        def run(self, outputs: Any, **rest: Any) -> None:
            computed.append([output is not _kernels.ABSENT for output in outputs])
            super().run(outputs, **rest)

    monkeypatch.setattr(_library_ops, "Call", WatchedCall)
    for number, needed in enumerate(inputs.values()):
        for each in inputs.values():
            each.requires_grad_(each is needed)
        (found,) = torch.autograd.grad(call.operator(*call.arguments).sum(), needed)
        assert torch.equal(found, expected[number])
        assert computed[-1] == [number == 0, number == 1]


def test_there_is_no_second_derivative(rng: np.random.Generator) -> None:
    call = make_call(rng, "RoiAlign")
    x = call.tensors[0].requires_grad_()
    y = call.operator(*call.arguments)
    (dx,) = torch.autograd.grad((y * y).sum(), x, create_graph=True)
    with pytest.raises(OrtRoiAlignError, match="RoiAlignGrad: RoiAlign has no second derivative"):
        dx.sum().backward()


@pytest.mark.parametrize(("name", "mode"), VARIANTS)
def test_a_map_may_change_in_place_where_its_values_are_not_needed(
    name: str, mode: str, rng: np.random.Generator
) -> None:
    call = make_call(rng, name, mode=mode)
    reads_maps = OPERATORS[name].gradient_reads_maps({"mode": mode})
    assert reads_maps == (mode == "max" or name in ("RoiPool", "PrRoiPool", "DeformRoiPool"))
    given = call.tensors[OPERATORS[name].inputs.index("X")]
    maps = [each.requires_grad_() for each in (given if isinstance(given, list) else [given])]
    y = call.operator(*call.arguments)
    dy = torch.rand_like(y)
    expected = torch.autograd.grad(y, maps, dy, retain_graph=True)
    with torch.no_grad():
        for each in maps:
            each.mul_(2)
    if reads_maps:
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            torch.autograd.grad(y, maps, dy)
    else:
        for found, wanted in zip(torch.autograd.grad(y, maps, dy), expected, strict=True):
            assert wanted.abs().max() > 0
            assert torch.equal(found, wanted)
