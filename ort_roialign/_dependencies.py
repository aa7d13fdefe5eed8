"""Optional packages, checked before anything imports them."""

from __future__ import annotations

import importlib
from collections.abc import Iterable

from ort_roialign.errors import MissingDependencyError


def require_packages(what: str, packages: Iterable[str], install: str) -> None:
    """Import packages.

    Args:
        what: the part of this package that needs them, for the message.
        packages: import names.
        install: the command that brings them, for the directory of the sources.

    Raises:
        MissingDependencyError: if one of them, or a package that it needs itself, is missing.
    """
    packages = tuple(packages)
    for package in packages:
        try:
            importlib.import_module(package)
        except ModuleNotFoundError as error:
            raise MissingDependencyError(
                f"{what}: requires {', '.join(packages)}; {error.name} is not installed; in the "
                f"directory of ort_roialign's sources: {install}"
            ) from error
