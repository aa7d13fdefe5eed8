"""The detector in the package finds digits that it has never seen, and equals PyTorch's."""

from __future__ import annotations

from pathlib import Path

import export_detector
import numpy as np
import pytest
import torch
from composites import CLASS_NAMES, make_composite
from detector import SCORE_THRESHOLD, build_detector
from evaluation import LEAST_IOU, detect_with_session, evaluate
from PIL import Image
from torchvision.ops import box_iou
from train_detector import detect_with

import ort_roialign
from ort_roialign.cli import demo
from ort_roialign.cli.demo import LEAST_SCORE
from ort_roialign.cli.parity import compare_outputs

WEIGHTS = Path(export_detector.__file__).parent / "weights.pt"


@pytest.fixture(scope="module")
def detect():
    return detect_with_session(ort_roialign.InferenceSession(str(demo.MODEL)))


def test_the_files_are_what_the_program_writes():
    assert demo.CLASSES.read_text().split() == ["background", *CLASS_NAMES]
    assert demo.MODEL.stat().st_size < 5_000_000
    with Image.open(demo.IMAGE) as image:
        np.testing.assert_array_equal(np.asarray(image), export_detector.shipped_composite().image)


def test_every_digit_of_the_shipped_picture_is_found(detect):
    truth = export_detector.shipped_composite()
    found = detect(truth.image)
    sure = found["scores"] >= LEAST_SCORE
    for box, digit in zip(truth.boxes, truth.digits, strict=True):
        if box[3] - box[1] < 16:
            continue
        overlaps = box_iou(torch.from_numpy(box)[None], torch.from_numpy(found["boxes"][sure]))[0]
        assert overlaps.max() >= LEAST_IOU
        assert (found["labels"][sure] - 1)[overlaps.argmax()] == digit


@pytest.mark.parametrize("seed", [20, 21])
def test_digits_of_new_composites_are_found(detect, seed):
    scores = evaluate(detect, seed=seed, count=60)
    assert scores.recall >= 0.9
    assert scores.precision >= 0.9


def test_the_file_gives_the_detections_of_pytorch(detect):
    detector = build_detector()
    detector.load_state_dict(torch.load(WEIGHTS, weights_only=True))
    eager = detect_with(detector.eval())
    found = 0
    for number in range(10):
        image = make_composite(30, "test", number).image
        image = image[: 240 - 7 * number, : 320 - 11 * number]  # of any size
        comparison = compare_outputs(
            eager(image), detect(image), max_detections=50, score_threshold=SCORE_THRESHOLD
        )
        assert comparison.passed, comparison.problems
        found += comparison.actual
    assert found > 50
