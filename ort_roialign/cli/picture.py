"""Draws detections onto the photograph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks

# More boxes than this hide the photograph.
MOST_BOXES = 12
MASK_THRESHOLD = 0.5
# Easy to tell apart, also on a photograph.
COLOURS = ("#e6194b", "#3cb44b", "#ffe119", "#4363d8", "#f58231", "#42d4f4", "#f032e6", "#bfef45")


def save_picture(
    image: torch.Tensor,
    outputs: Mapping[str, npt.NDArray[Any]],
    path: Path,
    *,
    class_names: Sequence[str] | None,
) -> None:
    """Save the photograph with the highest-scored boxes, labels, scores and masks as a PNG.

    Args:
        image: [3, height, width], float32, 0 to 1.
        outputs: `boxes` [D, 4] in pixels, `labels` [D], `scores` [D], maybe `masks`
            [D, 1, height, width].
        path: the file to write.
        class_names: the name of each label; None writes the label's number.
    """
    canvas = (image * 255).round().to(torch.uint8)
    best = np.argsort(-outputs["scores"], kind="stable")[:MOST_BOXES]
    colours = [COLOURS[rank % len(COLOURS)] for rank in range(len(best))]
    if "masks" in outputs and len(best):
        masks = torch.from_numpy(outputs["masks"][best, 0] > MASK_THRESHOLD)
        # In one call torchvision paints black where masks overlap. The best one comes last, on top.
        for mask, colour in reversed(list(zip(masks, colours, strict=True))):
            canvas = draw_segmentation_masks(canvas, mask, alpha=0.5, colors=colour)
    if len(best):
        texts = [
            f"{_label(int(outputs['labels'][row]), class_names)} {outputs['scores'][row]:.2f}"
            for row in best
        ]
        boxes = torch.from_numpy(outputs["boxes"][best])
        canvas = draw_bounding_boxes(
            canvas,
            boxes,
            labels=texts,
            colors=colours,
            width=2,
            label_colors="black",
            label_background_colors=colours,
            fill_labels=True,
        )
    Image.fromarray(canvas.permute(1, 2, 0).numpy()).save(path)


def _label(label: int, class_names: Sequence[str] | None) -> str:
    if class_names is not None and label < len(class_names):
        return class_names[label]
    return f"class {label}"
