"""Conversion of existing ONNX models to the operators of the domain `ort_roialign`.

Needs the extra `convert` (onnx, onnx_ir) and onnxruntime, and no PyTorch.
"""

from ort_roialign.convert._dependencies import require_convert_dependencies

require_convert_dependencies()

from ort_roialign.convert._convert import convert, convert_with_report  # noqa: E402
from ort_roialign.convert._files import convert_file  # noqa: E402
from ort_roialign.convert._report import ConversionReport, Left, Replacement  # noqa: E402

__all__ = [
    "ConversionReport",
    "Left",
    "Replacement",
    "convert",
    "convert_file",
    "convert_with_report",
]
