"""The optional packages of the conversion, checked before anything imports them."""

from __future__ import annotations

import importlib

from ort_roialign.errors import MissingDependencyError

_PACKAGES = ("onnx", "onnx_ir", "onnxruntime")


def require_convert_dependencies() -> None:
    """Import the packages that the conversion needs.

    Raises:
        MissingDependencyError: if one of them, or a package that it needs itself, is missing.
    """
    for package in _PACKAGES:
        try:
            importlib.import_module(package)
        except ModuleNotFoundError as error:
            raise MissingDependencyError(
                f"ort_roialign.convert: requires {', '.join(_PACKAGES)}; {error.name} is not "
                f"installed; in the directory of ort_roialign's sources: "
                f"pip install '.[cpu,convert]'  (with an NVIDIA GPU: gpu in place of cpu)"
            ) from error
