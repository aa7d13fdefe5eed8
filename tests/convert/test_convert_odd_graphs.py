"""Graphs that no exporter writes: each is left with a reason, and none stops or delays the rest."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hand_made import own_nodes, roi_align_model
from onnx import TensorProto, helper, numpy_helper
from test_convert_deceptions import BOXES, INDEX, ROWS, add_constant, insert_after, insert_nodes
from test_convert_pyramid_refusals import maker, nodes_of

from ort_roialign.convert import convert_with_report
from ort_roialign.errors import InvalidArgumentError

Change = Callable[[onnx.GraphProto], None]
# More than Python calls within each other.
_DEEP = 1500


@pytest.fixture
def pooler(pooler_file: Callable[..., Path]) -> onnx.ModelProto:
    """A MultiScaleRoIAlign of two maps, from the TorchScript exporter."""
    return onnx.load(pooler_file("torchvision", "torchscript", 2, True))


def levels_that_are_words(graph: onnx.GraphProto) -> None:
    graph.input.append(helper.make_tensor_value_info("words", TensorProto.STRING, ["rows"]))
    equals = [node for node in nodes_of(graph, "Equal") if node.input[0] == "/pool/Cast_1_output_0"]
    for node, word in zip(equals, (b"cat", b"dog"), strict=True):
        node.input[:] = ["words", add_constant(graph, f"{word!r}", np.array([word], object))]


def without_inputs(op_type: str, kept: int) -> Change:
    def change(graph: onnx.GraphProto) -> None:
        for node in nodes_of(graph, op_type):
            del node.input[kept:]

    return change


def slice_without_start(graph: onnx.GraphProto) -> None:
    end = add_constant(graph, "end", np.array([1000]))
    insert_nodes(graph, BOXES, helper.make_node("Slice", [BOXES, "", end], ["sliced"]))


def slice_of_other_lengths(graph: onnx.GraphProto) -> None:
    insert_after(graph, INDEX, "Slice", np.array([0, 0]), np.array([1000]))


def a_constant_of_nothing(graph: onnx.GraphProto) -> None:
    maker(graph, nodes_of(graph, "Div")[0].input[1]).attribute.pop()


def gather_by_words(graph: onnx.GraphProto) -> None:
    insert_after(graph, ROWS, "Gather", np.array([0]), axis="x")


def deep(value: str) -> Change:
    def change(graph: onnx.GraphProto) -> None:
        names = [value, *(f"same{number}" for number in range(_DEEP))]
        pairs = itertools.pairwise(names)
        insert_nodes(graph, value, *(helper.make_node("Identity", [a], [b]) for a, b in pairs))

    return change


def products_of_themselves(value: str) -> Change:
    def change(graph: onnx.GraphProto) -> None:
        names = [value, *(f"square{number}" for number in range(60))]
        pairs = itertools.pairwise(names)
        insert_nodes(graph, value, *(helper.make_node("Mul", [a, a], [b]) for a, b in pairs))

    return change


ZEROS = "/pool/ConstantOfShape_2_output_0"
UNREADABLE = "it cannot be read: "
# What becomes of each, and how the reason begins.
CHANGES: dict[str, tuple[Change, str]] = {
    "levels that are words": (levels_that_are_words, f"{UNREADABLE}ValueError: could not convert"),
    "Slice without start": (slice_without_start, f"{UNREADABLE}IndexError: list index"),
    "Slice of other lengths": (slice_of_other_lengths, f"{UNREADABLE}ValueError: zip()"),
    "Gather by words": (gather_by_words, "the nodes up to /pool/ScatterElements_1 do not run"),
    "a Constant of nothing": (a_constant_of_nothing, f"{UNREADABLE}ValueError: Constant node"),
    "deep boxes": (deep("boxes0"), f"{UNREADABLE}RecursionError"),
    "deep zeros": (deep(ZEROS), f"{UNREADABLE}RecursionError"),
    "squared zeros": (products_of_themselves(ZEROS), "square1, ai.onnx::Mul, may change"),
    "squared results": (
        products_of_themselves("/pool/Cast_3_output_0"),
        "square0, ai.onnx::Mul, may change",
    ),
    **{
        f"{op_type} of {kept} inputs": (without_inputs(op_type, kept), reason)
        for op_type, kept, reason in (
            ("Equal", 0, f"{UNREADABLE}ValueError: not enough values"),
            ("Equal", 1, f"{UNREADABLE}ValueError: not enough values"),
            ("Div", 0, f"{UNREADABLE}IndexError: tuple index"),
            ("Div", 1, f"{UNREADABLE}IndexError: tuple index"),
            ("Log", 0, f"{UNREADABLE}IndexError: tuple index"),
            ("Mul", 0, "it depends on boxes1, which is none of its inputs"),
            ("Mul", 1, "/pool/Mul_1 makes areas of more than two sides of a box"),
            ("Sub", 0, f"{UNREADABLE}IndexError: tuple index"),
            ("Sub", 1, f"{UNREADABLE}IndexError: tuple index"),
            ("NonZero", 0, f"{UNREADABLE}IndexError: tuple index"),
            ("Concat", 0, "boxes must be those that the levels follow from"),
        )
    },
}


@pytest.mark.parametrize("case", list(CHANGES))
def test_an_odd_pyramid_is_left(pooler, case):
    change, reason = CHANGES[case]
    change(pooler.graph)
    converted, report = convert_with_report(pooler)
    assert report.left[0].reason.startswith(reason)
    assert [node.op_type for node in own_nodes(converted)] == ["RoiAlign", "RoiAlign"]


def levels_of_themselves(graph: onnx.GraphProto) -> None:
    cast = maker(graph, "/pool/Cast_1_output_0")
    cast.op_type, cast.input[:] = "Identity", ["same"]
    del cast.attribute[:]
    graph.node.append(helper.make_node("Identity", ["/pool/Cast_1_output_0"], ["same"]))


def results_of_themselves(graph: onnx.GraphProto) -> None:
    first, last = nodes_of(graph, "ScatterElements")
    first.input[0] = last.output[0]


def a_loop_of_its_own_result(graph: onnx.GraphProto) -> None:
    """What the body of an If reads is made of the If's result."""
    inner = helper.make_graph(
        [helper.make_node("Identity", ["new_x0"], ["inner"])],
        "inner",
        [],
        [helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)],
    )
    add_constant(graph, "always", np.array(True))
    graph.node.insert(
        0,
        helper.make_node("If", ["always"], ["new_x0"], then_branch=inner, else_branch=inner),
    )


@pytest.mark.parametrize(
    "change", [levels_of_themselves, results_of_themselves, a_loop_of_its_own_result]
)
def test_a_cycle_is_refused(pooler, change):
    change(pooler.graph)
    with pytest.raises(InvalidArgumentError, match="model must have no cycle of nodes; got one"):
        convert_with_report(pooler)


@pytest.mark.parametrize("name", ["mode", "output_height", "spatial_scale", "a_name_of_its_own"])
@pytest.mark.parametrize("kind", ["strings", "tensor", "bytes"])
def test_an_odd_attribute_leaves_its_node(name, kind):
    model = roi_align_model(16)
    (node,) = model.graph.node
    kept = [each for each in node.attribute if each.name != name]
    del node.attribute[:]
    node.attribute.extend(kept)
    values: dict[str, Any] = {
        "strings": ["avg", "max"],
        "tensor": numpy_helper.from_array(np.ones(2, np.float32)),
        "bytes": b"\xff\xfe",
    }
    node.attribute.append(helper.make_attribute(name, values[kind]))
    given = onnx.ModelProto()
    given.CopyFrom(model)
    converted, report = convert_with_report(model)
    assert model == given
    if name == "a_name_of_its_own":
        assert [node.domain for node in converted.graph.node] == ["ort_roialign"]
    else:
        assert len(report.left) == 1
        assert converted == given


def test_a_node_without_outputs_is_told_of():
    model = roi_align_model(16)
    del model.graph.node[0].output[:]
    _, report = convert_with_report(model)
    assert len(report.left) == 1
