"""`ort-roialign explain`: where RoI Pooling and RoIAlign read a box, drawn."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console

from ort_roialign._domains import DOMAIN
from ort_roialign._new_files import check_place
from ort_roialign._opset import COORDINATE_MODE_SINCE, default_opset
from ort_roialign.cli.explain_figures import Pooled, draw_method, draw_on_image
from ort_roialign.cli.model_inputs import image_feeds
from ort_roialign.errors import InvalidArgumentError, OrtRoiAlignError
from ort_roialign.reference import multi_scale_roi_align

PICTURE_SUFFIXES = (".png", ".svg")
# Of a map's side: an adaptive grid has a sample for each.
MOST_CELLS = 1024
_ORIGIN = "coordinate_transformation_mode"
_POOLING_OPERATORS = {
    (DOMAIN, "MultiScaleRoiAlign"),
    (DOMAIN, "RoiAlign"),
    ("", "RoiAlign"),
}


@dataclass(frozen=True)
class MethodSettings:
    """A box that is pooled, without a model.

    Attributes:
        image_size: width and height in pixels.
        box: x1, y1, x2, y2 in pixels.
        stride: image pixels of a feature cell.
        bins: of a side.
        samples: per bin and axis; 0 is adaptive.
    """

    image_size: tuple[int, int] = (800, 800)
    box: tuple[float, float, float, float] = (70, 90, 735, 755)
    stride: float = 32
    bins: int = 7
    samples: int = 2


@dataclass(frozen=True)
class ModelSettings:
    """A detector whose boxes are drawn.

    Attributes:
        model: an ONNX file with outputs `boxes` and `scores`.
        image: the picture to detect in; None takes the one that comes with the package.
        most_boxes: how many of the boxes are drawn.
    """

    model: Path
    image: Path | None = None
    most_boxes: int = 3


def run_explain(settings: MethodSettings | ModelSettings, picture: Path, console: Console) -> None:
    """Draw the picture, and print the numbers in it.

    Args:
        settings: what is drawn.
        picture: PNG or SVG file to write.
        console: where to print.

    Raises:
        OrtRoiAlignError: if an argument is bad, or the model cannot be run.
    """
    check_place(picture, "explain: --output")
    if picture.suffix.lower() not in PICTURE_SUFFIXES:
        raise InvalidArgumentError(
            f"explain: --output must end in .png or .svg; got {str(picture)!r}"
        )
    if isinstance(settings, MethodSettings):
        lines = _explain_method(settings, picture)
    else:
        lines = _explain_model(settings, picture)
    for line in (*lines, f"Wrote {picture}"):
        console.print(line, soft_wrap=True, highlight=False)


def _explain_method(settings: MethodSettings, picture: Path) -> list[str]:
    _check_box(settings)
    width, height = settings.image_size
    pooled = Pooled(
        box=settings.box,
        stride=settings.stride,
        map_size=(math.ceil(height / settings.stride), math.ceil(width / settings.stride)),
        bins=(settings.bins, settings.bins),
        samples=settings.samples,
    )
    draw_method(pooled, picture)
    return [*pooled.sentences()]


def _explain_model(settings: ModelSettings, picture: Path) -> list[str]:
    pixels, boxes = _detect(settings.model, settings.image)
    if not len(boxes):
        raise OrtRoiAlignError(f"explain: {settings.model} finds no box to draw")
    found = _pooled_boxes(settings.model, boxes, pixels)[: settings.most_boxes]
    draw_on_image(found, pixels, picture)
    edges = (", ".join(f"{edge:.1f}" for edge in pooled.box) for pooled in found)
    return [f"Box {e}: stride {p.stride:g}" for e, p in zip(edges, found, strict=True)]


def _check_box(settings: MethodSettings) -> None:
    (x1, y1, x2, y2), (width, height) = settings.box, settings.image_size
    if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
        raise InvalidArgumentError(
            f"explain: --box must be x1 < x2 and y1 < y2 inside the image of {width} x {height} "
            f"pixels; got {x1:g} {y1:g} {x2:g} {y2:g}"
        )
    least = max(width, height) / MOST_CELLS
    if not least <= settings.stride <= min(width, height):
        raise InvalidArgumentError(
            f"explain: --stride must be at most the image's shorter side, {min(width, height)}, "
            f"and at least {least:g}, for a map of {MOST_CELLS} cells a side; got "
            f"{settings.stride:g}"
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
    pixels = pixels if pixels.ndim == 3 else pixels[0]
    # A level can be drawn only where there is a map.
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2
    sides = boxes[:, 2:] - boxes[:, :2]
    inside = (middles >= 0) & (middles <= pixels.shape[:0:-1]) & (sides > 0)
    best = np.argsort(-scores, kind="stable")
    return pixels, boxes[best[inside.all(axis=1)[best]]]


def _pooled_boxes(
    model: Path, boxes: npt.NDArray[np.float32], pixels: npt.NDArray[np.float32]
) -> list[Pooled]:
    """Return the boxes as the model's RoIAlign pools them, the best box of each level first."""
    operator, attributes = _pooling_of(model)
    height, width = pixels.shape[-2:]
    if operator == "MultiScaleRoiAlign":
        strides = _strides_of_levels(boxes, (height, width), attributes)
    else:
        strides = [1 / attributes.get("spatial_scale", 1.0)] * len(boxes)
    pooled = [
        Pooled(
            box=(x1, y1, x2, y2),
            stride=round(stride, 6),
            map_size=(math.ceil(height / stride), math.ceil(width / stride)),
            bins=(attributes.get("output_height", 1), attributes.get("output_width", 1)),
            samples=attributes.get("sampling_ratio", 0),
            origin=attributes["coordinate_transformation_mode"],
        )
        for (x1, y1, x2, y2), stride in zip(boxes.tolist(), strides, strict=True)
    ]
    seen: Counter[float] = Counter()
    ranks = []
    for each in pooled:
        ranks.append(seen[each.stride])
        seen[each.stride] += 1
    return [pooled[row] for row in np.argsort(ranks, kind="stable")]


def _pooling_of(model: Path) -> tuple[str, dict[str, Any]]:
    """Return the operator and the attributes of the model's first node that pools.

    Raises:
        InvalidArgumentError: if there is none, or each level has a node of its own: which boxes
            are whose is not to be seen from outside.
    """
    import onnx

    loaded = onnx.load(str(model), load_external_data=False)
    nodes = [
        node for node in loaded.graph.node if (node.domain, node.op_type) in _POOLING_OPERATORS
    ]
    if not nodes:
        raise InvalidArgumentError(
            f"explain: --model must have a node RoiAlign or MultiScaleRoiAlign; {model} has none"
        )
    all_attributes = []
    for node in nodes:
        given = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
        attributes = {k: v.decode() if isinstance(v, bytes) else v for k, v in given.items()}
        attributes.setdefault(_ORIGIN, _default_origin(node.domain, loaded))
        all_attributes.append(attributes)
    scales = {str(each.get("spatial_scales", each.get("spatial_scale"))) for each in all_attributes}
    if len(scales) > 1:
        raise InvalidArgumentError(
            f"explain: --model must pool all levels in one node; {model} has nodes of "
            f"{len(scales)} scales. Convert it first: ort-roialign convert"
        )
    return nodes[0].op_type, all_attributes[0]


def _default_origin(domain: str, model: Any) -> str:
    if domain == DOMAIN:
        return "half_pixel"
    opset = default_opset(model)
    known = opset is not None and opset >= COORDINATE_MODE_SINCE
    return "half_pixel" if known else "output_half_pixel"


def _strides_of_levels(
    boxes: npt.NDArray[np.float32], image_size: tuple[int, int], attributes: dict[str, Any]
) -> list[float]:
    """Return the stride of each box's level: of maps that hold their own stride, it is pooled."""
    scales = attributes["spatial_scales"]
    height, width = image_size
    maps = [
        np.full((1, 1, int(height * scale) + 2, int(width * scale) + 2), 1 / scale, np.float32)
        for scale in scales
    ]
    one_bin = attributes | {"output_height": 1, "output_width": 1, "sampling_ratio": 1}
    images = np.zeros(len(boxes), np.int64)
    return [float(y) for y in multi_scale_roi_align(boxes, images, *maps, **one_bin)[:, 0, 0, 0]]
