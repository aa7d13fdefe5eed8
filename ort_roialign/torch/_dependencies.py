"""The optional packages of `ort_roialign.torch`, checked before anything imports them."""

from __future__ import annotations

import importlib

from ort_roialign.errors import MissingDependencyError


def require_torch() -> None:
    """Import PyTorch.

    Raises:
        MissingDependencyError: if it, or a package that it needs itself, is missing.
    """
    _require("ort_roialign.torch", "torch")


def require_torchvision() -> None:
    """Import torchvision, which one module is derived from.

    Raises:
        MissingDependencyError: as `require_torch`.
    """
    _require("ort_roialign.torch.MultiScaleRoIAlign", "torchvision")


def _require(what: str, package: str) -> None:
    try:
        importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"{what}: requires {package}; {error.name} is not installed; in the directory of "
            f"ort_roialign's sources: pip install '.[export]'"
        ) from error
