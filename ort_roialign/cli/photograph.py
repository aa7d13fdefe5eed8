"""The photograph that the demo's detectors look at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from sklearn.datasets import load_sample_image

from ort_roialign.errors import OrtRoiAlignError

# Real texture and edges, 427 x 640 pixels, and it comes with scikit-learn: nothing to download.
SAMPLE_NAME = "china.jpg"


def load_photograph(path: Path | None) -> torch.Tensor:
    """Load a photograph as a detector takes it.

    Args:
        path: an image file; None takes scikit-learn's photograph `china.jpg`.

    Returns:
        [3, height, width], float32, RGB, 0 to 1.

    Raises:
        OrtRoiAlignError: if the file cannot be read as an image.
    """
    if path is None:
        pixels = np.asarray(load_sample_image(SAMPLE_NAME))
    else:
        try:
            with Image.open(path) as image:
                # Cameras note the orientation instead of turning the pixels.
                pixels = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        except (OSError, UnidentifiedImageError) as error:
            raise OrtRoiAlignError(f"cannot read the image {path}: {error}") from error
    chw = np.ascontiguousarray(pixels.transpose(2, 0, 1))
    return torch.from_numpy(chw).to(torch.float32) / 255
