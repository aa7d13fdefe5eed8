"""Translations of PyTorch operators to this package's operators, one module an operator."""

from ort_roialign.onnx_export._operators import roi_align, roi_pool
from ort_roialign.onnx_export._operators._translation import Translation

TRANSLATIONS: tuple[Translation, ...] = (roi_align.TRANSLATION, roi_pool.TRANSLATION)

__all__ = ["TRANSLATIONS", "Translation"]
