"""Draws detections onto the photograph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageColor, ImageDraw, ImageFont

# More boxes than this hide the photograph.
MOST_BOXES = 12
MASK_THRESHOLD = 0.5
MASK_OPACITY = 0.5
LINE_WIDTH_PX = 2
FONT_SIZE_PX = 14
# Easy to tell apart, also on a photograph.
COLOURS = ("#e6194b", "#3cb44b", "#ffe119", "#4363d8", "#f58231", "#42d4f4", "#f032e6", "#bfef45")


def save_picture(
    image: npt.NDArray[np.float32],
    outputs: Mapping[str, npt.NDArray[Any]],
    path: Path,
    *,
    class_names: Sequence[str] | None,
    scale: int = 1,
    most_boxes: int = MOST_BOXES,
) -> None:
    """Save the photograph with the highest-scored boxes, labels, scores and masks as a PNG.

    Args:
        image: [3, height, width], float32, 0 to 1.
        outputs: `boxes` [D, 4] in pixels, `labels` [D], `scores` [D], maybe `masks`
            [D, 1, height, width].
        path: the file to write.
        class_names: the name of each label; None writes the label's number.
        scale: pixels of the picture, each way, for a pixel of the image.
        most_boxes: how many detections are drawn.
    """
    pixels = _enlarged(image.transpose(1, 2, 0) * 255, scale)
    best = np.argsort(-outputs["scores"], kind="stable")[:most_boxes]
    colours = [COLOURS[rank % len(COLOURS)] for rank in range(len(best))]
    if "masks" in outputs:
        # The best one comes last, on top.
        for row, colour in reversed(list(zip(best, colours, strict=True))):
            mask = _enlarged(outputs["masks"][row, 0] > MASK_THRESHOLD, scale)
            paint = np.array(ImageColor.getrgb(colour), np.float32)
            pixels[mask] += MASK_OPACITY * (paint - pixels[mask])
    picture = Image.fromarray(pixels.round().astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    for row, colour in zip(best, colours, strict=True):
        box = outputs["boxes"][row].astype(float) * scale
        text = f"{_label(int(outputs['labels'][row]), class_names)} {outputs['scores'][row]:.2f}"
        _draw_box(draw, box, text, colour)
    picture.save(path)


def _enlarged(pixels: npt.NDArray[Any], scale: int) -> npt.NDArray[Any]:
    return pixels.repeat(scale, axis=0).repeat(scale, axis=1)


def _draw_box(
    draw: ImageDraw.ImageDraw, box: npt.NDArray[np.float64], text: str, colour: str
) -> None:
    x1, y1, x2, y2 = map(float, box)
    # Pillow refuses edges in another order; a box without area is a line.
    draw.rectangle((x1, y1, max(x1, x2), max(y1, y2)), outline=colour, width=LINE_WIDTH_PX)
    font = ImageFont.load_default(FONT_SIZE_PX)
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    width, height = right - left + 2, bottom - top + 2
    # Above the box; below it where the picture begins; in it where there is no room either.
    picture_width, picture_height = draw.im.size
    text_y = y1 - height
    if text_y < 0:
        text_y = y2 + 1 if y2 + 1 + height <= picture_height else y1
    text_x = max(0.0, min(x1, picture_width - width))
    draw.rectangle((text_x, text_y, text_x + width, text_y + height), fill=colour)
    draw.text((text_x + 1 - left, text_y + 1 - top), text, fill="black", font=font)


def _label(label: int, class_names: Sequence[str] | None) -> str:
    if class_names is not None and label < len(class_names):
        return class_names[label]
    return f"class {label}"
