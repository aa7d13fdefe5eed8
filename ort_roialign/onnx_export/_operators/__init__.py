"""Translations of PyTorch operators to this package's operators."""

from ort_roialign.onnx_export._operators import library_ops, paste_masks, torchvision_ops
from ort_roialign.onnx_export._operators._translation import Translation

TRANSLATIONS: tuple[Translation, ...] = (
    *torchvision_ops.TRANSLATIONS,
    *library_ops.TRANSLATIONS,
    *paste_masks.TRANSLATIONS,
)

__all__ = ["TRANSLATIONS", "Translation"]
