"""Sessions of models before and after a conversion, on this package's kernels where needed."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir
import onnxruntime

import ort_roialign
from ort_roialign._domains import STANDARD_DOMAINS
from ort_roialign._library import build_info
from ort_roialign.convert._graph import all_nodes, graphs_of
from ort_roialign.errors import InvalidArgumentError

# What `register` takes for ONNX's operators that onnxruntime has kernels for, too.
_REPLACING = ("onnx-all", "onnx-10")


def foreign_domains(path: Path) -> list[str]:
    """Return what of `register`'s domains a file needs to run on this package's kernels."""
    model = ir.load(path)
    used = {node.op_identifier()[:2] for graph in graphs_of(model) for node in all_nodes(graph)}
    used -= {(domain, name) for domain, name, _ in model.functions}
    opset = max(model.opset_imports.get(domain, 1) for domain in STANDARD_DOMAINS)
    return [
        known["name"]
        for known in build_info()["domains"]
        if known["name"] not in _REPLACING and _uses(used, opset, known)
    ]


def _uses(used: set[tuple[str, str]], opset: int, known: Mapping[str, Any]) -> bool:
    """Whether operators among the used ones are of a domain, as `build_info` describes it."""
    operators = known["operators"]
    if known["domain"] not in STANDARD_DOMAINS:
        return any((known["domain"], each["name"]) in used for each in operators)
    names = {each["name"] for each in operators if opset >= each["since_version"]}
    return any(domain in STANDARD_DOMAINS and name in names for domain, name in used)


def make_session(path: Path, libraries: Sequence[str | os.PathLike[str]] = ()) -> Any:
    """Make a session on the CPU that knows this package's kernels, and what they stand in for.

    Args:
        path: the ONNX file.
        libraries: further libraries with custom operators.

    Raises:
        InvalidArgumentError: if onnxruntime cannot load a library.
    """
    domains = foreign_domains(path)
    if not libraries or not domains:
        return _session(path, libraries, domains)
    # A library may have the operators of these domains, and onnxruntime takes a domain once.
    try:
        return _session(path, libraries, [])
    except Exception as error:  # onnxruntime's errors have no common class
        try:
            return _session(path, libraries, domains)
        except Exception:
            raise error from None


def _session(
    path: Path, libraries: Sequence[str | os.PathLike[str]], domains: Sequence[str]
) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    register_libraries(options, libraries)
    providers = ["CPUExecutionProvider"]
    return ort_roialign.InferenceSession(path, providers, options, domains=domains)


def register_libraries(options: Any, libraries: Sequence[str | os.PathLike[str]]) -> None:
    """Add libraries with custom operators to session options.

    Raises:
        InvalidArgumentError: if onnxruntime cannot load one.
    """
    for library in libraries:
        try:
            # A name without a directory would be looked for elsewhere.
            options.register_custom_ops_library(os.path.abspath(library))
        except Exception as error:  # onnxruntime's errors have no common class
            raise InvalidArgumentError(
                f"libraries must be such that onnxruntime can load their custom operators; got "
                f"{os.fspath(library)}: {error}"
            ) from error
