"""`ort-roialign explain`: where RoI Pooling and RoIAlign read a box, drawn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console

from ort_roialign._domains import DOMAIN
from ort_roialign._new_files import check_place
from ort_roialign.cli.explain_figures import Pooled, draw_method, draw_on_image
from ort_roialign.cli.model_inputs import image_feeds
from ort_roialign.errors import InvalidArgumentError, OrtRoiAlignError
from ort_roialign.reference import multi_scale_roi_align

PICTURE_SUFFIXES = (".png", ".svg")
_POOLING_OPERATORS = {
    (DOMAIN, "MultiScaleRoiAlign"),
    (DOMAIN, "RoiAlign"),
    ("", "RoiAlign"),
}


@dataclass(frozen=True)
class ExplainSettings:
    """What is drawn.

    Attributes:
        picture: PNG or SVG file to write.
        image_size: width and height in pixels, of the image without a file.
        pooled: the box, and how it is pooled.
        model: a detector with an output `boxes`; its boxes and its pooling are drawn instead.
        image: the picture to detect in; None takes the one that comes with the package.
        most_boxes: how many of the model's boxes are drawn.
    """

    picture: Path
    image_size: tuple[int, int]
    pooled: Pooled
    model: Path | None = None
    image: Path | None = None
    most_boxes: int = 3


def run_explain(settings: ExplainSettings, console: Console) -> None:
    """Draw the picture, and print the numbers in it.

    Raises:
        OrtRoiAlignError: if an argument is bad, or the model cannot be run.
    """
    check_place(settings.picture, "explain: --output")
    if settings.picture.suffix.lower() not in PICTURE_SUFFIXES:
        raise InvalidArgumentError(
            f"explain: --output must end in .png or .svg; got {str(settings.picture)!r}"
        )
    if settings.model is None:
        _check_box(settings)
        draw_method(settings.pooled, settings.image_size, settings.picture)
        for line in settings.pooled.sentences():
            console.print(line, highlight=False)
    else:
        pixels, boxes = _detect(settings.model, settings.image)
        if not len(boxes):
            raise OrtRoiAlignError(f"explain: {settings.model} finds no box to draw")
        found = list(_pooled_boxes(settings.model, boxes[: settings.most_boxes], pixels))
        draw_on_image(found, pixels, settings.picture)
        for pooled in found:
            edges = ", ".join(f"{edge:.1f}" for edge in pooled.box)
            console.print(f"Box {edges}: stride {pooled.stride:g}", highlight=False)
    console.print(f"Wrote {settings.picture}", soft_wrap=True, highlight=False)


def _check_box(settings: ExplainSettings) -> None:
    (x1, y1, x2, y2), (width, height) = settings.pooled.box, settings.image_size
    if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
        raise InvalidArgumentError(
            f"explain: --box must be x1 < x2 and y1 < y2 inside the image of {width} x {height} "
            f"pixels; got {x1:g} {y1:g} {x2:g} {y2:g}"
        )
    if settings.pooled.stride > min(width, height):
        raise InvalidArgumentError(
            f"explain: --stride must be at most the image's shorter side, {min(width, height)}; "
            f"got {settings.pooled.stride:g}"
        )


def _detect(
    model: Path, image: Path | None
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return the image [3, H, W] and the boxes [D, 4] on it that a model finds, best ones first."""
    from ort_roialign.cli.demo import IMAGE
    from ort_roialign.cli.sessions import (
        SessionSettings,
        failures_as_errors,
        open_session,
        session_options,
    )

    settings = SessionSettings()
    with failures_as_errors(model, plugin=True):
        session = open_session(model, settings, session_options(settings), plugin=True)
        names = [output.name for output in session.get_outputs()]
        if "boxes" not in names or "scores" not in names:
            raise InvalidArgumentError(
                f"explain: --model must have outputs boxes and scores; got {', '.join(names)}"
            )
        feeds = image_feeds(session, IMAGE if image is None else image)
        boxes, scores = session.run(["boxes", "scores"], feeds)
    if boxes.ndim != 2 or boxes.shape[1] != 4 or scores.shape != boxes.shape[:1]:
        raise InvalidArgumentError(
            f"explain: --model must give boxes [D, 4] and scores [D]; got {list(boxes.shape)} and "
            f"{list(scores.shape)}"
        )
    (pixels,) = feeds.values()
    pixels = pixels.reshape(pixels.shape[-3:])
    # A level can be drawn only where there is a map.
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2
    sides = boxes[:, 2:] - boxes[:, :2]
    inside = (middles >= 0) & (middles <= pixels.shape[:0:-1]) & (sides > 0)
    best = np.argsort(-scores, kind="stable")
    return pixels, boxes[best[inside.all(axis=1)[best]]]


def _pooled_boxes(
    model: Path, boxes: npt.NDArray[np.float32], pixels: npt.NDArray[np.float32]
) -> Iterator[Pooled]:
    """Yield the boxes as the model's first node of RoIAlign pools boxes of their size."""
    import onnx

    graph = onnx.load(str(model), load_external_data=False).graph
    node = next(
        (node for node in graph.node if (node.domain, node.op_type) in _POOLING_OPERATORS), None
    )
    if node is None:
        raise InvalidArgumentError(
            f"explain: --model must have a node RoiAlign or MultiScaleRoiAlign; {model} has none"
        )
    attributes: dict[str, Any] = {
        each.name: onnx.helper.get_attribute_value(each) for each in node.attribute
    }
    for name, value in attributes.items():
        if isinstance(value, bytes):
            attributes[name] = value.decode()
    if node.op_type == "MultiScaleRoiAlign":
        strides = _strides_of_levels(boxes, pixels, attributes)
    else:
        strides = [1 / attributes.get("spatial_scale", 1.0)] * len(boxes)
    pooling = Pooled(
        box=(0, 0, 0, 0),
        stride=1,
        bins=(attributes.get("output_height", 1), attributes.get("output_width", 1)),
        samples=attributes.get("sampling_ratio", 0),
        origin=attributes.get("coordinate_transformation_mode", "half_pixel"),
    )
    for box, stride in zip(boxes, strides, strict=True):
        x1, y1, x2, y2 = map(float, box)
        yield replace(pooling, box=(x1, y1, x2, y2), stride=round(stride, 6))


def _strides_of_levels(
    boxes: npt.NDArray[np.float32], pixels: npt.NDArray[np.float32], attributes: dict[str, Any]
) -> list[float]:
    """Return the stride of each box's level: of maps that hold their own stride, it is pooled."""
    scales = attributes["spatial_scales"]
    height, width = pixels.shape[-2:]
    maps = [
        np.full((1, 1, int(height * scale) + 2, int(width * scale) + 2), 1 / scale, np.float32)
        for scale in scales
    ]
    one_bin = attributes | {"output_height": 1, "output_width": 1, "sampling_ratio": 1}
    images = np.zeros(len(boxes), np.int64)
    return [float(y) for y in multi_scale_roi_align(boxes, images, *maps, **one_bin)[:, 0, 0, 0]]
