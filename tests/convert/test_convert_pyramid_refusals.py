"""A graph that is nearly a pyramid is left alone, with the reason, and computes what it did.

Its RoiAligns are converted each by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tolerances
from hand_made import attributes, own_nodes, run
from onnx import helper, numpy_helper
from test_convert_pyramid import feeds_of

from ort_roialign.convert import convert_with_report

Change = Callable[[onnx.GraphProto], None]


@pytest.fixture
def pooler(pooler_file: Callable[..., Path]) -> onnx.ModelProto:
    """A MultiScaleRoIAlign of two maps, from the TorchScript exporter."""
    return onnx.load(pooler_file("torchvision", "torchscript", 2, True))


def nodes_of(graph: onnx.GraphProto, op_type: str) -> list[onnx.NodeProto]:
    return [node for node in graph.node if node.op_type == op_type]


def maker(graph: onnx.GraphProto, name: str) -> onnx.NodeProto:
    return next(node for node in graph.node if name in node.output)


def set_input(graph: onnx.GraphProto, node: onnx.NodeProto, place: int, value: Any) -> None:
    """Give a node a constant of its own for an input, of the type that it had."""
    old = numpy_helper.to_array(maker(graph, node.input[place]).attribute[0].t)
    name = f"changed_{node.name}_{place}"
    tensor = numpy_helper.from_array(np.asarray(value, old.dtype), name)
    graph.initializer.append(tensor)
    node.input[place] = name


def changes(op_type: str, number: int, place: int, value: Any) -> Change:
    """Return a change of one constant: of the node `number` of its kind."""

    def change(graph: onnx.GraphProto) -> None:
        set_input(graph, nodes_of(graph, op_type)[number], place, value)

    return change


def area_of_other_columns(graph: onnx.GraphProto) -> None:
    first = next(node for node in nodes_of(graph, "Sub") if node.input[0].startswith("/pool/G"))
    set_input(graph, maker(graph, first.input[0]), 1, 3)


def boxes_of_other_columns(graph: onnx.GraphProto) -> None:
    set_input(graph, maker(graph, nodes_of(graph, "RoiAlign")[1].input[1]), 1, [2, 1, 3, 4])


def images_of_another_column(graph: onnx.GraphProto) -> None:
    cast = maker(graph, nodes_of(graph, "RoiAlign")[0].input[2])
    squeeze = maker(graph, cast.input[0])
    gather = maker(graph, squeeze.input[0])
    gather.input[0] = maker(graph, nodes_of(graph, "RoiAlign")[1].input[1]).input[0]


def epsilon_before_the_level(graph: onnx.GraphProto) -> None:
    first, second = [node for node in nodes_of(graph, "Add") if "pool" in node.name]
    first.input[1], second.input[1] = second.input[1], first.input[1]


def merged_into_ones(graph: onnx.GraphProto) -> None:
    zeros = maker(graph, nodes_of(graph, "ScatterElements")[0].input[0])
    zeros.attribute[0].t.CopyFrom(numpy_helper.from_array(np.ones(1, np.float32)))


def pooled_otherwise(graph: onnx.GraphProto) -> None:
    for each in nodes_of(graph, "RoiAlign")[1].attribute:
        if each.name == "sampling_ratio":
            each.i = 1


def added_when_scattered(graph: onnx.GraphProto) -> None:
    scatter = nodes_of(graph, "ScatterElements")[1]
    scatter.attribute.append(helper.make_attribute("reduction", "add"))


def result_is_an_output(graph: onnx.GraphProto) -> None:
    name = nodes_of(graph, "RoiAlign")[0].output[0]
    graph.output.append(helper.make_tensor_value_info(name, 1, [None] * 4))


CASES: dict[str, tuple[Change, str]] = {
    "no logarithm to base 2": (changes("Div", 1, 1, 0.7), "logarithm to base 2"),
    "half a level": (changes("Add", 0, 1, 4.5), "must add a whole number to the logarithm"),
    "epsilon before the level": (epsilon_before_the_level, "must add a whole number to the log"),
    "no boxes on the first map": (changes("Clip", 0, 1, 3), "must begin at the first map's, 2"),
    "boxes above the last map": (changes("Clip", 0, 2, 4), "at or before the last map's, 3"),
    "another first level": (changes("Sub", -1, 1, 1), "must begin at the first map's, 1"),
    "a level twice": (changes("Equal", 1, 1, 0), "maps must have levels 0, 1"),
    "area of other columns": (area_of_other_columns, "random boxes are pooled otherwise"),
    "boxes of other columns": (boxes_of_other_columns, "random boxes are pooled otherwise"),
    "images of other boxes": (images_of_another_column, "from the same rows of one tensor"),
    "merged into ones": (merged_into_ones, "merged into zeros"),
    "pooled otherwise": (pooled_otherwise, "all maps must be pooled alike"),
    "added when scattered": (added_when_scattered, "must replace rows, not combine them"),
    "a result is an output": (result_is_an_output, "used outside the pooling too"),
}


def same_levels(feeds: dict[str, Any]) -> dict[str, Any]:
    """Return the feeds with as many boxes on either map, so that all changed graphs run."""
    rng = np.random.default_rng(9)
    for name in ("boxes0", "boxes1"):
        corners = rng.uniform(0, 20, (8, 2))
        sides = np.where(np.arange(8) < 4, 50.0, 150.0)[:, None] * rng.uniform(0.9, 1.1, (8, 2))
        feeds[name] = np.concatenate([corners, corners + sides], axis=1).astype(np.float32)
    return feeds


@pytest.mark.parametrize("case", list(CASES))
def test_a_changed_graph_is_left_alone(pooler, rng, case):
    change, reason = CASES[case]
    change(pooler.graph)
    converted, report = convert_with_report(pooler)
    (left,) = report.left
    assert left.operator == "pyramid of 2 maps"
    assert reason in left.reason
    assert [node.op_type for node in own_nodes(converted)] == ["RoiAlign", "RoiAlign"]
    assert len(converted.graph.node) == len(pooler.graph.node)
    if case in ("images of other boxes",):
        return  # images and boxes are of different numbers: the graph cannot run
    feeds = same_levels(feeds_of(pooler, rng, 2))
    for actual, expected in zip(run(converted, feeds), run(pooler, feeds), strict=True):
        np.testing.assert_allclose(actual, expected, *tolerances.KERNEL["float32"])


def test_scatters_that_are_crossed_are_left_alone(pooler, rng):
    first, second = nodes_of(pooler.graph, "ScatterElements")
    first.input[1], second.input[1] = second.input[1], first.input[1]
    converted, report = convert_with_report(pooler)
    assert len(report.left) == 1
    feeds = same_levels(feeds_of(pooler, rng, 2))
    expected = run(pooler, feeds)[0]
    np.testing.assert_allclose(run(converted, feeds)[0], expected, *tolerances.KERNEL["float32"])


def test_another_canonical_scale_is_another_rule(pooler, rng):
    changes("Div", 0, 1, 200)(pooler.graph)
    converted, report = convert_with_report(pooler)
    assert report.left == []
    (node,) = own_nodes(converted)
    assert attributes(node)["canonical_scale"] == 200
    feeds = feeds_of(pooler, rng, 2)
    expected = run(pooler, feeds)[0]
    np.testing.assert_allclose(run(converted, feeds)[0], expected, *tolerances.KERNEL["float32"])


def test_constants_in_a_file_that_is_not_there(pooler_file, tmp_path):
    path = pooler_file("torchvision_one_image", "dynamo", 2, False)
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = str(tmp_path.name + ".missing")
    _, report = convert_with_report(model)
    (left,) = report.left
    assert "is in a file that is not there" in left.reason
    assert "convert_file" in left.reason


def test_results_that_are_merged_otherwise_are_told_of(pooler):
    for number, node in enumerate(nodes_of(pooler.graph, "RoiAlign")):
        (scatter,) = [each for each in pooler.graph.node if node.output[0] in each.input]
        place = list(pooler.graph.node).index(node) + 1
        made = helper.make_node("Relu", [node.output[0]], [f"above_zero{number}"])
        pooler.graph.node.insert(place, made)
        scatter.input[:] = [made.output[0] if i == node.output[0] else i for i in scatter.input]
    _, report = convert_with_report(pooler)
    (left,) = report.left
    assert left.operator == "pyramid of 2 maps"
    assert "merged in no known way" in left.reason


def test_initializers_that_are_inputs_are_told_of(pooler):
    for node in list(pooler.graph.node):
        if node.op_type == "Constant":
            tensor = node.attribute[0].t
            pooler.graph.node.remove(node)
            tensor.name = node.output[0]
            pooler.graph.initializer.append(tensor)
            given = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            pooler.graph.input.append(given)
    _, report = convert_with_report(pooler)
    assert report.left
    (warning,) = report.warnings
    assert "initializers that are inputs of the graph" in warning
