"""The photograph that the demo's detectors look at."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image, ImageOps
from sklearn.datasets import load_sample_image

from ort_roialign.cli.model_inputs import as_model_input, limited, read_image

# Real texture and edges, 640 x 427 pixels, and it comes with scikit-learn: nothing to download.
SAMPLE_NAME = "china.jpg"


def load_photograph(path: Path | None, *, sides: tuple[int, int] | None) -> torch.Tensor:
    """Load a photograph as a detector takes it.

    Args:
        path: an image file; None takes scikit-learn's photograph `china.jpg`.
        sides: the short and the long side to scale and crop it to, in pixels; None only scales it
            down where it is larger than the detectors' own limit.

    Returns:
        [3, height, width], float32, RGB, 0 to 1.

    Raises:
        OrtRoiAlignError: if the file cannot be read as an image.
    """
    image = Image.fromarray(load_sample_image(SAMPLE_NAME)) if path is None else read_image(path)
    if sides is not None:
        short, long = sides
        landscape = image.width >= image.height
        image = ImageOps.fit(image, (long, short) if landscape else (short, long))
    else:
        image = limited(image)
    return torch.from_numpy(as_model_input(image))
