"""Translations for PyTorch's torch.export-based exporter (`dynamo=True`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ort_roialign.onnx_export._keypoints import dynamo_translation
from ort_roialign.onnx_export._operators import TRANSLATIONS


def translation_table() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Return the table that makes the exporter write this package's operators.

    Pass it as `torch.onnx.export(..., dynamo=True, custom_translation_table=...)`. It covers
    `roi_align`, `roi_pool`, `ps_roi_align` and `ps_roi_pool` of torchvision, and all operators of
    `ort_roialign.torch`, whichever function or module calls them. A file exported this way needs
    the plugin; `add_fallback` removes that need.

    Returns:
        A new dict: PyTorch operator -> function that builds its ONNX nodes.
    """
    table = {translation.torch_overload: translation.dynamo for translation in TRANSLATIONS}
    return {**table, torch.ops.ort_roialign.heatmaps_to_keypoints.default: dynamo_translation}
