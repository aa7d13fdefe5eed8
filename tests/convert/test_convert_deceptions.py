"""Graphs that look like a pyramid, and differ where random boxes hardly show it."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tolerances
from hand_made import own_nodes, run
from numpy.testing import assert_allclose
from onnx import TensorProto, helper, numpy_helper
from test_convert_pyramid import feeds_of
from test_convert_pyramid_refusals import boxes_of_other_columns, changes, maker, nodes_of

import ort_roialign
from ort_roialign.convert import convert_with_report

Change = Callable[[onnx.GraphProto], None]


@pytest.fixture
def pooler(pooler_file: Callable[..., Path]) -> onnx.ModelProto:
    """A MultiScaleRoIAlign of two maps, from the TorchScript exporter."""
    return onnx.load(pooler_file("torchvision", "torchscript", 2, True))


def add_constant(graph: onnx.GraphProto, name: str, value: Any) -> str:
    graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return name


def insert_after(
    graph: onnx.GraphProto, value: str, op_type: str, *constants: Any, **attributes: Any
) -> None:
    """Put an operator on a value: all that read the value read the result."""
    names = [add_constant(graph, f"new_{n}_of_{value}", each) for n, each in enumerate(constants)]
    new = f"new_{value}"
    for node in graph.node:
        node.input[:] = [new if each == value else each for each in node.input]
    place = 1 + next((n for n, node in enumerate(graph.node) if value in node.output), -1)
    graph.node.insert(
        place,
        helper.make_node(op_type, [value, *names], [new], f"{op_type}_of_{value}", **attributes),
    )


def inserts(value: str, op_type: str, *constants: Any, **attributes: Any) -> Change:
    return lambda graph: insert_after(graph, value, op_type, *constants, **attributes)


def zeros_of_a_fixed_number_of_rows(graph: onnx.GraphProto) -> None:
    sizes = maker(graph, nodes_of(graph, "ScatterElements")[0].input[0]).input[0]
    maker(graph, sizes).input[0] = add_constant(graph, "rows", np.array([100]))


def insert_nodes(graph: onnx.GraphProto, value: str, *nodes: onnx.NodeProto) -> None:
    """Put nodes on a value: all that read the value read the last one's result."""
    place = 1 + next((n for n, node in enumerate(graph.node) if value in node.output), -1)
    for node in graph.node:
        node.input[:] = [nodes[-1].output[0] if each == value else each for each in node.input]
    for number, node in enumerate(nodes):
        graph.node.insert(place + number, node)


def cast(graph: onnx.GraphProto, value: str, *types: int) -> None:
    names = [value, *(f"{value}_as_{each}" for each in types)]
    made = [
        helper.make_node("Cast", [old], [new], to=each)
        for (old, new), each in zip(itertools.pairwise(names), types, strict=True)
    ]
    insert_nodes(graph, value, *made)


def images_as_truths(graph: onnx.GraphProto) -> None:
    """Image 2 becomes image 1."""
    for value in IMAGES:
        cast(graph, value, TensorProto.BOOL, TensorProto.INT64)


def less_than_zero_boxes(graph: onnx.GraphProto) -> None:
    """Take 50 from coordinates that are 0."""
    add_constant(graph, "zero", np.float32(0))
    add_constant(graph, "minus", np.float32(-50))
    insert_nodes(
        graph,
        BOXES,
        helper.make_node("Equal", [BOXES, "zero"], ["is_zero"]),
        helper.make_node("Cast", ["is_zero"], ["mask"], to=1),
        helper.make_node("Mul", ["mask", "minus"], ["less"]),
        helper.make_node("Add", [BOXES, "less"], ["lessened"]),
    )


def exchanges_coordinates(old: float, new: float) -> Change:
    """Return a change by which coordinates that are equal to `old` become `new`."""

    def change(graph: onnx.GraphProto) -> None:
        add_constant(graph, "old", np.float32(old))
        value = numpy_helper.from_array(np.array([new], np.float32))
        insert_nodes(
            graph,
            BOXES,
            helper.make_node("Equal", [BOXES, "old"], ["is_old"]),
            helper.make_node("Shape", [BOXES], ["shape"]),
            helper.make_node("ConstantOfShape", ["shape"], ["new"], value=value),
            helper.make_node("Where", ["is_old", "new", BOXES], ["exchanged"]),
        )

    return change


def more_zeros_for_many_boxes(graph: onnx.GraphProto) -> None:
    add_constant(graph, "many", np.array(500))
    insert_nodes(
        graph,
        ROWS,
        helper.make_node("Div", [ROWS, "many"], ["more"]),
        helper.make_node("Add", [ROWS, "more"], ["rows"]),
    )


def boxes_by_the_height_of_a_map(graph: onnx.GraphProto) -> None:
    add_constant(graph, "axis", np.array(2))
    add_constant(graph, "side", np.float32(16))
    insert_nodes(
        graph,
        BOXES,
        helper.make_node("Shape", ["x0"], ["shape"]),
        helper.make_node("Gather", ["shape", "axis"], ["height"]),
        helper.make_node("Cast", ["height"], ["as_float"], to=1),
        helper.make_node("Div", ["as_float", "side"], ["factor"]),
        helper.make_node("Mul", [BOXES, "factor"], ["larger"]),
    )


def areas_as_integers(graph: onnx.GraphProto) -> None:
    cast(graph, "/pool/Concat_3_output_0", TensorProto.INT32, TensorProto.FLOAT)


def short_levels(graph: onnx.GraphProto) -> None:
    """Levels below 0 are large numbers."""
    (clip,) = nodes_of(graph, "Clip")
    clip.input[1:] = [add_constant(graph, f"limit{n}", np.uint8(n)) for n in (2, 3)]
    cast(graph, clip.input[0], TensorProto.UINT8)


def whole_levels(graph: onnx.GraphProto) -> None:
    """The level of a box without area wraps around when the first level is taken from it."""
    (clip,) = nodes_of(graph, "Clip")
    floor = clip.input[0]
    clip.input[1:] = [add_constant(graph, f"limit{n}", np.array(n)) for n in (0, 1)]
    first = add_constant(graph, "first", np.array(2))
    last = maker(graph, "/pool/Sub_4_output_0")
    last.op_type, last.input[:] = "Identity", last.input[:1]
    insert_nodes(
        graph,
        floor,
        helper.make_node("Cast", [floor], ["whole"], to=TensorProto.INT64),
        helper.make_node("Sub", ["whole", first], ["from_first"]),
    )


def images_by_a_table(graph: onnx.GraphProto) -> None:
    for number, value in enumerate(IMAGES):
        table = add_constant(graph, f"table{number}", np.array([0, 1, 2, 5]))
        insert_nodes(graph, value, helper.make_node("Gather", [table, value], [f"image{number}"]))


def rows_beyond_the_first_1000(graph: onnx.GraphProto) -> None:
    """Zeros have a row more for each box beyond the first 1000."""
    levels = "/pool/Cast_1_output_0"
    bounds = (np.array([1000]), np.array([2**62]), np.array([0]))
    names = [add_constant(graph, f"bound{n}", each) for n, each in enumerate(bounds)]
    shape = maker(graph, maker(graph, ROWS).input[0])
    assert list(shape.input) == [levels]
    insert_nodes(
        graph,
        levels,
        helper.make_node("Slice", [levels, *names], ["rest"]),
        helper.make_node("Concat", [levels, "rest"], ["more"], axis=0),
        helper.make_node("Identity", [levels], ["levels"]),
    )
    shape.input[0] = "more"


def less_area_far_from_the_origin(graph: onnx.GraphProto) -> None:
    """Take 1e-7 times the fourth power of where a box begins: it is nothing near the origin."""
    area = "/pool/Mul_output_0"
    sides = [maker(graph, name).input[1] for name in maker(graph, area).input]
    add_constant(graph, "small", np.float32(1e-7))
    insert_nodes(
        graph,
        area,
        helper.make_node("Mul", sides, ["corner"]),
        helper.make_node("Mul", ["corner", "corner"], ["power"]),
        helper.make_node("Mul", ["power", "small"], ["little"]),
        helper.make_node("Sub", [area, "little"], ["less"]),
    )


def largest_of_the_first_box(graph: onnx.GraphProto) -> None:
    rows = add_constant(graph, "first_row", np.zeros((1, 4), np.int64))
    least = add_constant(graph, "least", np.full((1, 4), -1000, np.float32))
    made = helper.make_node(
        "ScatterElements", [BOXES, rows, least], ["largest"], axis=0, reduction="max"
    )
    insert_nodes(graph, BOXES, made)


def rows_without_a_0(graph: onnx.GraphProto) -> None:
    """Leave boxes out that begin at 0."""
    for name, number in (("left", 0), ("column", 1)):
        add_constant(graph, name, np.array(number))
    insert_nodes(
        graph,
        INDEX,
        helper.make_node("Gather", [BOXES, INDEX], ["of_level"]),
        helper.make_node("Gather", ["of_level", "left"], ["lefts"], axis=1),
        helper.make_node("NonZero", ["lefts"], ["not_0"]),
        helper.make_node("Transpose", ["not_0"], ["not_0_rows"], perm=[1, 0]),
        helper.make_node("Squeeze", ["not_0_rows", "column_axis"], ["rows"]),
        helper.make_node("Gather", [INDEX, "rows"], ["index"]),
    )
    add_constant(graph, "column_axis", np.array([1]))


def rows_by_a_table(graph: onnx.GraphProto) -> None:
    """The results of rows after the first 1000 go elsewhere."""
    numbers = np.arange(5000)
    numbers[1000:] = 7
    table = add_constant(graph, "table", numbers)
    insert_nodes(graph, INDEX, helper.make_node("Gather", [table, INDEX], ["index"]))
    for node in graph.node:  # the boxes stay those of the level
        if node.op_type == "Gather" and list(node.input[1:]) == ["index"]:
            node.input[1] = INDEX


ROWS = "/pool/Gather_14_output_0"  # of the zeros
IMAGES = ("/pool/Cast_2_output_0", "/pool/Cast_4_output_0")  # of each map's boxes
BOXES = "/pool/Concat_output_0"  # of all images, without their images' numbers
ROOT = "/pool/Div_output_0"  # sqrt(area) / 224
SIDE = "/pool/Sub_output_0"  # of the first image's boxes
INDEX = "/pool/Squeeze_output_0"  # of the first map's boxes
SLICE = (np.array([0]), np.array([1000]), np.array([0]))
LAST = (np.array([-1000]), np.array([2**62]), np.array([0]))
CHANGES: dict[str, tuple[Change, str]] = {
    "zeros of 100 rows": (zeros_of_a_fixed_number_of_rows, "as many rows as there are boxes"),
    "zeros of 5000 rows and more": (inserts(ROWS, "Max", np.array(5000)), "may change the values"),
    "zeros of 5000 rows at most": (inserts(ROWS, "Min", np.array(5000)), "may change the values"),
    "clipped boxes": (inserts(BOXES, "Clip", np.float32(-1e5), np.float32(1e5)), "may change"),
    "positive boxes": (inserts(BOXES, "Relu"), "may change the values"),
    "the first 1000 of a level": (inserts(INDEX, "Slice", *SLICE), "may change the values"),
    "the last 1000 of a level": (inserts(INDEX, "Slice", *LAST), "may change the values"),
    "images as truths": (images_as_truths, "may change the values"),
    "images by a table": (images_by_a_table, "from the same rows of one tensor"),
    "boxes compared with 0": (less_than_zero_boxes, "may change the values"),
    "other boxes for 0": (exchanges_coordinates(0, -50), "may change the values"),
    # As sizes of -1 become 1 where they broadcast.
    "boxes of 1 for -1": (exchanges_coordinates(-1, 1), "may change the values"),
    "more zeros for many boxes": (more_zeros_for_many_boxes, "may change the values"),
    "zeros for rows beyond 1000": (rows_beyond_the_first_1000, "may change the values"),
    "less area far away": (less_area_far_from_the_origin, "more than two sides of a box"),
    "a limit of the first box": (largest_of_the_first_box, "may change the values"),
    "no boxes that begin at 0": (rows_without_a_0, "may change the values"),
    "rows by a table": (rows_by_a_table, "may change the values"),
    "boxes times 1": (inserts(BOXES, "Mul", np.float32(1)), "may change the values"),
    "boxes times the map's height": (boxes_by_the_height_of_a_map, "may change the values"),
    # As maskrcnn-benchmark's.
    "sides of a pixel more": (inserts(SIDE, "Add", np.float32(1)), "got new_"),
    "areas as integers": (areas_as_integers, "must be made of columns of boxes"),
    "levels of 8 bits": (short_levels, "must clip levels before their type changes"),
    "levels as integers": (whole_levels, "must clip levels before their type changes"),
    "less in the logarithm": (inserts(ROOT, "Add", np.float32(-1e-6)), "add 0 or more"),
    "not a number in the logarithm": (inserts(ROOT, "Add", np.float32("nan")), "add 0 or more"),
    "an endless canonical scale": (changes("Div", 0, 1, np.inf), "a finite number above 0"),
    "a negative canonical scale": (changes("Div", 0, 1, -224), "a finite number above 0"),
    "an endless limit": (changes("Clip", 0, 2, np.inf), "must be whole constants; got inf"),
    "a limit that is no number": (
        changes("Clip", 0, 1, np.nan),
        "must be whole constants; got nan",
    ),
}


@pytest.mark.parametrize("case", list(CHANGES))
def test_a_pyramid_that_no_run_shows_is_left(pooler, case):
    change, reason = CHANGES[case]
    change(pooler.graph)
    given = copy.deepcopy(pooler)
    converted, report = convert_with_report(pooler)
    assert pooler == given
    (left,) = report.left
    assert reason in left.reason
    assert [node.op_type for node in own_nodes(converted)] == ["RoiAlign", "RoiAlign"]
    assert list(converted.graph.input) == list(given.graph.input)


@pytest.mark.parametrize("changed", [False, True])
def test_few_fixed_rows_are_proven_in_several_runs(pooler, rng, changed):
    for name, given in zip(("boxes0", "boxes1"), pooler.graph.input, strict=False):
        assert given.name == name
        given.type.tensor_type.shape.dim[0].dim_value = 1
    if changed:
        boxes_of_other_columns(pooler.graph)
    converted, report = convert_with_report(pooler)
    assert len(report.left) == changed
    assert len(own_nodes(converted)) == 1 + changed
    feeds = {**feeds_of(pooler, rng, 2)}
    feeds |= {name: feeds[name][:1] for name in ("boxes0", "boxes1")}
    # Both on the first map: TorchScript's file cannot run with none there.
    feeds["boxes0"][:] = feeds["boxes1"][:] = [3, 4, 30, 50]
    expected = run(pooler, feeds)[0]
    assert_allclose(run(converted, feeds)[0], expected, *tolerances.KERNEL["float32"])


def test_constant_images_tell_the_number_of_rows(pooler, rng):
    joined = maker(pooler.graph, maker(pooler.graph, "/pool/Gather_8_output_0").input[0])
    numbers = rng.integers(0, 2, (30, 1)).astype(np.float32)
    joined.input[0] = add_constant(pooler.graph, "images", numbers)
    converted, report = convert_with_report(pooler)
    assert report.left == []
    feeds = feeds_of(pooler, rng, 2)
    feeds |= {name: feeds[name][:15] for name in ("boxes0", "boxes1")}
    assert len(feeds["boxes0"]) == len(feeds["boxes1"]) == 15
    expected = run(pooler, feeds)[0]
    assert_allclose(run(converted, feeds)[0], expected, *tolerances.KERNEL["float32"])


def test_maps_of_half_precision_are_left_with_their_types(pooler):
    """Levels follow from float32 boxes, pooling from rounded ones: that is not one node."""
    half = TensorProto.FLOAT16
    for given in pooler.graph.input:
        if given.name.startswith("x"):
            given.type.tensor_type.elem_type = half
    for number in (10, 13):  # the boxes that go into the RoiAligns
        cast(pooler.graph, f"/pool/Gather_{number}_output_0", half)
    converted, report = convert_with_report(pooler)
    assert "Cast to FLOAT16 where float32 is converted, may" in report.left[0].reason
    assert list(converted.graph.input) == list(pooler.graph.input)
    ort_roialign.InferenceSession(converted, ["CPUExecutionProvider"])


def test_comparisons_that_a_simplifier_took_away(pooler, rng):
    """No size is -1, so some write False in place of the Equal before each Where."""
    for number, node in enumerate(nodes_of(pooler.graph, "Where")):
        equal = maker(pooler.graph, node.input[0])
        pooler.graph.node.remove(maker(pooler.graph, equal.input[1]))
        pooler.graph.node.remove(equal)
        node.input[0] = add_constant(pooler.graph, f"never{number}", np.zeros(4, bool))
    converted, report = convert_with_report(pooler)
    assert report.left == []
    feeds = feeds_of(pooler, rng, 2)
    expected = run(pooler, feeds)[0]
    assert_allclose(run(converted, feeds)[0], expected, *tolerances.KERNEL["float32"])


def test_a_choice_of_boxes_that_others_use_stays_for_them(pooler, rng):
    pooler.graph.node.append(helper.make_node("Relu", ["/pool/Gather_10_output_0"], ["extra"]))
    pooler.graph.output.append(helper.make_tensor_value_info("extra", 1, [None] * 2))
    converted, report = convert_with_report(pooler)
    assert report.left == []
    assert [node.op_type for node in own_nodes(converted)] == ["MultiScaleRoiAlign"]
    feeds = feeds_of(pooler, rng, 2)
    for actual, expected in zip(run(converted, feeds), run(pooler, feeds), strict=True):
        assert_allclose(actual, expected, *tolerances.KERNEL["float32"])


def test_new_values_have_names_of_their_own(pooler, rng):
    names = ("rois", "batch_indices", "image_numbers", "image_column", "box_columns")
    for name in names:
        node = helper.make_node("Neg", ["x0"], [f"y/{name}"], name=f"y/{name}")
        pooler.graph.node.insert(0, node)
    pooler.graph.output.append(helper.make_tensor_value_info("y/rois", 1, [None] * 4))
    converted, report = convert_with_report(pooler)
    assert report.left == []
    onnx.checker.check_model(converted)
    made = [name for node in converted.graph.node for name in node.output]
    assert len(set(made)) == len(made)
    nodes = [node.name for node in converted.graph.node]
    assert len(set(nodes)) == len(nodes)
    feeds = feeds_of(pooler, rng, 2)
    for actual, expected in zip(run(converted, feeds), run(pooler, feeds), strict=True):
        assert_allclose(actual, expected, *tolerances.KERNEL["float32"])
