"""`demo --export`: detectors from PyTorch to onnxruntime with the plugin, compared three ways."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights

import ort_roialign
from ort_roialign.cli.exporting import export_detector
from ort_roialign.cli.models import MASK_RCNN, MOBILENET, Detector, DetectorSpec, build_detector
from ort_roialign.cli.output_directory import output_directory
from ort_roialign.cli.parity import Comparison, Outputs, compare_outputs
from ort_roialign.cli.photograph import load_photograph
from ort_roialign.cli.picture import save_picture
from ort_roialign.cli.report import BUILT_IN, EAGER, PLUGIN, PathReport, Timing, print_report
from ort_roialign.cli.sessions import (
    SessionResult,
    SessionSettings,
    median_seconds,
    require_provider,
    run_session,
)

SPECS: Mapping[str, DetectorSpec] = {"mask": MASK_RCNN, "mobilenet": MOBILENET}
# torchvision trains both detectors on COCO with the same numbering.
COCO_CLASSES: list[str] = MaskRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]


@dataclass(frozen=True)
class ExportDemoSettings:
    """What the demo does.

    Attributes:
        output: directory for the models and pictures.
        models: keys of `SPECS`.
        weights: key of `SPECS` -> file with a state dict; others get random weights.
        image: the photograph; None takes the one that comes with scikit-learn.
        opset_version: opset of the standard operators in the exported models.
        session: how the models run.
    """

    output: Path
    models: tuple[str, ...] = tuple(SPECS)
    weights: Mapping[str, Path] = field(default_factory=dict)
    image: Path | None = None
    opset_version: int = 18
    session: SessionSettings = field(default_factory=SessionSettings)


class _Steps:
    """Shows which step runs, and leaves a line with its time when it is done."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=total)

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        """Show one step while the block runs."""
        self._progress.update(self._task, description=text)
        start = time.perf_counter()
        yield
        seconds = time.perf_counter() - start
        self._progress.console.print(f"  {text}: {seconds:.1f} s", highlight=False)
        self._progress.advance(self._task)


def run_export_demo(settings: ExportDemoSettings, console: Console) -> bool:
    """Run the demo and print what it found.

    Args:
        settings: what to do.
        console: where to print.

    Returns:
        Whether every output agrees and the plugin's kernels are what ran.

    Raises:
        OrtRoiAlignError: if the demo could not be run: a file, the export or the library.
    """
    require_provider(settings.session)
    ort_roialign.cpu_state()  # if the library cannot be used, say so before the work, not after
    if settings.session.threads:
        torch.set_num_threads(settings.session.threads)
    reports: list[PathReport] = []
    files: list[Path] = []
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    # Building, PyTorch and the picture once a model; export and two sessions for each exporter.
    total = sum(3 + 3 * len(SPECS[key].exporters) for key in settings.models)
    with (
        output_directory(settings.output),
        Progress(*columns, console=console, transient=True) as progress,
    ):
        steps = _Steps(progress, total)
        for key in settings.models:
            model_reports, model_files = _run_model(key, settings, steps)
            reports += model_reports
            files += model_files
    print_report(console, reports, files)
    return not any(report.problems for report in reports)


def _run_model(
    key: str, settings: ExportDemoSettings, steps: _Steps
) -> tuple[list[PathReport], list[Path]]:
    spec, weights = SPECS[key], settings.weights.get(key)
    image = load_photograph(settings.image, sides=spec.exact_sides if weights is None else None)
    with steps.step(f"{spec.name}: build with {'given' if weights else 'random'} weights"):
        detector = build_detector(spec, weights, image)
    with steps.step(f"{spec.name}: run in PyTorch"):
        expected, eager = _run_eager(detector, image)
    reports, files = [], []
    for exporter in spec.exporters:
        path = settings.output / f"{spec.name}_{exporter}.onnx"
        with steps.step(f"{spec.name}: export with {exporter}"):
            export_detector(
                detector, image, path, exporter=exporter, opset_version=settings.opset_version
            )
        files.append(path)
        with steps.step(f"{spec.name}: run in onnxruntime with the plugin"):
            plugin = run_session(path, image.numpy(), settings.session, plugin=True)
        with steps.step(f"{spec.name}: run in onnxruntime without the plugin"):
            built_in = run_session(path, image.numpy(), settings.session, plugin=False)
        timings = (
            Timing(PLUGIN, plugin.seconds, plugin.profile),
            Timing(BUILT_IN, built_in.seconds, built_in.profile),
            eager,
        )
        comparisons = _compare(detector, plugin, {EAGER: expected, BUILT_IN: built_in.outputs})
        reports.append(PathReport(spec.title, exporter, weights is None, timings, comparisons))
    picture = settings.output / f"{spec.name}.png"
    with steps.step(f"{spec.name}: draw the picture"):
        names = COCO_CLASSES if weights is not None else None
        save_picture(image.numpy(), plugin.outputs, picture, class_names=names)
    return reports, [*files, picture]


def _run_eager(
    detector: Detector, image: torch.Tensor
) -> tuple[dict[str, npt.NDArray[Any]], Timing]:
    with torch.inference_mode():
        outputs = [np.asarray(output) for output in detector(image)]
        seconds = median_seconds(lambda: detector(image))
    return dict(zip(detector.spec.outputs, outputs, strict=True)), Timing(EAGER, seconds, None)


def _compare(
    detector: Detector, plugin: SessionResult, others: Mapping[str, Outputs]
) -> dict[str, Comparison]:
    return {
        other: compare_outputs(
            outputs,
            plugin.outputs,
            max_detections=detector.max_detections,
            score_threshold=detector.score_threshold,
        )
        for other, outputs in others.items()
    }
