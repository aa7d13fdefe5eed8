"""Exports a demo detector through this package's export, with either of PyTorch's exporters."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import torch

from ort_roialign.cli.models import Detector
from ort_roialign.onnx_export import export


def export_detector(
    detector: Detector, image: torch.Tensor, path: Path, *, exporter: str, opset_version: int
) -> None:
    """Export a detector to ONNX, for images of any size.

    The file runs with the plugin and, through functions in it, without: the comparison with
    onnxruntime's own RoiAlign needs no second file.

    Args:
        detector: the detector, in evaluation mode.
        image: example, [3, height, width].
        path: the file to write.
        exporter: "torchscript" or "dynamo".
        opset_version: opset of the standard operators.

    Raises:
        ExportError: if the exporter fails.
    """
    dynamo = exporter == "dynamo"
    options: dict[str, Any] = {"dynamo": dynamo, "opset_version": opset_version}
    if dynamo:
        options["dynamic_shapes"] = {
            "image": {1: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC}
        }
        options["verbose"] = False
    else:
        options["dynamic_axes"] = {"image": {1: "height", 2: "width"}} | {
            name: {0: "detections"} for name in detector.spec.outputs
        }
    with warnings.catch_warnings():
        # Tracing a detector warns dozens of times, about places that this export handles.
        warnings.simplefilter("ignore")
        exporter_log = logging.getLogger("torch.onnx")
        level = exporter_log.level
        exporter_log.setLevel(logging.ERROR)
        try:
            export(
                detector,
                (image,),
                path,
                input_names=["image"],
                output_names=list(detector.spec.outputs),
                fallback=True,
                **options,
            )
        finally:
            exporter_log.setLevel(level)
