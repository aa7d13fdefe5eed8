"""Pyramids of every exporter and framework become one node, and pool what they pooled."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tolerances

import ort_roialign
from ort_roialign.convert import convert_with_report

Array = np.ndarray[Any, Any]
KINDS = ("torchvision", "detectron2", "mmdet", "mmdet_masked", "mmdeploy")
STEPS = {"Gather", "Cast", "Constant", "Concat", "MultiScaleRoiAlign"}
# How images' numbers are put in front of boxes; it stays.
IMAGE_STEPS = {"Slice", "Shape", "ConstantOfShape", "Expand", "Identity", "Unsqueeze", "Squeeze"}


def run(model: onnx.ModelProto, feeds: dict[str, Array]) -> Array:
    session = ort_roialign.InferenceSession(model, ["CPUExecutionProvider"])
    (pooled,) = session.run(None, feeds)
    return pooled


def feeds_of(model: onnx.ModelProto, rng: np.random.Generator, images: int) -> dict[str, Array]:
    """Draw boxes of all levels, as many as the model allows, and maps."""
    feeds = {}
    for each in model.graph.input:
        sizes = [size.dim_value for size in each.type.tensor_type.shape.dim]
        if len(sizes) == 4:
            sizes = [size or free for size, free in zip(sizes, (images, 5, 48, 64), strict=True)]
            feeds[each.name] = rng.standard_normal(sizes).astype(np.float32)
            continue
        rows = sizes[0] or 40
        sides = np.exp(rng.uniform(np.log(2), np.log(1200), (rows, 1)))
        stretch = np.exp(rng.uniform(-1, 1, (rows, 1)))
        corners = rng.uniform(-10, 110, (rows, 2))
        extents = np.concatenate([sides * stretch, sides / stretch], axis=1)
        boxes = np.concatenate([corners, corners + extents], axis=1)
        if sizes[1] == 5:
            boxes = np.concatenate([rng.integers(0, images, (rows, 1)), boxes], axis=1)
        feeds[each.name] = boxes.astype(np.float32)
    return feeds


def attributes_of(model: onnx.ModelProto) -> dict[str, Any]:
    (node,) = [node for node in model.graph.node if node.op_type == "MultiScaleRoiAlign"]
    return {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}


def assert_one_node(path: Path, rng: np.random.Generator, num_maps: int) -> onnx.ModelProto:
    """Convert, and compare with onnxruntime's own kernels in the original."""
    original = onnx.load(path)
    converted, report = convert_with_report(original)
    onnx.checker.check_model(converted)
    assert report.left == []
    (replacement,) = report.replaced
    assert replacement.operator == "MultiScaleRoiAlign"
    assert replacement.replaced == f"pyramid of {num_maps} maps"
    assert len(replacement.sources) == num_maps
    assert report.nodes_after < report.nodes_before
    (node,) = [node for node in converted.graph.node if node.domain == "ort_roialign"]
    assert len(node.input) == 2 + num_maps
    # Nothing of the level choice and the merge is left.
    assert {node.op_type for node in converted.graph.node} <= STEPS | IMAGE_STEPS
    assert [each.name for each in converted.graph.output] == ["y"]
    assert converted.graph.input == original.graph.input
    feeds = feeds_of(original, rng, images=2)
    expected = run(original, feeds)
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(run(converted, feeds), expected, *tolerances.KERNEL["float32"])
    return converted


def assert_rule(model: onnx.ModelProto, **expected: Any) -> None:
    attributes = attributes_of(model)
    for name, value in expected.items():
        actual = attributes[name]
        if isinstance(value, float):
            assert actual == np.float32(value), name
        elif isinstance(value, list):
            np.testing.assert_array_equal(np.float32(actual), np.float32(value), err_msg=name)
        else:
            assert actual == value, name


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
@pytest.mark.parametrize(
    ("kind", "num_maps", "free"),
    [
        ("torchvision", 2, True),
        ("torchvision", 4, True),
        ("torchvision", 3, False),
        ("torchvision_one_image", 5, True),
        ("torchvision_one_image", 2, False),
    ],
)
def test_torchvision(
    pooler_file: Callable[..., Path],
    rng: np.random.Generator,
    exporter: str,
    kind: str,
    num_maps: int,
    free: bool,
):
    model = assert_one_node(pooler_file(kind, exporter, num_maps, free), rng, num_maps)
    assert_rule(
        model,
        spatial_scales=[0.25 / 2**number for number in range(num_maps)],
        canonical_scale=224.0,
        canonical_level=4,
        min_level=2,
        max_level=1 + num_maps,
        log_epsilon=0.0,
        level_epsilon=1e-6,
        coordinate_transformation_mode=b"output_half_pixel",
        sampling_ratio=2,
        output_height=3,
        output_width=3,
    )


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
@pytest.mark.parametrize("num_maps", [2, 4])
def test_detectron2(
    pooler_file: Callable[..., Path], rng: np.random.Generator, exporter: str, num_maps: int
):
    model = assert_one_node(pooler_file("detectron2", exporter, num_maps), rng, num_maps)
    assert_rule(
        model,
        canonical_scale=224.0,
        canonical_level=4,
        min_level=2,
        max_level=1 + num_maps,
        # The dynamo exporter's optimiser takes an addition of 1e-8 for one of nothing.
        log_epsilon=1e-8 if exporter == "torchscript" else 0.0,
        level_epsilon=0.0,
        coordinate_transformation_mode=b"half_pixel",
        sampling_ratio=0,
    )


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
@pytest.mark.parametrize("kind", ["mmdet", "mmdet_masked", "mmdeploy"])
def test_mmdet(
    pooler_file: Callable[..., Path], rng: np.random.Generator, exporter: str, kind: str
):
    model = assert_one_node(pooler_file(kind, exporter, 4), rng, 4)
    assert_rule(
        model,
        canonical_scale=56.0,
        canonical_level=0,
        min_level=0,
        max_level=3,
        log_epsilon=1e-6,
        level_epsilon=0.0,
        coordinate_transformation_mode=b"half_pixel",
        output_height=7,
    )


@pytest.mark.parametrize(
    ("kind", "exporter", "options"),
    [
        ("detectron2_repeat", "torchscript", {}),
        ("detectron2_repeat", "dynamo", {}),
        *((kind, "torchscript", {"free_maps": True}) for kind in KINDS),
        *((kind, "torchscript", {"folded": False}) for kind in KINDS[:3]),
    ],
)
def test_other_ways_to_export(pooler_file, rng, kind, exporter, options):
    original = onnx.load(pooler_file(kind, exporter, 2, **options))
    converted, report = convert_with_report(original)
    assert report.left == []
    assert report.counts == {("pyramid of 2 maps", "MultiScaleRoiAlign"): 1}
    assert_same_pooling(original, converted, feeds_of(original, rng, images=2))


def assert_same_pooling(
    original: onnx.ModelProto, converted: onnx.ModelProto, feeds: dict[str, Array]
) -> None:
    expected = run(original, feeds)
    np.testing.assert_allclose(run(converted, feeds), expected, *tolerances.KERNEL["float32"])


def test_in_a_function(pooler_file: Callable[..., Path], rng: np.random.Generator):
    pooler = onnx.load(pooler_file("torchvision", "torchscript", 2, True))
    feeds = feeds_of(pooler, rng, images=2)
    names = [each.name for each in pooler.graph.input]
    function = onnx.helper.make_function(
        "mine", "Pool", names, ["y"], pooler.graph.node, pooler.opset_import
    )
    original = onnx.ModelProto()
    original.CopyFrom(pooler)
    original.functions.append(function)
    original.opset_import.append(onnx.helper.make_opsetid("mine", 1))
    del original.graph.node[:]
    original.graph.node.append(onnx.helper.make_node("Pool", names, ["y"], domain="mine"))
    converted, report = convert_with_report(original)
    assert report.counts == {("pyramid of 2 maps", "MultiScaleRoiAlign"): 1}
    assert report.left == []
    assert not [node for node in converted.functions[0].node if node.op_type == "RoiAlign"]
    assert_same_pooling(original, converted, feeds)


def test_in_a_branch_that_reads_values_from_outside(
    pooler_file: Callable[..., Path], rng: np.random.Generator
):
    pooler = onnx.load(pooler_file("torchvision", "torchscript", 2, True))
    feeds = feeds_of(pooler, rng, images=2)
    result = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [None] * 4)
    nodes = list(pooler.graph.node)
    # Boxes with their images come from outside, as do maps.
    outside = nodes[: [node.op_type for node in nodes].index("Sub")]
    branch = onnx.helper.make_graph(nodes[len(outside) :], "then", [], [result])
    other = onnx.helper.make_node("Relu", ["x0"], ["y"])
    branches = {
        "then_branch": branch,
        "else_branch": onnx.helper.make_graph([other], "else", [], [result]),
    }
    condition = onnx.helper.make_tensor_value_info("condition", onnx.TensorProto.BOOL, [])
    original = onnx.ModelProto()
    original.CopyFrom(pooler)
    del original.graph.node[:]
    original.graph.node.extend(outside)
    original.graph.node.append(onnx.helper.make_node("If", ["condition"], ["y"], **branches))
    original.graph.input.append(condition)
    converted, report = convert_with_report(original)
    assert report.counts == {("pyramid of 2 maps", "MultiScaleRoiAlign"): 1}
    assert_same_pooling(original, converted, {**feeds, "condition": np.array(True)})


def test_mmcvs_operator_in_mmdets_pyramid(
    pooler_file: Callable[..., Path], rng: np.random.Generator
):
    expected = onnx.load(pooler_file("mmdet", "torchscript", 4, True))
    original = onnx.ModelProto()
    original.CopyFrom(expected)
    original.opset_import.append(onnx.helper.make_opsetid("mmcv", 1))
    makers = {name: node for node in original.graph.node for name in node.output}
    for node in list(original.graph.node):
        if node.op_type != "RoiAlign":
            continue
        node.op_type, node.domain = "MMCVRoiAlign", "mmcv"
        columns, cast = (makers[name] for name in node.input[1:])
        squeeze = makers[cast.input[0]]
        for cutting in (columns, cast, squeeze, makers[squeeze.input[0]]):
            original.graph.node.remove(cutting)
        node.input[:] = [node.input[0], columns.input[0]]
        kept = [each for each in node.attribute if "transformation" not in each.name]
        del node.attribute[:]
        node.attribute.extend([*kept, onnx.helper.make_attribute("aligned", 1)])
    converted, report = convert_with_report(original)
    assert report.counts == {("pyramid of 4 maps", "MultiScaleRoiAlign"): 1}
    assert not [node for node in converted.graph.node if node.domain == "mmcv"]
    assert_same_pooling(expected, converted, feeds_of(expected, rng, images=2))


def test_functions_to_run_without_the_plugin_are_missed(pooler_file: Callable[..., Path]):
    original = onnx.load(pooler_file("torchvision", "torchscript", 2, True))
    for node in original.graph.node:
        node.domain = "ort_roialign" if node.op_type == "RoiAlign" else node.domain
    original.opset_import.append(onnx.helper.make_opsetid("ort_roialign", 1))
    body = onnx.helper.make_node("RoiAlign", ["X", "rois", "batch_indices"], ["Y"])
    function = onnx.helper.make_function(
        "ort_roialign",
        "RoiAlign",
        ["X", "rois", "batch_indices"],
        ["Y"],
        [body],
        [onnx.helper.make_opsetid("", 20)],
    )
    original.functions.append(function)
    converted, report = convert_with_report(original)
    assert attributes_of(converted)["max_level"] == 3
    assert "none for MultiScaleRoiAlign" in report.warnings[0]
    # What is in the function is what runs without the plugin.
    assert converted.functions[0].node[0].domain == ""


def test_levels_clipped_on_one_side_at_a_time(
    pooler_file: Callable[..., Path], rng: np.random.Generator
):
    original = onnx.load(pooler_file("mmdet", "torchscript", 2, True))
    place, clip = next(
        (n, node) for n, node in enumerate(original.graph.node) if node.op_type == "Clip"
    )
    value, lowest, highest = clip.input
    first = onnx.helper.make_node("Clip", [value, lowest], ["not_below"])
    original.graph.node.insert(place, first)
    clip.input[:] = ["not_below", "", highest]
    converted, report = convert_with_report(original)
    assert report.left == []
    assert report.counts == {("pyramid of 2 maps", "MultiScaleRoiAlign"): 1}
    assert_same_pooling(original, converted, feeds_of(original, rng, images=2))
