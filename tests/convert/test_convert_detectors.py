"""Whole detectors of torchvision, as both exporters write them, before and after conversion."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import tolerances
from hand_made import attributes, own_nodes, run
from numpy.testing import assert_allclose, assert_array_equal
from onnx import numpy_helper

from ort_roialign.convert import convert_with_report

RESULTS = ("boxes", "labels", "scores", "masks")


def run_detector(model: onnx.ModelProto, image: np.ndarray) -> dict[str, np.ndarray]:
    names = [output.name for output in model.graph.output]
    return dict(zip(names, run(model, {"image": image}), strict=True))


def assert_same(original: onnx.ModelProto, converted: onnx.ModelProto, image: np.ndarray) -> None:
    """Compare row by row: everything but the pooling is the same, bit for bit."""
    expected, actual = run_detector(original, image), run_detector(converted, image)
    assert list(actual) == list(RESULTS[: len(actual)]) == list(expected)
    assert len(expected["boxes"]) > 5
    assert_array_equal(actual["labels"], expected["labels"])
    for name in ("boxes", "scores", "masks"):
        if name in expected:
            tolerance = tolerances.CONVERTED_DETECTOR
            assert_allclose(actual[name], expected[name], *tolerance, err_msg=name)


@pytest.mark.parametrize(
    ("name", "exporter"),
    [("mobilenet", "torchscript"), ("faster_rcnn", "torchscript"), ("faster_rcnn", "dynamo")],
)
def test_faster_rcnn(detector_file: Callable[..., Path], rng, name, exporter):
    original = onnx.load(detector_file(name, exporter))
    converted, report = convert_with_report(original)
    onnx.checker.check_model(converted)
    assert report.counts == {("pyramid of 2 maps", "MultiScaleRoiAlign"): 1}
    assert report.left == report.warnings == []
    (node,) = own_nodes(converted)
    # Two maps of a stride: the second one is never used, and the levels say so.
    levels = (5, 5) if name == "mobilenet" else (3, 4)
    assert (attributes(node)["min_level"], attributes(node)["max_level"]) == levels
    assert "RoiAlign" not in {node.op_type for node in converted.graph.node if not node.domain}
    assert_same(original, converted, rng.random((3, 96, 128), dtype=np.float32))


@pytest.fixture
def mask_rcnn(detector_file: Callable[..., Path]) -> onnx.ModelProto:
    return onnx.load(detector_file("mask_rcnn", "torchscript"))


def test_mask_rcnn(mask_rcnn, rng):
    converted, report = convert_with_report(mask_rcnn)
    onnx.checker.check_model(converted)
    assert report.counts == {
        ("pyramid of 2 maps", "MultiScaleRoiAlign"): 2,
        ("loop that pastes masks", "PasteMasks"): 1,
    }
    assert report.left == []
    assert not {"Loop", "RoiAlign"} & {n.op_type for n in converted.graph.node if not n.domain}
    # What framed the masks and stretched the boxes went with the loop; a Pad of the image stays.
    assert own_nodes(converted)[-1].input[1] == "boxes"
    assert [len(pads(model)) for model in (mask_rcnn, converted)] == [2, 1]
    for height, width in ((96, 128), (77, 150)):
        assert_same(mask_rcnn, converted, rng.random((3, height, width), dtype=np.float32))


def folded(path: Path, target: Path) -> onnx.ModelProto:
    """Return a model as onnxruntime's graph optimizations leave it: constants in other places."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
    return onnx.load(target)


def test_a_detector_that_was_optimized_before(detector_file, tmp_path, rng):
    original = folded(detector_file("mask_rcnn", "torchscript"), tmp_path / "folded.onnx")
    converted, report = convert_with_report(original)
    assert report.left == []
    names = [node.op_type for node in own_nodes(converted)]
    assert sorted(names) == ["MultiScaleRoiAlign", "MultiScaleRoiAlign", "PasteMasks"]
    assert_same(original, converted, rng.random((3, 77, 150), dtype=np.float32))


def test_an_image_of_one_size(detector_file, rng):
    original = onnx.load(detector_file("mask_rcnn", "torchscript", free=False))
    converted, report = convert_with_report(original)
    assert report.left == []
    assert [node.op_type for node in own_nodes(converted)][-1] == "PasteMasks"
    assert_same(original, converted, rng.random((3, 96, 128), dtype=np.float32))


def test_constants_that_are_not_folded(detector_file, rng):
    original = onnx.load(detector_file("mask_rcnn", "torchscript", folded=False))
    converted, report = convert_with_report(original)
    assert report.left == []
    names = [node.op_type for node in own_nodes(converted)]
    assert sorted(names) == ["MultiScaleRoiAlign", "MultiScaleRoiAlign", "PasteMasks"]
    assert_same(original, converted, rng.random((3, 77, 150), dtype=np.float32))


def test_a_loop_over_keypoints_is_nothing_to_convert(detector_file):
    _, report = convert_with_report(onnx.load(detector_file("keypoint_rcnn", "torchscript")))
    assert report.counts == {("pyramid of 2 maps", "MultiScaleRoiAlign"): 2}
    assert report.left == []


def pads(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type == "Pad"]


def loop_of(model: onnx.ModelProto) -> onnx.NodeProto:
    (loop,) = [node for node in model.graph.node if node.op_type == "Loop"]
    return loop


def masks_are_used_twice(model: onnx.ModelProto) -> None:
    pasted = loop_of(model).output[0]
    model.graph.output.append(onnx.helper.make_tensor_value_info(pasted, 1, [None] * 3))


def another_frame(model: onnx.ModelProto) -> None:
    """Frame masks with twos: their sizes stay, their edges do not."""
    pad = pads(model)[-1]
    two = numpy_helper.from_array(np.array(2, np.float32), "two")
    model.graph.initializer.append(two)
    pad.input[2] = "two"


def nearest_cells(model: onnx.ModelProto) -> None:
    for node in loop_of(model).attribute[0].g.node:
        for each in node.attribute:
            if node.op_type == "Resize" and each.name == "mode":
                each.s = b"nearest"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (masks_are_used_twice, "must go into an Unsqueeze and nowhere else"),
        (another_frame, "random masks differ from PasteMasks"),
        (nearest_cells, "random masks differ from PasteMasks"),
    ],
)
def test_a_loop_that_pastes_otherwise_is_left(mask_rcnn, rng, change, reason):
    change(mask_rcnn)
    converted, report = convert_with_report(mask_rcnn)
    (left,) = report.left
    assert left.operator == "loop that pastes masks"
    assert reason in left.reason
    assert loop_of(converted) == loop_of(mask_rcnn)
