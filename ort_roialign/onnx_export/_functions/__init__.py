"""This package's operators in standard ONNX operators, one module an operator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ort_roialign.onnx_export._functions import (
    deform_roi_pool,
    multi_scale,
    paste_masks,
    pr_roi_pool,
    ps_roi_align,
    ps_roi_pool,
    roi_align,
    roi_align_rotated,
    roi_pool,
)


@dataclass(frozen=True)
class Function:
    """An operator's function.

    Attributes:
        text: gives the function's text for a default-domain opset and a number of inputs.
        calls: the operators of this package that it calls, which need a function too.
        option: an attribute that the function cannot do without and that nodes may leave out.
        text_with_option: `text` for nodes that have it.
    """

    text: Callable[[int, int], str]
    calls: tuple[str, ...] = ()
    option: str | None = None
    text_with_option: Callable[[int, int], str] | None = None


# By name of the operator.
FUNCTIONS: Mapping[str, Function] = {
    "RoiAlign": Function(roi_align.text),
    "MultiScaleRoiAlign": Function(multi_scale.text, ("RoiAlign",)),
    "RoiAlignRotated": Function(roi_align_rotated.text),
    "MultiScaleRoiAlignRotated": Function(multi_scale.text_rotated, ("RoiAlignRotated",)),
    "RoiPool": Function(roi_pool.text),
    "PsRoiAlign": Function(ps_roi_align.text),
    "PsRoiPool": Function(ps_roi_pool.text),
    "PrRoiPool": Function(pr_roi_pool.text),
    "DeformRoiPool": Function(deform_roi_pool.text),
    "PasteMasks": Function(
        paste_masks.text, option="threshold", text_with_option=paste_masks.text_with_threshold
    ),
}

__all__ = ["FUNCTIONS", "Function"]
