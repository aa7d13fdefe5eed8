"""The composites: one for a seed, nothing in both splits, boxes and masks where digits are."""

from __future__ import annotations

import json

import composites
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from typer.testing import CliRunner

SEED, COUNT = 5, 30


@pytest.fixture(scope="module")
def every_one():
    return [
        composites.make_composite(SEED, split, number)
        for split in composites.SPLITS
        for number in range(COUNT)
    ]


def test_a_seed_a_split_and_a_number_make_one_composite():
    first = composites.make_composite(3, "train", 7)
    again = composites.make_composite(3, "train", 7)
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.masks, again.masks)
    for other in ((4, "train", 7), (3, "test", 7), (3, "train", 8)):
        assert (composites.make_composite(*other).image != first.image).any()


def test_no_digit_and_no_photograph_is_in_both_splits():
    (train, _), (test, _) = (composites._digits(split) for split in composites.SPLITS)
    assert len(train) + len(test) == 1797
    assert not {each.tobytes() for each in train} & {each.tobytes() for each in test}
    photographs = [composites._photographs(split) for split in composites.SPLITS]
    assert not {p.tobytes() for p in photographs[0]} & {p.tobytes() for p in photographs[1]}


@pytest.mark.parametrize("split", composites.SPLITS)
@pytest.mark.parametrize("number", range(COUNT))
def test_boxes_bound_masks_of_the_right_size_that_do_not_touch(split, number):
    made = composites.make_composite(SEED, split, number)
    assert made.image.shape == (240, 320, 3)
    assert made.image.dtype == np.uint8
    for (x1, y1, x2, y2), mask in zip(made.boxes.astype(int), made.masks, strict=True):
        assert 8 <= y2 - y1 <= 96
        inside = mask[y1:y2, x1:x2]
        assert mask.sum() == inside.sum() > 0
        assert inside.any(axis=0)[[0, -1]].all()
        assert inside.any(axis=1)[[0, -1]].all()
    assert made.masks.sum(axis=0).max(initial=0) <= 1


def test_digits_are_of_all_sizes_and_classes(every_one):
    heights = np.concatenate([made.boxes[:, 3] - made.boxes[:, 1] for made in every_one])
    assert heights.min() < 12
    assert heights.max() > 80
    assert set(np.concatenate([made.digits for made in every_one])) == set(range(10))


def test_digits_can_be_told_from_what_is_behind_them(every_one):
    for made in every_one:
        for mask, (x1, y1, x2, y2) in zip(made.masks, made.boxes.astype(int), strict=True):
            window = made.image[y1:y2, x1:x2] / 255
            inside = mask[y1:y2, x1:x2]
            if inside.sum() > 100 and (~inside).sum() > 100:
                distance = np.linalg.norm(window[inside].mean(0) - window[~inside].mean(0))
                assert distance > 0.15


def test_the_command_writes_pictures_and_where_the_digits_are(tmp_path):
    app = composites.typer.Typer()
    app.command()(composites.main)
    result = CliRunner().invoke(app, [str(tmp_path), "--count", "3", "--seed", "9"])
    assert result.exit_code == 0, result.output
    truth = json.loads((tmp_path / "coco.json").read_text())
    made = [composites.make_composite(9, "test", number) for number in range(3)]
    for number, composite in enumerate(made):
        with Image.open(tmp_path / truth["images"][number]["file_name"]) as picture:
            np.testing.assert_array_equal(np.asarray(picture), composite.image)
        own = [each for each in truth["annotations"] if each["image_id"] == number]
        assert [each["category_id"] - 1 for each in own] == composite.digits.tolist()
        for each, box, mask in zip(own, composite.boxes, composite.masks, strict=True):
            assert each["bbox"] == [*box[:2], *(box[2:] - box[:2])]
            np.testing.assert_array_equal(coco_mask.decode(each["segmentation"]), mask)
    assert CliRunner().invoke(app, [str(tmp_path), "--split", "other"]).exit_code == 2
