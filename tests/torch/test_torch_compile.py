"""The compiler and the exporter see the operators as they are: shapes, gradients, one node each."""

from __future__ import annotations

import os
import shutil
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from calls import VARIANTS, Call, make_call
from tolerances import GRADIENT, KERNEL
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


@pytest.mark.parametrize("wanted", [(True, False), (False, True)], ids=["maps", "others"])
@pytest.mark.parametrize("name", ["PrRoiPool", "DeformRoiPool"])
def test_opcheck_of_a_gradient_that_is_not_wanted(
    name: str, wanted: tuple[bool, bool], rng: np.random.Generator
) -> None:
    call = make_call(rng, name)
    arguments = (*call.gradient_arguments[:-2], *wanted)
    torch.library.opcheck(call.gradient_operator, arguments)


def test_opcheck_without_an_offset(rng: np.random.Generator) -> None:
    call = make_call(rng, "DeformRoiPool")
    dy, *_ = call.gradient_arguments
    call.tensors[-1] = None
    torch.library.opcheck(call.operator, call.arguments)
    torch.library.opcheck(call.gradient_operator, (dy, *call.arguments, *call.all_wanted))


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


def _what_inductor_lacks() -> str:
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        return f"a C++ compiler; {compiler} is missing"
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        return "Python.h, of Python's development package"
    return ""


def test_compiled_by_inductor(
    rng: np.random.Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if lacking := _what_inductor_lacks():
        pytest.skip(f"inductor needs {lacking}")
    torch._dynamo.reset()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    # One graph, because building takes seconds: a list of maps, and both second gradients.
    calls = [make_call(rng, name) for name in ("MultiScaleRoiAlign", "PrRoiPool", "DeformRoiPool")]
    modules = [Wrapped(call) for call in calls]

    def product(tensors: list[list[Any]]) -> torch.Tensor:
        first, second, third = (m(*each) for m, each in zip(modules, tensors, strict=True))
        result: torch.Tensor = first.sin() * second.exp() + third.square()
        return result

    # What many builds would be quicker with takes longer than the two of this graph.
    quickest = {"compile_threads": 1, "cpp_cache_precompile_headers": False}
    options = {name: quickest[name] for name in set(quickest) & set(torch._inductor.list_options())}
    compiled = torch.compile(product, fullgraph=True, options=options)
    tensors = [call.tensors for call in calls]
    variables = [variable.requires_grad_() for call in calls for variable in call.variables()]
    expected, got = product(tensors), compiled(tensors)
    assert list(tmp_path.rglob("*.cpp")), "inductor has built nothing"
    torch.testing.assert_close(got, expected, **KERNEL["float64"]._asdict())
    gradients = torch.autograd.grad(got.sum(), variables)
    others = torch.autograd.grad(expected.sum(), variables)
    for gradient, other in zip(gradients, others, strict=True):
        assert other.abs().max() > 0
        torch.testing.assert_close(gradient, other, **GRADIENT["float64"]._asdict())


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
        turned = functional.pad(rows, (0, 1), value=0.5)
        pyramid = [x, x[..., ::2, ::2]]
        return [
            *(module(x, list(boxes)) for module in self.modules_of_boxes),
            *(module(x, rows) for module in self.modules_of_rows),
            self.rotated(x, turned),
            ops.multiscale_roi_align(pyramid, list(boxes), 2, [0.25, 0.125]),
            ops.multiscale_roi_align_rotated(pyramid, turned, 2, [0.25, 0.125]),
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
