"""The optional packages of the export."""

from __future__ import annotations

from ort_roialign._dependencies import require_packages


def require_export_dependencies() -> None:
    """Import the packages that the export needs.

    Raises:
        MissingDependencyError: if one of them, or a package that it needs itself, is missing.
    """
    packages = ("torch", "torchvision", "onnx", "onnxscript")
    require_packages("ort_roialign.onnx_export", packages, "pip install '.[export]'")
