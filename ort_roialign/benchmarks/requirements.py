"""Which packages the benchmark needs, and which it can do without."""

from __future__ import annotations

from collections.abc import Iterable

from ort_roialign.cli.requirements import is_importable
from ort_roialign.errors import MissingDependencyError

INSTALL_COMMAND = "pip install '.[bench,cpu]'"

# Import name of a package -> what is left out without it.
OPTIONAL = {
    "torch": "training is not timed",
    "torchvision": "torchvision is not timed",
    "matplotlib": "no plots are drawn",
}
_REQUIRED = ("onnxruntime", "onnx")


def require_packages() -> None:
    """Check that what the benchmark cannot go without can be imported.

    Raises:
        MissingDependencyError: if a package is missing; names the command that installs it.
    """
    missing = missing_packages(_REQUIRED)
    if missing:
        raise MissingDependencyError(
            f"ort-roialign bench needs {', '.join(missing)}, not installed here. Install in the "
            f"directory of ort_roialign's sources:\n  {INSTALL_COMMAND}"
        )


def missing_packages(import_names: Iterable[str] = OPTIONAL) -> list[str]:
    """Return those packages that cannot be imported; by default of the optional ones."""
    return [name for name in import_names if not is_importable(name)]
