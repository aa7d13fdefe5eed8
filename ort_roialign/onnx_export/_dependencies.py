"""The optional packages of the export, checked before anything imports them."""

from __future__ import annotations

import importlib

from ort_roialign.errors import MissingDependencyError

_PACKAGES = ("torch", "torchvision", "onnx", "onnxscript")


def require_export_dependencies() -> None:
    """Import the packages that the export needs.

    Raises:
        MissingDependencyError: if one of them, or a package that it needs itself, is missing.
    """
    for package in _PACKAGES:
        try:
            importlib.import_module(package)
        except ModuleNotFoundError as error:
            raise MissingDependencyError(
                f"ort_roialign.onnx_export: requires {', '.join(_PACKAGES)}; "
                f"{error.name} is not installed; in the directory of ort_roialign's sources: "
                f"pip install '.[export]'"
            ) from error
