"""The compiler and the exporter see the operators as they are: shapes, gradients, one node each."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from calls import VARIANTS, Call, make_call
from torch.nn import functional

import ort_roialign.torch as ops
from ort_roialign._signatures import OPERATORS


class Wrapped(torch.nn.Module):
    """An operator between other operators, with the attributes fixed."""

    def __init__(self, call: Call) -> None:
        super().__init__()
        self.operator, self.attributes = call.operator, call.attributes

    def forward(self, *tensors: Any) -> torch.Tensor:
        result: torch.Tensor = 2 * self.operator(*tensors, *self.attributes) + 1
        return result


@pytest.mark.parametrize(("name", "mode"), VARIANTS)
def test_opcheck_of_the_operator(name: str, mode: str, rng: np.random.Generator) -> None:
    call = make_call(rng, name, mode=mode)
    for variable in call.variables():
        variable.requires_grad_()
    torch.library.opcheck(call.operator, call.arguments)


@pytest.mark.parametrize("name", list(OPERATORS))
def test_opcheck_of_the_gradient(name: str, rng: np.random.Generator) -> None:
    call = make_call(rng, name)
    torch.library.opcheck(call.gradient_operator, call.gradient_arguments)


@pytest.mark.parametrize("name", ["PrRoiPool", "DeformRoiPool"])
def test_opcheck_of_a_gradient_that_is_not_wanted(name: str, rng: np.random.Generator) -> None:
    call = make_call(rng, name)
    arguments = (*call.gradient_arguments[:-1], False)
    torch.library.opcheck(call.gradient_operator, arguments)


def test_opcheck_without_an_offset(rng: np.random.Generator) -> None:
    call = make_call(rng, "DeformRoiPool")
    dy, *_ = call.gradient_arguments
    call.tensors[-1] = None
    torch.library.opcheck(call.operator, call.arguments)
    torch.library.opcheck(call.gradient_operator, (dy, *call.arguments, True))


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("name", list(OPERATORS))
def test_compiled_forward_and_backward(name: str, dynamic: bool, rng: np.random.Generator) -> None:
    torch._dynamo.reset()
    module = Wrapped(make_call(rng, name))
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for num_rois, width in ((3, 7), (5, 9)):
        call = make_call(rng, name, num_rois=num_rois, width=width)
        variables = [tensor.requires_grad_() for tensor in call.variables()]
        expected, got = module(*call.tensors), compiled(*call.tensors)
        assert torch.equal(got, expected)
        gradients = torch.autograd.grad(got.square().sum(), variables)
        others = torch.autograd.grad(expected.square().sum(), variables)
        for gradient, other in zip(gradients, others, strict=True):
            assert torch.equal(gradient, other)


@pytest.mark.parametrize("name", list(OPERATORS))
def test_exported_program_has_one_node_and_any_size(name: str, rng: np.random.Generator) -> None:
    call = make_call(rng, name)
    module = Wrapped(call)
    number, width = torch.export.Dim("num_rois"), torch.export.Dim("width", min=2)
    sizes: dict[str, Any] = {
        "X": [{3: 2 * width}, {3: width}] if OPERATORS[name].variadic else {3: width},
        "rois": {0: number},
        "batch_indices": {0: number},
        "offset": {0: number},
    }
    small = make_call(rng, name, width=8)
    shapes = tuple(sizes[input_name] for input_name in OPERATORS[name].inputs)
    program = torch.export.export(module, tuple(small.tensors), dynamic_shapes={"tensors": shapes})
    nodes = [node for node in program.graph.nodes if node.target == call.operator]
    assert len(nodes) == 1
    assert list(nodes[0].args[len(small.tensors) :]) == call.attributes
    other = make_call(rng, name, width=12, num_rois=6)
    assert torch.equal(program.module()(*other.tensors), module(*other.tensors))


class Detector(torch.nn.Module):
    """Every function and module of the package, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.modules_of_boxes = torch.nn.ModuleList(
            [
                ops.RoIAlign(2, 0.25, 2),
                ops.RoIAlign((2, 2), 0.25, -1, True, "max"),
                ops.RoIPool(2, 0.25),
                ops.PSRoIAlign(2, 0.25, -1),
                ops.PSRoIPool(2, 0.25),
            ]
        )
        self.modules_of_rows = torch.nn.ModuleList(
            [ops.PrRoIPool(2, 0.25), ops.DeformRoIPool(2, 0.25)]
        )
        self.rotated = ops.RoIAlignRotated(2, 0.25)

    def forward(self, x: torch.Tensor, *boxes: torch.Tensor) -> list[torch.Tensor]:
        rows = torch.cat([functional.pad(b, (1, 0), value=n) for n, b in enumerate(boxes)])
        return [
            *(module(x, list(boxes)) for module in self.modules_of_boxes),
            *(module(x, rows) for module in self.modules_of_rows),
            self.rotated(x, functional.pad(rows, (0, 1), value=0.5)),
            ops.multiscale_roi_align([x, x[..., ::2, ::2]], list(boxes), 2, [0.25, 0.125]),
        ]


def _detector_inputs(rng: np.random.Generator, counts: tuple[int, int]) -> list[torch.Tensor]:
    first = [rng.uniform(0, 20, (count, 2)) for count in counts]
    boxes = [np.concatenate([f, f + rng.uniform(4, 20, f.shape)], axis=1) for f in first]
    return [torch.tensor(rng.standard_normal((2, 4, 10, 10))), *map(torch.tensor, boxes)]


def test_functions_and_modules_compile_and_export(rng: np.random.Generator) -> None:
    torch._dynamo.reset()
    module = Detector()
    inputs = _detector_inputs(rng, (3, 4))
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    counts = tuple({0: torch.export.Dim.DYNAMIC} for _ in inputs[1:])
    program = torch.export.export(
        module, tuple(inputs), dynamic_shapes={"x": None, "boxes": counts}
    )
    other_inputs = _detector_inputs(rng, (2, 6))
    for run in (compiled, program.module()):
        for given in (inputs, other_inputs):
            for got, expected in zip(run(*given), module(*given), strict=True):
                assert torch.equal(got, expected)


@pytest.mark.parametrize("name", list(OPERATORS))
def test_meta_tensors_have_the_shapes_of_real_ones(name: str, rng: np.random.Generator) -> None:
    call = make_call(rng, name)
    to_meta = torch.utils._pytree.tree_map_only(
        torch.Tensor, lambda tensor: tensor.to("meta"), [call.arguments, call.gradient_arguments]
    )
    got = [call.operator(*to_meta[0]), call.gradient_operator(*to_meta[1])]
    expected = [
        call.operator(*call.arguments),
        call.gradient_operator(*call.gradient_arguments),
    ]
    for fake, real in zip(
        torch.utils._pytree.tree_leaves(got), torch.utils._pytree.tree_leaves(expected), strict=True
    ):
        assert fake.device.type == "meta"
        assert (fake.shape, fake.dtype, fake.stride()) == (real.shape, real.dtype, real.stride())
