"""Inputs for any model: from a NumPy file, from an image, or drawn at random."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ort_roialign.errors import InvalidArgumentError, OrtRoiAlignError

if TYPE_CHECKING:
    from PIL import Image

Array = npt.NDArray[Any]

# Detectors scale a larger image down to this before anything else.
LONGEST_SIDE = 1333
_CHANNELS = 3


def read_npz(path: Path) -> dict[str, Array]:
    """Read arrays by name from a file that `numpy.savez` wrote.

    Raises:
        InvalidArgumentError: if it is no such file.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except Exception as error:  # of many kinds, zip's among them
        raise InvalidArgumentError(
            f"--npz must be a file of arrays that numpy.savez wrote; got {path}: {error}"
        ) from error


def read_image(path: Path) -> Image.Image:
    """Read an image in RGB, turned as its camera held it.

    Raises:
        OrtRoiAlignError: if the file cannot be read as an image, or has pixels without a known
            white, as images of measurements have.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as file:
            # Cameras note the orientation instead of turning the pixels.
            image = ImageOps.exif_transpose(file)
            is_16_bit = file.mode.startswith("I;16") or (file.mode, file.format) == ("I", "PNG")
    # Pillow's UnidentifiedImageError is an OSError; a broken PNG file is a SyntaxError.
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise OrtRoiAlignError(f"cannot read the image {path}: {error}") from error
    if is_16_bit:  # Pillow would cut off all that is above 255
        return Image.fromarray((np.asarray(image) / 257).round().astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise OrtRoiAlignError(
            f"the image {path} must have pixels of 8 or 16 bits; got Pillow's mode {image.mode}, "
            f"of 32 bits"
        )
    return image.convert("RGB")


def limited(image: Image.Image) -> Image.Image:
    """Scale an image down to `LONGEST_SIDE` where it is larger; no side gets shorter than 1."""
    smaller = image.copy()
    smaller.thumbnail((LONGEST_SIDE, LONGEST_SIDE), reducing_gap=None)
    return smaller


def as_model_input(image: Image.Image | npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return an RGB image as detectors take it: [3, height, width], float32, 0 to 1."""
    pixels = np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))
    return pixels.astype(np.float32) / np.float32(255)


def image_feeds(session: Any, path: Path) -> dict[str, Array]:
    """Lay an image out as the one input of a session.

    Args:
        session: of a model with one input, [3, H, W] or [N, 3, H, W] of floats, which is taken to
            want RGB values from 0 to 1, as torchvision's detectors do.
        path: the image; scaled and cropped to H and W where the model fixes them, and scaled down
            to the detectors' own limit where it is larger.

    Raises:
        InvalidArgumentError: if the model has other inputs.
        OrtRoiAlignError: if the file cannot be read as an image.
    """
    from PIL import ImageOps

    given = session.get_inputs()
    shape = list(given[0].shape) if given else []
    if len(given) != 1 or given[0].type != "tensor(float)" or shape[-3:-2] != [_CHANNELS]:
        found = ", ".join(f"{each.name} {each.type} {each.shape}" for each in given)
        raise InvalidArgumentError(
            f"--image must go with a model of one input, float [3, H, W] or [N, 3, H, W]; got "
            f"{found}; give inputs with --npz"
        )
    image = read_image(path)
    height, width = shape[-2:]
    if isinstance(height, int) and isinstance(width, int):
        image = ImageOps.fit(image, (width, height))
    else:
        image = limited(image)
    pixels = as_model_input(image)
    if len(shape) == 3:
        return {given[0].name: pixels}
    count = shape[0] if isinstance(shape[0], int) else 1
    return {given[0].name: np.repeat(pixels[None], count, axis=0)}
