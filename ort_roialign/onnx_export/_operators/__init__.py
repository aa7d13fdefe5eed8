"""Translations of PyTorch operators to this package's operators."""

from ort_roialign.onnx_export._operators import library_ops, torchvision_ops
from ort_roialign.onnx_export._operators._translation import Translation

TRANSLATIONS: tuple[Translation, ...] = (
    *torchvision_ops.TRANSLATIONS,
    *library_ops.TRANSLATIONS,
)

__all__ = ["TRANSLATIONS", "Translation"]
