"""This package's operators in standard ONNX operators, one module an operator."""

from collections.abc import Callable

from ort_roialign.onnx_export._functions import roi_align, roi_pool

# Operator name -> its function's text for a given default-domain opset.
FUNCTIONS: dict[str, Callable[[int], str]] = {
    "RoiAlign": roi_align.text,
    "RoiPool": roi_pool.text,
}

__all__ = ["FUNCTIONS"]
