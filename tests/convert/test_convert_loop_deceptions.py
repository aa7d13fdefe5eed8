"""Graphs that look like a loop over masks, and differ where random masks hardly show it."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hand_made import own_nodes
from onnx import helper, numpy_helper
from test_convert_deceptions import add_constant, insert_after
from test_convert_detectors import assert_same, loop_of, pads
from test_convert_pyramid_refusals import maker

from ort_roialign.convert import convert_with_report


@pytest.fixture
def mask_rcnn(detector_file: Callable[..., Path]) -> onnx.ModelProto:
    return onnx.load(detector_file("mask_rcnn", "torchscript"))


def the_first_500(model: onnx.ModelProto) -> None:
    add_constant(model.graph, "most", np.array(500))
    loop = loop_of(model)
    place = list(model.graph.node).index(loop)
    limited = helper.make_node("Min", [loop.input[0], "most"], ["trips"])
    loop.input[0] = "trips"
    model.graph.node.insert(place, limited)


def a_fixed_number(model: onnx.ModelProto) -> None:
    loop_of(model).input[0] = add_constant(model.graph, "trips", np.array(9))


def until_told(model: onnx.ModelProto) -> None:
    body = loop_of(model).attribute[0].g
    add_constant(model.graph, "last", np.array(500))
    body.node.append(helper.make_node("Less", [body.input[0].name, "last"], ["go_on"]))
    body.output[0].name = "go_on"


def _body(model: onnx.ModelProto) -> onnx.GraphProto:
    body: onnx.GraphProto = loop_of(model).attribute[0].g
    return body


def an_edge_of_2000_at_most(model: onnx.ModelProto) -> None:
    body = _body(model)
    least = next(node for node in body.node if node.op_type == "ReduceMin")
    maker(body, least.input[0]).input.append(add_constant(model.graph, "most", np.array([2000])))


def limit_of(model: onnx.ModelProto, limit: str, *nodes: onnx.NodeProto) -> None:
    """Put nodes into the loop, and clamp an edge by what the last one gives."""
    body = _body(model)
    for number, node in enumerate(nodes):
        body.node.insert(number, node)
    least = next(node for node in body.node if node.op_type == "ReduceMin")
    maker(body, least.input[0]).input.append(limit)


def an_edge_of_filled_2000(model: onnx.ModelProto) -> None:
    add_constant(model.graph, "one", [1])
    most = numpy_helper.from_array(np.array([2000]))
    limit_of(model, "most", helper.make_node("ConstantOfShape", ["one"], ["most"], value=most))


def an_edge_of_2048_by_doubling(model: onnx.ModelProto) -> None:
    names = [add_constant(model.graph, "eight", [8]), *(f"most{n}" for n in range(8))]
    steps = itertools.pairwise(names)
    limit_of(model, names[-1], *(helper.make_node("Add", [a, a], [b]) for a, b in steps))


def choose_masks_by(model: onnx.ModelProto, *nodes: onnx.NodeProto) -> None:
    body = _body(model)
    for node in body.node:
        if node.op_type == "Gather" and node.input[1] == body.input[0].name:
            node.input[1] = nodes[-1].output[0]
    for number, node in enumerate(nodes):
        body.node.insert(number, node)


def the_last_mask_again(model: onnx.ModelProto) -> None:
    add_constant(model.graph, "last", np.array([399]))
    number = _body(model).input[0].name
    choose_masks_by(
        model,
        helper.make_node("Reshape", [number, add_constant(model.graph, "one", [1])], ["vector"]),
        helper.make_node("Concat", ["vector", "last"], ["both"], axis=0),
        helper.make_node("ReduceMin", ["both"], ["chosen"], keepdims=0),
    )


def masks_in_turn(model: onnx.ModelProto) -> None:
    add_constant(model.graph, "masks_a_turn", np.array(400))
    number = _body(model).input[0].name
    choose_masks_by(
        model,
        helper.make_node("Div", [number, "masks_a_turn"], ["turn"]),
        helper.make_node("Mul", ["turn", "masks_a_turn"], ["first"]),
        helper.make_node("Sub", [number, "first"], ["chosen"]),
    )


def masks_by_the_height(model: onnx.ModelProto) -> None:
    """The image is at least as high as there are masks in most runs, and yet this is a limit."""
    body = _body(model)
    # The height, then the width, end what is filled with zeros below and beside a mask.
    height = next(n for n in body.node if n.op_type == "Sub" and n.input[0].endswith("output_0"))
    add_constant(model.graph, "one", [1])
    choose_masks_by(
        model,
        helper.make_node("Reshape", [body.input[0].name, "one"], ["vector"]),
        helper.make_node("Reshape", [height.input[0], "one"], ["side"]),
        helper.make_node("Concat", ["vector", "side"], ["both"], axis=0),
        helper.make_node("ReduceMin", ["both"], ["chosen"], keepdims=0),
    )


def positive_masks(model: onnx.ModelProto) -> None:
    insert_after(model.graph, pads(model)[-1].input[0], "Relu")


def clipped_boxes(model: onnx.ModelProto) -> None:
    insert_after(model.graph, "boxes", "Clip", np.float32(0), np.float32(5000))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (the_first_500, "must run once for each of them"),
        (a_fixed_number, "must run once for each of them"),
        (until_told, "must run once for each of them"),
        (an_edge_of_2000_at_most, "may change the values"),
        (an_edge_of_filled_2000, "may change the values"),
        (an_edge_of_2048_by_doubling, "may change the values"),
        (the_last_mask_again, "may change the values"),
        (masks_in_turn, "may change the values"),
        (masks_by_the_height, "may change the values"),
    ],
)
def test_a_loop_that_no_run_shows_is_left(mask_rcnn, change, reason):
    change(mask_rcnn)
    given = copy.deepcopy(mask_rcnn)
    converted, report = convert_with_report(mask_rcnn)
    assert mask_rcnn == given
    (left,) = report.left
    assert reason in left.reason
    assert loop_of(converted) == loop_of(given)


@pytest.mark.parametrize("change", [positive_masks, clipped_boxes])
def test_what_changes_masks_or_boxes_before_the_loop_stays(mask_rcnn, rng, change):
    change(mask_rcnn)
    converted, report = convert_with_report(mask_rcnn)
    assert report.left == []
    assert_same(mask_rcnn, converted, rng.random((3, 96, 128), dtype=np.float32))
    (kept,) = [node for node in converted.graph.node if "_of_" in node.name]
    (paste,) = [node for node in own_nodes(converted) if node.op_type == "PasteMasks"]
    assert kept.output[0] in paste.input
