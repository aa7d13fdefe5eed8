"""Exports by PyTorch alone, to convert."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import onnx


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Tracing detectors warns dozens of times."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    log.setLevel(level)


@contextlib.contextmanager
def _traceable_torchvision() -> Iterator[None]:
    """Let torch.export trace detectors: it stops at a question and makes a number of boxes fixed.

    The pooling itself stays torchvision's.
    """
    from torchvision.ops import boxes, poolers

    def batched_nms(box: Any, score: Any, label: Any, iou_threshold: float) -> Any:
        offset = label.to(box) * (box.abs().max() + 1) * 2
        return boxes.nms(box + offset[:, None], score, iou_threshold)

    def length(value: Any) -> Any:
        return value.shape[0] if hasattr(value, "shape") else len(value)

    with (
        mock.patch.object(boxes, "batched_nms", batched_nms),
        mock.patch.object(poolers, "len", length, create=True),
    ):
        yield


def stock_export(
    module: Any, example: tuple[Any, ...], path: Path, exporter: str, **options: Any
) -> Path:
    """Export by PyTorch alone: this package's translations have no part in it."""
    import torch

    dynamo = exporter == "dynamo"
    with torch.no_grad():
        module.eval()(*example)  # MultiScaleRoIAlign takes its scales from its first images
    with _quiet(), _traceable_torchvision() if dynamo else contextlib.nullcontext():
        torch.onnx.export(module, example, path, dynamo=dynamo, verbose=False, **options)
    domains = {node.domain for node in onnx.load(path, load_external_data=False).graph.node}
    assert domains <= {"", "pkg.onnxscript.torch_lib"}
    return path
