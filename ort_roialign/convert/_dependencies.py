"""The optional packages of the conversion."""

from __future__ import annotations

from ort_roialign._dependencies import require_packages


def require_convert_dependencies() -> None:
    """Import the packages that the conversion needs.

    Raises:
        MissingDependencyError: if one of them, or a package that it needs itself, is missing.
    """
    install = "pip install '.[cpu,convert]'  (with an NVIDIA GPU: gpu in place of cpu)"
    require_packages("ort_roialign.convert", ("onnx", "onnx_ir", "onnxruntime"), install)
