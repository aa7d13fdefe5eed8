"""What is installed: the library, its operators and kernels, and onnxruntime."""

from __future__ import annotations

import os
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

import ort_roialign
from ort_roialign._library import OLDEST_ONNXRUNTIME, supported_onnxruntime
from ort_roialign.cli.requirements import install_command


def collect_info() -> dict[str, Any]:
    """Collect what is known about the installation.

    Returns:
        `package_version`; `library_path`; `library`: what the shared library says of itself, see
        `ort_roialign.build_info`; `cpu_state`: which CPU kernels run, see
        `ort_roialign.cpu_state`; `onnxruntime`: `installed`, and if so `version`, `supported` and
        `providers`.

    Raises:
        LibraryNotFoundError: if the shared library is missing.
        OrtRoiAlignError: if the shared library cannot be read.
        InvalidArgumentError: if the environment forces CPU kernels that are not there.
    """
    return {
        "package_version": ort_roialign.__version__,
        "library_path": ort_roialign.get_library_path(),
        "library": ort_roialign.build_info(),
        "cpu_state": ort_roialign.cpu_state(),
        "onnxruntime": _onnxruntime_info(),
    }


def _onnxruntime_info() -> dict[str, Any]:
    try:
        import onnxruntime
    except ImportError:
        return {"installed": False}
    version = str(onnxruntime.__version__)
    return {
        "installed": True,
        "version": version,
        "supported": supported_onnxruntime(version),
        "providers": list(onnxruntime.get_available_providers()),
    }


def print_info(facts: dict[str, Any], console: Console) -> None:
    """Print what `collect_info` returned as tables."""
    library = facts["library"]
    console.print(_installation_table(facts))
    console.print(_operator_table(library["operators"]))


def _installation_table(facts: dict[str, Any]) -> Table:
    library = facts["library"]
    table = Table(title="ort_roialign", show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("Package", facts["package_version"])
    table.add_row("Library", escape(facts["library_path"]))
    table.add_row("Library version", library["version"])
    table.add_row("onnxruntime", _onnxruntime_text(facts["onnxruntime"]))
    table.add_row("Providers", ", ".join(facts["onnxruntime"].get("providers", [])) or "-")
    table.add_row("Built for", f"onnxruntime's C API up to version {library['ort_api_version']}")
    table.add_row("CPU features", ", ".join(library["cpu_features"]) or "none beyond the baseline")
    table.add_row("CPU kernels", _cpu_text(library, facts["cpu_state"]))
    table.add_row("Other domains", ", ".join(domain["name"] for domain in library["domains"]))
    table.add_row("CUDA kernels", _cuda_text(library, facts["onnxruntime"]))
    return table


def _onnxruntime_text(onnxruntime: dict[str, Any]) -> str:
    oldest = ".".join(map(str, OLDEST_ONNXRUNTIME))
    if not onnxruntime["installed"]:
        command = install_command(["onnxruntime"])
        return escape(
            f"not installed; install it in the directory of ort_roialign's sources: {command}"
        )
    if not onnxruntime["supported"]:
        return f"[red]{onnxruntime['version']}: too old, at least {oldest} is needed[/]"
    return f"{onnxruntime['version']} (supported; at least {oldest} is needed)"


def _cpu_text(library: dict[str, Any], state: dict[str, Any]) -> str:
    text = f"{state['isa']}, of {', '.join(library['cpu_isas'])}"
    if os.environ.get("ORT_ROIALIGN_FORCE_ISA"):
        text += "; forced by the environment"
    if state["path"]:
        text += f"; path {state['path']} is forced by the environment"
    return text


def _cuda_text(library: dict[str, Any], onnxruntime: dict[str, Any]) -> str:
    if not library["cuda"]:
        return "CPU only: built without CUDA kernels"
    architectures = ", ".join(library["cuda_architectures"])
    text = f"yes, CUDA {library['cuda_version']}, architectures {architectures}"
    if onnxruntime["installed"] and "CUDAExecutionProvider" not in onnxruntime["providers"]:
        text += "; this onnxruntime cannot use them: install onnxruntime-gpu in its place"
    return text


def _operator_table(operators: list[dict[str, Any]]) -> Table:
    table = Table(title="Operators of the domain ort_roialign, version 1")
    for heading in ("Operator", "Inputs", "Outputs", "Types", "Providers"):
        table.add_column(heading, overflow="fold")
    for operator in operators:
        table.add_row(
            operator["name"],
            ", ".join(operator["inputs"]),
            ", ".join(operator["outputs"]),
            ", ".join(operator["types"]),
            ", ".join(p.removesuffix("ExecutionProvider") for p in operator["providers"]),
        )
    return table
