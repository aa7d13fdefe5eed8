"""What is traced is checked as what is run: types, attributes and sizes, without fixing a size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from calls import Call, make_call
from torch._subclasses.fake_tensor import FakeTensorMode

import ort_roialign.torch as ops
from ort_roialign._signatures import OPERATORS
from ort_roialign.errors import InvalidArgumentError


def _with_input(name: str, change: Callable[[Any], Any]) -> Callable[[Call], None]:
    def spoil(call: Call) -> None:
        number = OPERATORS[call.name].inputs.index(name)
        call.tensors[number] = change(call.tensors[number])

    return spoil


def _with_attribute(name: str, value: Any) -> Callable[[Call], None]:
    def spoil(call: Call) -> None:
        call.attributes[list(OPERATORS[call.name].attributes).index(name)] = value

    return spoil


WRONG = [
    ("RoiAlign", _with_input("X", torch.Tensor.float), "rois must be of type float32, as X"),
    ("RoiAlign", _with_input("X", torch.Tensor.int), "X must be of type float32, .*; got int32"),
    ("RoiAlign", _with_input("X", lambda x: x[0]), "X must have shape"),
    ("RoiAlign", _with_input("rois", lambda rois: rois[:, 1:]), "rois must have shape"),
    (
        "RoiAlign",
        _with_input("batch_indices", torch.Tensor.int),
        "batch_indices must be of type in",
    ),
    ("RoiAlign", _with_input("batch_indices", lambda n: n[1:]), "batch_indices must have shape"),
    ("RoiAlign", _with_attribute("mode", "mean"), 'mode must be "avg" or "max"; got "mean"'),
    ("RoiAlign", _with_attribute("spatial_scale", -1.0), "spatial_scale must be"),
    ("RoiAlign", _with_attribute("output_width", 0), "output_width must be at least 1; got 0"),
    ("PsRoiAlign", _with_input("X", lambda x: x[:, 1:]), "X must have"),
    ("DeformRoiPool", _with_input("offset", lambda o: o[..., 1:]), "offset must have shape"),
    ("MultiScaleRoiAlign", _with_input("X", lambda x: x[:1]), "X must be as many maps"),
    ("MultiScaleRoiAlign", _with_input("X", lambda x: [x[0], x[1][1:]]), "must have"),
    (
        "MultiScaleRoiAlign",
        _with_input("X", lambda x: [x[0], torch.cat([x[1], x[1]], 1)]),
        "must have",
    ),
]


@pytest.mark.parametrize(("name", "spoil", "text"), WRONG)
def test_wrong_calls_are_refused_without_memory(
    name: str, spoil: Callable[[Call], None], text: str, rng: np.random.Generator
) -> None:
    call = make_call(rng, name)
    dy, *_ = call.gradient_arguments
    spoil(call)
    with pytest.raises(InvalidArgumentError, match=text) as eager:
        call.operator(*call.arguments)
    with FakeTensorMode() as mode:
        tensors = torch.utils._pytree.tree_map_only(torch.Tensor, mode.from_tensor, call.tensors)
        arguments = (*tensors, *call.attributes)
        with pytest.raises(InvalidArgumentError) as fake:
            call.operator(*arguments)
        assert str(fake.value) == str(eager.value)
        with pytest.raises(InvalidArgumentError):
            call.gradient_operator(mode.from_tensor(dy), *arguments, *call.all_wanted)


def test_tensors_of_two_devices_are_refused_without_memory(rng: np.random.Generator) -> None:
    call = make_call(rng, "RoiAlign")
    call.tensors[0] = call.tensors[0].to("meta")
    with pytest.raises(InvalidArgumentError, match="rois must be on meta, as X; got cpu"):
        call.operator(*call.arguments)


def test_an_export_of_a_wrong_call_fails(rng: np.random.Generator) -> None:
    class Pool(torch.nn.Module):
        def forward(self, x: torch.Tensor, rois: torch.Tensor) -> torch.Tensor:
            return ops.roi_align(x, rois, 2, mode="mean")

    with pytest.raises(InvalidArgumentError, match='mode must be "avg" or "max"; got "mean"'):
        torch.export.export(Pool(), (torch.rand(1, 1, 8, 8), torch.rand(3, 5)))


class Chosen(torch.nn.Module):
    """Pools the boxes above a threshold: their number is known when the module runs."""

    def __init__(self, call: Call) -> None:
        super().__init__()
        self.call = call

    def forward(self, scores: torch.Tensor, *tensors: Any) -> torch.Tensor:
        kept = torch.where(scores > 0.5)[0]
        named = zip(OPERATORS[self.call.name].inputs, tensors, strict=True)
        # Two symbols for one number, where another selection finds as many boxes.
        others = torch.nonzero(scores > 0.5)[:, 0]
        chosen = [
            each if name == "X" else each[others] if name == "batch_indices" else each[kept]
            for name, each in named
        ]
        result: torch.Tensor = self.call.operator(*chosen, *self.call.attributes)
        return result


@pytest.mark.parametrize("name", list(OPERATORS))
def test_a_number_of_boxes_that_depends_on_data(name: str, rng: np.random.Generator) -> None:
    call = make_call(rng, name, num_rois=6)
    module = Chosen(call)
    scores = torch.tensor([0.9, 0.1, 0.8, 0.7, 0.2, 0.3])
    program = torch.export.export(module, (scores, *call.tensors))
    for given in (scores, 1 - scores, 0 * scores):
        assert torch.equal(program.module()(given, *call.tensors), module(given, *call.tensors))


def test_sizes_of_maps_that_depend_on_data(rng: np.random.Generator) -> None:
    class Cut(torch.nn.Module):
        def forward(self, x: torch.Tensor, keep: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
            x = x[:, torch.where(keep)[0].repeat_interleave(4)]
            return ops.ps_roi_align(x, [boxes], 2)

    keep = torch.tensor([True, False, True])
    arguments = (torch.rand(1, 12, 8, 8), keep, torch.tensor([[1.0, 1, 6, 6]]))
    program = torch.export.export(Cut(), arguments)
    assert torch.equal(program.module()(*arguments), Cut()(*arguments))


@pytest.mark.parametrize("name", list(OPERATORS))
def test_the_checks_fix_no_size(name: str, rng: np.random.Generator) -> None:
    torch._dynamo.reset()
    call = make_call(rng, name)
    graphs = []

    def counting(graph: torch.fx.GraphModule, _: list[Any]) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(
        lambda *tensors: call.operator(*tensors, *call.attributes), backend=counting, dynamic=True
    )
    # None of a call's sizes equals another: PyTorch takes equal ones for one symbol.
    for images, num_rois, height, width in ((10, 11, 16, 18), (3, 14, 9, 7), (12, 17, 30, 40)):
        other = make_call(rng, name, images=images, num_rois=num_rois, height=height, width=width)
        assert torch.equal(compiled(*other.tensors), other.operator(*other.arguments))
    assert len(graphs) == 1
