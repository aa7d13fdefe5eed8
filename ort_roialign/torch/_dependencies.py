"""The optional packages of `ort_roialign.torch`."""

from __future__ import annotations

from ort_roialign._dependencies import require_packages

_INSTALL = "pip install '.[export]'"


def require_torch() -> None:
    """Import PyTorch.

    Raises:
        MissingDependencyError: if it, or a package that it needs itself, is missing.
    """
    require_packages("ort_roialign.torch", ("torch",), _INSTALL)


def require_torchvision() -> None:
    """Import torchvision, which one module is derived from.

    Raises:
        MissingDependencyError: as `require_torch`.
    """
    require_packages("ort_roialign.torch.MultiScaleRoIAlign", ("torchvision",), _INSTALL)
