"""Errors of the package; all derive from `OrtRoiAlignError`."""


class OrtRoiAlignError(Exception):
    """Base of every error that this package raises on purpose."""


class LibraryNotFoundError(OrtRoiAlignError):
    """The shared library with the operators is missing from the installation."""


class MissingDependencyError(OrtRoiAlignError, ImportError):
    """A package that an optional feature needs is not installed; the text names the extra."""


class InvalidArgumentError(OrtRoiAlignError, ValueError):
    """An argument breaks an operator's contract; the text names operator and argument."""


class ExportError(OrtRoiAlignError):
    """A PyTorch module could not be exported to ONNX with this package's operators."""
