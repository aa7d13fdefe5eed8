"""The demo: the detector of handwritten digits that the package has, on a picture. No PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from PIL import Image, ImageOps
from rich.console import Console
from rich.table import Table

import ort_roialign
from ort_roialign.cli.model_inputs import LONGEST_SIDE, as_model_input, read_image
from ort_roialign.cli.output_directory import output_directory
from ort_roialign.cli.picture import save_picture
from ort_roialign.cli.sessions import (
    LOG_ERRORS_ONLY,
    SessionSettings,
    median_seconds,
    require_provider,
)
from ort_roialign.errors import OrtRoiAlignError

# How they were made is in export/digits of the sources.
DIGITS = Path(ort_roialign.__file__).parent / "digits"
MODEL, IMAGE, CLASSES = DIGITS / "detector.onnx", DIGITS / "image.png", DIGITS / "classes.txt"
# Above it, over 90 % of the detections are right; export/digits/evaluation.py measures that.
LEAST_SCORE = 0.75
# The smallest digits are 8 pixels high: a picture is enlarged until labels fit beside them.
SHORTEST_PICTURE_WIDTH_PX = 960
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
    image = read_image(IMAGE if settings.image is None else settings.image)
    if max(image.size) > LONGEST_SIDE:
        image = ImageOps.contain(image, (LONGEST_SIDE, LONGEST_SIDE))
    pixels = as_model_input(image)

    outputs, seconds = _run_both_ways(pixels, settings.session)
    plugin, built_in = outputs
    shown = plugin["scores"] >= settings.least_score
    found = {name: values[shown] for name, values in plugin.items()}
    console.print(_detections_table(found, class_names))
    _print_times(console, image, seconds)
    same = _print_differences(console, plugin, built_in)
    save_picture(
        pixels,
        found,
        settings.picture,
        class_names=class_names,
        scale=-(-SHORTEST_PICTURE_WIDTH_PX // image.width),
        most_boxes=len(found["scores"]),
    )
    console.print(f"Wrote {settings.picture}", soft_wrap=True, highlight=False)
    return same


def _run_both_ways(
    pixels: npt.NDArray[np.float32], settings: SessionSettings
) -> tuple[list[Outputs], list[float]]:
    """Return outputs and median seconds with the plugin, then without it, from the same file."""
    try:
        sessions = (
            ort_roialign.InferenceSession(
                str(MODEL), settings.providers, session_options=_options(settings)
            ),
            onnxruntime.InferenceSession(
                str(MODEL), _options(settings), providers=settings.providers
            ),
        )
        runs = [_run(session, pixels) for session in sessions]
    except OrtRoiAlignError:
        raise
    except Exception as error:  # onnxruntime has no common base class of its errors
        raise OrtRoiAlignError(f"onnxruntime failed on {MODEL}: {error}") from error
    return [outputs for outputs, _ in runs], [seconds for _, seconds in runs]


def _options(settings: SessionSettings) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = LOG_ERRORS_ONLY
    options.intra_op_num_threads = settings.threads
    return options


def _run(session: Any, pixels: npt.NDArray[np.float32]) -> tuple[Outputs, float]:
    names = [output.name for output in session.get_outputs()]
    feed = {session.get_inputs()[0].name: pixels}
    outputs = dict(zip(names, session.run(names, feed), strict=True))
    return outputs, median_seconds(lambda: session.run(names, feed))


def _detections_table(found: Outputs, class_names: list[str]) -> Table:
    table = Table(title="Digits found")
    for heading in ("Digit", "Score", "x1", "y1", "x2", "y2", "Mask px"):
        table.add_column(heading, justify="right")
    rows = zip(found["labels"], found["scores"], found["boxes"], found["masks"], strict=True)
    for label, score, box, mask in rows:
        edges = (f"{edge:.1f}" for edge in box)
        area = int((mask >= 0.5).sum())
        table.add_row(class_names[int(label)], f"{score:.2f}", *edges, str(area))
    return table


def _print_times(console: Console, image: Image.Image, seconds: list[float]) -> None:
    plugin, built_in = seconds
    console.print(
        f"The whole detector, {image.width}x{image.height} pixels, median of some runs: "
        f"{plugin * 1000:.1f} ms with the plugin, {built_in * 1000:.1f} ms on onnxruntime's own "
        f"operators, {built_in / plugin:.2f} times as long",
        highlight=False,
    )


def _print_differences(console: Console, plugin: Outputs, built_in: Outputs) -> bool:
    """Compare both results in order, print how far they differ, and return whether they agree."""
    counts = len(plugin["scores"]), len(built_in["scores"])
    if counts[0] != counts[1] or (plugin["labels"] != built_in["labels"]).any():
        text = f"{counts[0]} and {counts[1]} detections, or others"
        console.print(f"[bold red]FAILED[/] Both ways find something else: {text}")
        return False
    box, score, mask = (
        float(np.abs(plugin[name] - built_in[name]).max(initial=0))
        for name in ("boxes", "scores", "masks")
    )
    same = box <= BOX_TOLERANCE_PX and score <= SCORE_TOLERANCE and mask <= MASK_TOLERANCE
    console.print(
        f"{'[bold green]PASSED[/]' if same else '[bold red]FAILED[/]'} Both ways find the same "
        f"{counts[0]} detections, those of low scores included; boxes differ by up to {box:.0e} "
        f"px, scores by {score:.0e}, masks by {mask:.0e}",
        highlight=False,
    )
    return same
