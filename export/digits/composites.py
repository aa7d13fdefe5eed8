"""The data set: scikit-learn's real handwritten digits, placed over photographs.

    python export/digits/composites.py FOLDER --seed 7

A composite is made from a seed, a split and a number alone, so the same one is made everywhere. No
digit and no photograph is in both splits. Digits are 8 to 96 pixels high; a digit's own shape is
its mask, and the box is the mask's.

Sources: digits: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine
Learning Repository, 1998, as `sklearn.datasets.load_digits` has them (8x8 pixels). Photographs: the
ones that scikit-learn and scikit-image ship.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated

import numpy as np
import skimage.data
import typer
from PIL import Image
from sklearn.datasets import load_digits, load_sample_image
from sklearn.model_selection import train_test_split

CLASS_NAMES = tuple(str(digit) for digit in range(10))
IMAGE_HEIGHT, IMAGE_WIDTH = 240, 320
SMALLEST_PX, LARGEST_PX = 8, 96
SPLITS = ("train", "test")
# Fewest and most digits of a picture (fewer where no place is left). Crowded pictures teach more:
# the maps cost the same, and more digits are pooled from them.
DIGITS_OF_PICTURE = {"train": (8, 16), "test": (1, 12)}
# Which digits are in which split does not depend on the seed of the composites.
SPLIT_SEED, TEST_PART = 0, 0.25

PHOTOGRAPHS: dict[str, tuple[Callable[[], np.ndarray], ...]] = {
    "train": (
        lambda: load_sample_image("flower.jpg"),
        lambda: load_sample_image("china.jpg"),
        skimage.data.astronaut,
        skimage.data.rocket,
        skimage.data.immunohistochemistry,
        skimage.data.hubble_deep_field,
        skimage.data.brick,
        skimage.data.grass,
        skimage.data.gravel,
    ),
    "test": (skimage.data.coffee, skimage.data.chelsea),
}

# A digit is drawn on a canvas of this many times its height, so that a turned one fits.
_CANVAS = 1.5
_LARGEST_TURN_DEGREES = 12
# Least distance between a digit's colour and what is behind it, in RGB from 0 to 1.
_LEAST_CONTRAST = 0.5
_FREE_MARGIN_PX = 2
_MOST_TRIES = 40


@dataclass(frozen=True)
class Composite:
    """One picture and the digits in it.

    Attributes:
        image: [height, width, 3], uint8, RGB.
        boxes: [D, 4], float32: x1, y1, x2, y2 in pixels; the edges of the mask's outer pixels.
        digits: [D], int64: 0 to 9.
        masks: [D, height, width], bool.
    """

    image: np.ndarray
    boxes: np.ndarray
    digits: np.ndarray
    masks: np.ndarray


def make_composite(seed: int, split: str, number: int) -> Composite:
    """Make one composite; the same arguments always make the same one.

    Args:
        seed: of the whole data set.
        split: one of `SPLITS`.
        number: which composite of the split.
    """
    random = np.random.default_rng([seed, SPLITS.index(split), number])
    strokes, digits = _digits(split)
    canvas = _background(random, split)
    free = np.ones((IMAGE_HEIGHT, IMAGE_WIDTH), bool)
    boxes, labels, masks = [], [], []
    for _ in range(random.integers(*DIGITS_OF_PICTURE[split], endpoint=True)):
        source = random.integers(len(digits))
        ink = _drawn(random, strokes[source])
        place = _place(random, free, ink.shape)
        if place is None:
            continue
        y, x = place
        height, width = ink.shape
        window = (slice(y, y + height), slice(x, x + width))
        canvas[window] += ink[..., None] * (_colour(random, canvas[window]) - canvas[window])
        mask = np.zeros(free.shape, bool)
        mask[window] = ink >= 0.5
        margin = _FREE_MARGIN_PX
        free[max(0, y - margin) : y + height + margin, max(0, x - margin) : x + width + margin] = 0
        boxes.append(_box(mask))
        labels.append(digits[source])
        masks.append(mask)
    noise = random.normal(0, random.uniform(0, 0.02), canvas.shape)
    image = np.clip((canvas + noise) * 255, 0, 255).round().astype(np.uint8)
    return Composite(
        image,
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(labels, np.int64),
        np.array(masks, bool).reshape(-1, IMAGE_HEIGHT, IMAGE_WIDTH),
    )


@cache
def _digits(split: str) -> tuple[np.ndarray, np.ndarray]:
    """The strokes [D, 8, 8], 0 to 1, and the digits [D] of one split."""
    data = load_digits()
    parts = train_test_split(
        np.arange(len(data.target)),
        test_size=TEST_PART,
        random_state=SPLIT_SEED,
        stratify=data.target,
    )
    rows = parts[SPLITS.index(split)]
    return data.images[rows] / 16, data.target[rows]


@cache
def _photographs(split: str) -> tuple[Image.Image, ...]:
    return tuple(Image.fromarray(load()).convert("RGB") for load in PHOTOGRAPHS[split])


def _background(random: np.random.Generator, split: str) -> np.ndarray:
    """Crop a photograph anywhere and at any scale: [height, width, 3], float, 0 to 1."""
    choices = _photographs(split)
    photograph = choices[random.integers(len(choices))]
    aspect = IMAGE_WIDTH / IMAGE_HEIGHT
    largest = min(photograph.width, photograph.height * aspect)
    width = random.uniform(0.4, 1) * largest
    height = width / aspect
    x, y = (
        random.uniform(0, photograph.width - width),
        random.uniform(0, photograph.height - height),
    )
    crop = photograph.resize(
        (IMAGE_WIDTH, IMAGE_HEIGHT),
        Image.Resampling.BILINEAR,
        box=(x, y, x + width, y + height),
    )
    pixels = np.asarray(crop, float) / 255
    if random.random() < 0.5:
        pixels = pixels[:, ::-1]
    return np.clip(pixels * random.uniform(0.7, 1.2) + random.uniform(-0.1, 0.1), 0, 1)


def _drawn(random: np.random.Generator, strokes: np.ndarray) -> np.ndarray:
    """Draw a digit at a random size, a little turned: how opaque each pixel is, tightly cropped."""
    while True:
        ink = _drawn_once(random, strokes)
        if SMALLEST_PX <= len(ink) <= LARGEST_PX:  # turned, a digit is a little higher
            return ink


def _drawn_once(random: np.random.Generator, strokes: np.ndarray) -> np.ndarray:
    used = strokes > 0.25
    rows, columns = np.flatnonzero(used.any(axis=1)), np.flatnonzero(used.any(axis=0))
    tight = strokes[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    # As many small digits as large ones on a scale of ratios.
    height_px = np.exp(random.uniform(np.log(SMALLEST_PX), np.log(LARGEST_PX)))
    scale = height_px / len(tight)
    side = int(np.ceil(max(tight.shape) * scale * _CANVAS)) + 4
    turn = np.deg2rad(random.uniform(-_LARGEST_TURN_DEGREES, _LARGEST_TURN_DEGREES))
    stretch = random.uniform(0.85, 1.15)  # of the width
    # From a pixel of the canvas to a cell of the digit: Pillow's six numbers of an affine map.
    cosine, sine = np.cos(turn) / scale, np.sin(turn) / scale
    padded = np.pad(tight, 2)
    middle_x, middle_y = padded.shape[1] / 2, padded.shape[0] / 2
    half = side / 2
    matrix = (
        cosine / stretch, sine / stretch, middle_x - (cosine + sine) * half / stretch,
        -sine, cosine, middle_y + (sine - cosine) * half,
    )  # fmt: skip
    smooth = Image.fromarray(padded.astype(np.float32)).transform(
        (side, side), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC
    )
    # A pen's edge is as sharp on a large digit as on a small one: about two pixels wide.
    sharpness = max(1.0, scale / 2)
    ink = np.clip((np.asarray(smooth, float) - 0.4) * sharpness + 0.5, 0, 1)
    inside = ink >= 0.5
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _place(
    random: np.random.Generator, free: np.ndarray, shape: tuple[int, ...]
) -> tuple[int, int] | None:
    """Find a place for a digit that touches no other one; None where none is soon found."""
    height, width = shape
    if height > free.shape[0] or width > free.shape[1]:
        return None
    for _ in range(_MOST_TRIES):
        y = int(random.integers(free.shape[0] - height + 1))
        x = int(random.integers(free.shape[1] - width + 1))
        if free[y : y + height, x : x + width].all():
            return y, x
    return None


def _colour(random: np.random.Generator, behind: np.ndarray) -> np.ndarray:
    """Choose a colour that can be told from what is behind it: [3], 0 to 1."""
    mean = behind.mean(axis=(0, 1))
    while True:
        colour = random.random(3)
        if np.linalg.norm(colour - mean) >= _LEAST_CONTRAST:
            return colour


def _box(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


def file_name(number: int) -> str:
    """Return the name that a composite's picture gets."""
    return f"{number:04}.png"


def coco_annotations(composites: Iterable[Composite]) -> dict:
    """Describe composites in COCO's format for instances."""
    from pycocotools import mask as coco_mask

    images, annotations = [], []
    for number, composite in enumerate(composites):
        images.append(
            {
                "id": number,
                "file_name": file_name(number),
                "height": IMAGE_HEIGHT,
                "width": IMAGE_WIDTH,
            }
        )
        rows = zip(composite.boxes, composite.digits, composite.masks, strict=True)
        for (x1, y1, x2, y2), digit, mask in rows:
            runs = coco_mask.encode(np.asfortranarray(mask, np.uint8))
            annotations.append(
                {
                    "id": len(annotations) + 1,  # 0 would count as no match
                    "image_id": number,
                    "category_id": int(digit) + 1,
                    "bbox": [float(x1), float(y1), float(x2 - x1), float(y2 - y1)],
                    "area": float((x2 - x1) * (y2 - y1)),
                    "iscrowd": 0,
                    "segmentation": {"size": runs["size"], "counts": runs["counts"].decode()},
                }
            )
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(CLASS_NAMES)]
    return {"images": images, "annotations": annotations, "categories": categories}


def main(
    folder: Annotated[Path, typer.Argument(help="Where to write the pictures and coco.json.")],
    seed: Annotated[int, typer.Option(min=0, help="Another seed makes other pictures.")] = 0,
    split: Annotated[
        str, typer.Option(help="train or test: which digits and photographs.")
    ] = "test",
    count: Annotated[int, typer.Option(min=1, help="How many pictures.")] = 10,
) -> None:
    """Write composites as PNG files, and where the digits are in COCO's format."""
    if split not in SPLITS:
        raise typer.BadParameter(f"must be one of {', '.join(SPLITS)}; got {split}")
    folder.mkdir(parents=True, exist_ok=True)
    composites = [make_composite(seed, split, number) for number in range(count)]
    for number, composite in enumerate(composites):
        Image.fromarray(composite.image).save(folder / file_name(number))
    annotations = coco_annotations(composites)
    (folder / "coco.json").write_text(json.dumps(annotations))
    print(f"{count} pictures with {len(annotations['annotations'])} digits in {folder}")


if __name__ == "__main__":
    typer.run(main)
