"""The evaluation: what is right, wrong, missing or too much changes the number that it should."""

from __future__ import annotations

import composites
import evaluation
import numpy as np
import pytest

SEED, COUNT = 4, 12
TRUTHS = {
    composite.image.tobytes(): composite
    for composite in (composites.make_composite(SEED, "test", n) for n in range(COUNT))
}


def truth(pixels):
    composite = TRUTHS[pixels.tobytes()]
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

    digits = sum(len(each.digits) for each in TRUTHS.values())
    twice = sum(len(each.digits) > 0 for each in TRUTHS.values())
    assert scores_of(detect).precision == pytest.approx(digits / (digits + twice), abs=1e-4)
    assert scores_of(detect).recall == 1
