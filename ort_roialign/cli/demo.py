"""The demo: the detector of handwritten digits that the package has, on a picture. No PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

import ort_roialign
from ort_roialign.cli.model_inputs import image_feeds
from ort_roialign.cli.output_directory import output_directory
from ort_roialign.cli.picture import MASK_THRESHOLD, save_picture
from ort_roialign.cli.sessions import (
    SessionSettings,
    failures_as_errors,
    median_seconds,
    open_session,
    require_provider,
    session_options,
)

# How they were made is in export/digits of the sources.
DIGITS = Path(ort_roialign.__file__).parent / "digits"
MODEL, IMAGE, CLASSES = DIGITS / "detector.onnx", DIGITS / "image.png", DIGITS / "classes.txt"
# Above it, over 90 % of the detections are right; export/digits/evaluation.py measures that.
LEAST_SCORE = 0.75
# The smallest digits are 8 pixels high: a picture is enlarged until labels fit beside them.
LONGER_PICTURE_SIDE_PX = 960
# The same kernels round alike, so only a different order of sums is left.
BOX_TOLERANCE_PX, SCORE_TOLERANCE, MASK_TOLERANCE = 0.05, 1e-3, 1e-2

Outputs = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class DemoSettings:
    """What the demo does.

    Attributes:
        picture: PNG file to write.
        image: the picture to look at; None takes the one that comes with the package.
        least_score: detections of a lower score are not shown.
        session: how the model runs.
    """

    picture: Path
    image: Path | None = None
    least_score: float = LEAST_SCORE
    session: SessionSettings = field(default_factory=SessionSettings)


def run_demo(settings: DemoSettings, console: Console) -> bool:
    """Detect digits, print them and the times with and without the plugin, and save a picture.

    Args:
        settings: what to do.
        console: where to print.

    Returns:
        Whether the plugin and onnxruntime's own operators give the same detections.

    Raises:
        OrtRoiAlignError: if the demo could not be run: a file or the library.
    """
    require_provider(settings.session)
    with output_directory(settings.picture.parent):
        return _detect_and_draw(settings, console)


def _detect_and_draw(settings: DemoSettings, console: Console) -> bool:
    class_names = CLASSES.read_text().split()
    image = IMAGE if settings.image is None else settings.image
    pixels, plugin, seconds = _detect(image, settings.session, plugin=True)
    _, built_in, built_in_seconds = _detect(image, settings.session, plugin=False)

    shown = plugin["scores"] >= settings.least_score
    found = {name: values[shown] for name, values in plugin.items()}
    height, width = pixels.shape[1:]
    console.print(_detections_table(found, class_names))
    console.print(
        f"The whole detector, {width}x{height} pixels, median of some runs: "
        f"{seconds * 1000:.1f} ms with the plugin, {built_in_seconds * 1000:.1f} ms on "
        f"onnxruntime's own operators, {built_in_seconds / seconds:.2f} times as long",
        highlight=False,
    )
    same = _print_differences(console, plugin, built_in)
    save_picture(
        pixels,
        found,
        settings.picture,
        class_names=class_names,
        scale=-(-LONGER_PICTURE_SIDE_PX // max(height, width)),
        most_boxes=len(found["scores"]),
    )
    console.print(f"Wrote {settings.picture}", soft_wrap=True, highlight=False)
    return same


def _detect(
    image: Path, settings: SessionSettings, *, plugin: bool
) -> tuple[npt.NDArray[np.float32], Outputs, float]:
    """Return the image [3, height, width], what is found, and the median seconds of a run."""
    with failures_as_errors(MODEL, plugin=plugin):
        session = open_session(MODEL, settings, session_options(settings), plugin=plugin)
        feeds = image_feeds(session, image)
        names = [output.name for output in session.get_outputs()]
        outputs = dict(zip(names, session.run(names, feeds), strict=True))
        seconds = median_seconds(lambda: session.run(names, feeds))
    (pixels,) = feeds.values()
    return pixels, outputs, seconds


def _detections_table(found: Outputs, class_names: list[str]) -> Table:
    table = Table(title="Digits found")
    for heading in ("Digit", "Score", "x1", "y1", "x2", "y2", "Mask px"):
        table.add_column(heading, justify="right")
    rows = zip(found["labels"], found["scores"], found["boxes"], found["masks"], strict=True)
    for label, score, box, mask in rows:
        edges = (f"{edge:.1f}" for edge in box)
        area = int((mask > MASK_THRESHOLD).sum())
        table.add_row(class_names[int(label)], f"{score:.2f}", *edges, str(area))
    return table


def _print_differences(console: Console, plugin: Outputs, built_in: Outputs) -> bool:
    """Compare both results in order, print how far they differ, and return whether they agree."""
    if not np.array_equal(plugin["labels"], built_in["labels"]):
        console.print(
            f"[bold red]FAILED[/] The digits found differ: {plugin['labels'].tolist()} with the "
            f"plugin, {built_in['labels'].tolist()} without, as numbers of classes",
            highlight=False,
        )
        return False
    box, score, mask = (
        float(np.abs(plugin[name] - built_in[name]).max(initial=0))
        for name in ("boxes", "scores", "masks")
    )
    same = box <= BOX_TOLERANCE_PX and score <= SCORE_TOLERANCE and mask <= MASK_TOLERANCE
    verdict = "[bold green]PASSED[/]" if same else "[bold red]FAILED[/]"
    console.print(
        f"{verdict} Both ways find the same {len(plugin['labels'])} detections, those of low "
        f"scores included; boxes differ by up to {box:.0e} px, scores by {score:.0e}, masks by "
        f"{mask:.0e}",
        highlight=False,
    )
    return same
