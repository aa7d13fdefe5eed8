"""RoIAlign and its family as an ONNX Runtime custom-operator plugin."""

from importlib.metadata import PackageNotFoundError as _PackageNotFoundError
from importlib.metadata import version as _version

from ort_roialign import errors, ops, reference
from ort_roialign._library import (
    InferenceSession,
    build_info,
    cpu_state,
    get_library_path,
    register,
)
from ort_roialign.errors import (
    ExportError,
    InvalidArgumentError,
    LibraryNotFoundError,
    MissingDependencyError,
    OrtRoiAlignError,
)

try:
    __version__ = _version("ort_roialign")
except _PackageNotFoundError:  # sources that are not installed: the library is missing too
    __version__ = "0+not.installed"

__all__ = [
    "ExportError",
    "InferenceSession",
    "InvalidArgumentError",
    "LibraryNotFoundError",
    "MissingDependencyError",
    "OrtRoiAlignError",
    "__version__",
    "build_info",
    "cpu_state",
    "errors",
    "get_library_path",
    "ops",
    "reference",
    "register",
]
