"""Graphs that look like mmdeploy's pooler, which puts boxes in front and cuts their results off."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hand_made import own_nodes
from onnx import TensorProto, helper, numpy_helper
from test_convert_deceptions import Change, add_constant
from test_convert_pyramid_refusals import maker, nodes_of

from ort_roialign.convert import convert_with_report


def cut_of(graph: onnx.GraphProto) -> onnx.NodeProto:
    """Return the Slice that cuts the results of mmdeploy's boxes in front off."""
    return maker(graph, "y")


def slices(place: int, value: int) -> Change:
    """Return a change of a constant of the cut: 1 for its start, 2 for its end, 4 for its step."""

    def change(graph: onnx.GraphProto) -> None:
        cut_of(graph).input[place] = add_constant(graph, "bound", np.array([value]))

    return change


def no_cut(graph: onnx.GraphProto) -> None:
    cut = cut_of(graph)
    graph.node.remove(cut)
    maker(graph, cut.input[0]).output[0] = "y"


def another_level_in_front(graph: onnx.GraphProto) -> None:
    """Levels have one row more in front than boxes."""
    joined = {maker(graph, node.input[0]).name for node in nodes_of(graph, "Equal")}
    assert len(joined) == 1
    (levels,) = [node for node in graph.node if node.name in joined]
    assert levels.op_type == "Concat"
    levels.input.insert(0, add_constant(graph, "another", np.array([0])))


def results_for_others(graph: onnx.GraphProto) -> None:
    result = helper.make_tensor_value_info(cut_of(graph).input[0], TensorProto.FLOAT, [None] * 4)
    graph.output.append(result)


def ones_behind(graph: onnx.GraphProto) -> None:
    joined = maker(graph, nodes_of(graph, "ScatterND")[0].input[0])
    assert joined.op_type == "Concat"
    filled = maker(graph, joined.input[-1])
    assert filled.op_type == "ConstantOfShape"
    del filled.attribute[:]
    ones = numpy_helper.from_array(np.ones(1, np.float32))
    filled.attribute.append(helper.make_attribute("value", ones))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (slices(1, 5), "must be cut off by a Slice"),
        (slices(1, 3), "must be cut off by a Slice"),
        (slices(2, 1000), "must be cut off by a Slice"),
        (slices(2, -1), "must be cut off by a Slice"),
        (slices(4, 2), "must be cut off by a Slice"),
        (no_cut, "must be cut off by a Slice"),
        (results_for_others, "used outside the pooling too"),
        (another_level_in_front, "the level rule must round down by Floor"),
        (ones_behind, "must be merged into zeros"),
    ],
)
def test_mmdeploys_boxes_in_front(pooler_file, change, reason):
    model = onnx.load(pooler_file("mmdeploy", "torchscript", 2, True))
    change(model.graph)
    converted, report = convert_with_report(model)
    (left,) = report.left
    assert reason in left.reason
    assert [node.op_type for node in own_nodes(converted)] == ["RoiAlign", "RoiAlign"]
