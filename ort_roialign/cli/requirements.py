"""Which optional packages a command needs, checked before it starts any work."""

from __future__ import annotations

import importlib
from collections.abc import Iterable

from ort_roialign.errors import MissingDependencyError

# Import name of a package -> (the name to install it by, the extra that brings it).
OPTIONAL_PACKAGES = {
    "onnxruntime": ("onnxruntime", "cpu"),
    "torch": ("torch", "export"),
    "torchvision": ("torchvision", "export"),
    "onnx": ("onnx", "export"),
    "onnxscript": ("onnxscript", "export"),
    "sklearn": ("scikit-learn", "export"),
    "onnx_ir": ("onnx_ir", "convert"),
    "scipy": ("scipy", "convert"),
    "matplotlib": ("matplotlib", "convert"),
}
DEMO = ("onnxruntime",)
EXPORT_DEMO = ("onnxruntime", "torch", "torchvision", "onnx", "onnxscript", "sklearn")
COMPARE = ("onnxruntime", "onnx", "onnx_ir", "scipy", "matplotlib")
EXPLAIN = ("matplotlib",)
EXPLAIN_MODEL = ("onnxruntime", "onnx")


def require_packages(command: str, import_names: Iterable[str]) -> None:
    """Check that optional packages can be imported.

    Args:
        command: what needs them, for the message.
        import_names: names of `OPTIONAL_PACKAGES`.

    Raises:
        MissingDependencyError: if one cannot be imported; names every missing package and the
            command that installs them.
    """
    missing = [name for name in import_names if not is_importable(name)]
    if not missing:
        return
    packages = ", ".join(OPTIONAL_PACKAGES[name][0] for name in missing)
    raise MissingDependencyError(
        f"{command} needs {packages}, not installed here. Install in the directory of "
        f"ort_roialign's sources:\n  {install_command(missing)}\nor the packages by themselves:\n"
        f"  pip install {' '.join(OPTIONAL_PACKAGES[name][0] for name in missing)}"
    )


def install_command(import_names: Iterable[str]) -> str:
    """Return the pip command, for the directory of the sources, that brings these packages."""
    extras = {OPTIONAL_PACKAGES[name][1] for name in import_names}
    text = f"pip install '.[{','.join(sorted(extras))}]'"
    # onnxruntime and onnxruntime-gpu exclude each other, so the GPU form is a choice, not an extra.
    return text + ("  (with an NVIDIA GPU: gpu in place of cpu)" if "cpu" in extras else "")


def is_importable(name: str) -> bool:
    """Return whether a module can be imported."""
    try:
        importlib.import_module(name)
    except ImportError:
        return False
    return True
