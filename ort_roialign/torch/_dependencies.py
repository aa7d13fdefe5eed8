"""The optional package of `ort_roialign.torch`, checked before anything imports it."""

from __future__ import annotations

import importlib

from ort_roialign.errors import MissingDependencyError


def require_torch() -> None:
    """Import PyTorch.

    Raises:
        MissingDependencyError: if it, or a package that it needs itself, is missing.
    """
    try:
        importlib.import_module("torch")
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"ort_roialign.torch: requires torch; {error.name} is not installed; in the directory "
            f"of ort_roialign's sources: pip install '.[export]'"
        ) from error
