"""The evaluation: what is right, wrong, missing or too much changes the number that it should."""

from __future__ import annotations

import dataclasses
import functools
import io
import sys

import composites
import evaluation
import numpy as np
import onnx
import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

SEED, COUNT = 4, 12


@functools.cache
def truths():
    made = (composites.make_composite(SEED, "test", number) for number in range(COUNT))
    return {composite.image.tobytes(): composite for composite in made}


def truth(pixels):
    composite = truths()[pixels.tobytes()]
    return {
        "boxes": composite.boxes.copy(),
        "labels": composite.digits + 1,
        "scores": np.full(len(composite.digits), 0.9, np.float32),
        "masks": composite.masks[:, None].astype(np.float32),
    }


def scores_of(detect):
    return evaluation.evaluate(detect, seed=SEED, count=COUNT)


def test_the_truth_is_perfect():
    scores = scores_of(truth)
    perfect = dict.fromkeys(evaluation.SIZES, 1.0)
    assert scores.box_map == scores.mask_map == scores.box_ap50 == perfect
    assert (scores.recall, scores.precision) == (1, 1)


def test_wrong_labels_are_wrong():
    def detect(pixels):
        found = truth(pixels)
        return found | {"labels": found["labels"] % 10 + 1}

    scores = scores_of(detect)
    assert scores.box_map["all"] < 0.05
    assert scores.recall < 0.1
    assert scores.precision < 0.1


def test_boxes_a_little_off_count_at_half_an_overlap_only():
    def detect(pixels):
        found = truth(pixels)
        sides = found["boxes"][:, 2:] - found["boxes"][:, :2]
        found["boxes"][:, [0, 2]] += sides[:, :1] * 0.2  # an IoU of 2/3
        return found

    scores = scores_of(detect)
    assert scores.box_ap50["all"] == 1
    assert scores.box_map["all"] == 0.4  # of IoU 0.5, 0.55, 0.6, 0.65
    assert scores.mask_map["all"] == 1
    assert (scores.recall, scores.precision) == (1, 1)


@pytest.mark.parametrize(("size", "below", "above"), [("small", 0, 16), ("large", 32, 1e9)])
def test_digits_of_one_size_that_are_missed_count_in_that_size(size, below, above):
    def detect(pixels):
        found = truth(pixels)
        root = np.sqrt((found["boxes"][:, 2:] - found["boxes"][:, :2]).prod(axis=1))
        keep = ~((root >= below) & (root < above))
        return {name: values[keep] for name, values in found.items()}

    scores = scores_of(detect)
    assert scores.box_map[size] == scores.mask_map[size] == 0
    others = {"small", "medium", "large"} - {size}
    assert all(scores.box_map[other] == 1 for other in others)
    assert scores.precision == 1


def test_recall_leaves_digits_below_16_pixels_out_and_low_scores_count_for_nothing():
    def detect(pixels):
        found = truth(pixels)
        heights = found["boxes"][:, 3] - found["boxes"][:, 1]
        return {name: values[heights >= 16] for name, values in found.items()}

    def unsure(pixels):
        found = detect(pixels)
        return found | {"scores": found["scores"] - 0.5}

    assert scores_of(detect).recall == 1
    assert scores_of(detect).box_map["all"] < 1
    assert (scores_of(unsure).recall, scores_of(unsure).precision) == (0, 0)


def test_detections_of_nothing_lower_the_precision():
    def detect(pixels):
        found = truth(pixels)
        return {name: np.concatenate([values, values[:1]]) for name, values in found.items()}

    digits = sum(len(each.digits) for each in truths().values())
    twice = sum(len(each.digits) > 0 for each in truths().values())
    assert scores_of(detect).precision == pytest.approx(digits / (digits + twice), abs=1e-4)
    assert scores_of(detect).recall == 1


def test_sizes_that_are_not_there_have_no_score(monkeypatch):
    images = [each for each in truths().values() if len(each.digits)]
    height = [each.boxes[:, 3] - each.boxes[:, 1] for each in images]
    keep = [h < 14 for h in height]
    small = [
        dataclasses.replace(each, boxes=each.boxes[k], digits=each.digits[k], masks=each.masks[k])
        for each, k in zip(images, keep, strict=True)
    ]
    assert sum(len(each.digits) for each in small) > 0
    monkeypatch.setattr(evaluation, "make_composite", lambda seed, split, number: small[number])
    monkeypatch.setattr(
        sys.modules[__name__], "truths", lambda: {e.image.tobytes(): e for e in small}
    )
    scores = evaluation.evaluate(truth, seed=SEED, count=len(small))
    expected = {"all": 1.0, "small": 1.0, "medium": None, "large": None}
    assert scores.box_map == scores.mask_map == expected
    assert (scores.recall, scores.precision) == (None, 1)
    text = io.StringIO()
    evaluation.print_scores(scores, Console(file=text, width=200))
    assert "none" in text.getvalue()


def test_models_that_are_no_detector_are_refused(tmp_path):
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    value = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy"]
    graph = onnx.helper.make_graph([node], "plain", value[:1], value[1:])
    opset = [onnx.helper.make_opsetid("", 18)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=9), tmp_path / "p.onnx")
    app = typer.Typer()
    app.command()(evaluation.main)
    result = CliRunner().invoke(app, [str(tmp_path / "p.onnx"), "--count", "1"])
    assert result.exit_code == 1
    assert "must have outputs boxes, labels, scores, masks; got y" in result.stderr
    result = CliRunner().invoke(app, [__file__, "--count", "1"])
    assert result.exit_code == 1
    assert f"onnxruntime failed on {__file__}" in result.stderr
