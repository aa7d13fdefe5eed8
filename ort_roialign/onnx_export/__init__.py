"""Export of PyTorch modules to ONNX with the operators of the domain `ort_roialign`.

Needs the extra `export` (torch, torchvision, onnx, onnxscript).
"""

from ort_roialign.onnx_export._dependencies import require_export_dependencies

require_export_dependencies()

from ort_roialign.onnx_export._detectors import prepare  # noqa: E402
from ort_roialign.onnx_export._dynamo import translation_table  # noqa: E402
from ort_roialign.onnx_export._export import export  # noqa: E402
from ort_roialign.onnx_export._fallback import add_fallback, fallback_function  # noqa: E402
from ort_roialign.onnx_export._torchscript import (  # noqa: E402
    register_symbolics,
    unregister_symbolics,
)

__all__ = [
    "add_fallback",
    "export",
    "fallback_function",
    "prepare",
    "register_symbolics",
    "translation_table",
    "unregister_symbolics",
]
