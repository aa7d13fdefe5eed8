"""Converts a file to a file. What does not load is never left behind."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import onnxruntime

import ort_roialign
from ort_roialign._library import build_info
from ort_roialign.convert._convert import convert_in_place, hold
from ort_roialign.convert._graph import STANDARD_DOMAINS, all_nodes
from ort_roialign.convert._report import ConversionReport
from ort_roialign.errors import InvalidArgumentError, OrtRoiAlignError

# Protobuf's limit is 2^31 bytes; the graph needs some of them.
_MOST_BYTES_INSIDE = 1_900_000_000
# What `register` takes for ONNX's operators that onnxruntime has kernels for, too.
_REPLACING = ("onnx-all", "onnx-10")


def convert_file(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    fold_shift: bool = True,
    fallback: bool = False,
    libraries: Sequence[str | os.PathLike[str]] = (),
) -> ConversionReport:
    """Convert an ONNX file as `convert` converts a model, of any size.

    The new file appears when it is finished and onnxruntime has loaded it; until then it lies in a
    directory of its own beside its place. Where the source's weights are in other files, or too
    many for one file, the new ones go into `target` + ".data". If there is nothing to convert, no
    file is written.

    Args:
        source: the file to convert.
        target: the file to write; replaced if it is there, and never one of the source's files.
        fold_shift: as `convert` has it.
        fallback: whether to add functions of standard operators, so that the file also runs without
            the plugin; needs the extra `export`.
        libraries: custom-operator libraries that other nodes of the model need.

    Returns:
        What was done.

    Raises:
        InvalidArgumentError: if the source is no ONNX file or lacks its weights, or the target is
            one of the source's files or in no directory.
        OrtRoiAlignError: if the converted file is not valid or onnxruntime cannot load it.
        MissingDependencyError: if `fallback` lacks PyTorch.
        LibraryNotFoundError: if the plugin's library is missing.
    """
    source, target = Path(source), Path(target)
    model = _load(source)
    _check_target(model, source, target)
    report = convert_in_place(model, fold_shift)
    if not report.converted:
        return report
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as directory:
        unfinished = Path(directory) / target.name
        data = f"{target.name}.data" if _needs_data_file(model) else None
        ir.save(model, unfinished, format="protobuf", external_data=data)
        if fallback:
            _add_fallback(unfinished)
        _check(source, unfinished, libraries)
        # The weights come first: the model that names them is never there without them.
        for path in sorted(Path(directory).iterdir(), key=lambda each: each == unfinished):
            os.replace(path, target.parent / path.name)
    return report


def foreign_domains(path: Path) -> list[str]:
    """Return what of `register`'s domains a file needs to run on this package's kernels."""
    model = ir.load(path)
    graphs = [model.graph, *(function.graph for function in model.functions.values())]
    used = {each.op_identifier()[:2] for graph in graphs for each in all_nodes(graph)}
    opset = max(model.opset_imports.get(domain, 1) for domain in STANDARD_DOMAINS)
    found = []
    for known in build_info()["domains"]:
        is_standard = known["domain"] in STANDARD_DOMAINS
        names = STANDARD_DOMAINS if is_standard else (known["domain"],)
        if known["name"] not in _REPLACING and any(
            (name, operator["name"]) in used
            and (not is_standard or opset >= operator["since_version"])
            for name in names
            for operator in known["operators"]
        ):
            found.append(known["name"])
    return found


def make_session(path: Path, libraries: Sequence[str | os.PathLike[str]] = ()) -> Any:
    """Make a session on the CPU that knows this package's kernels, and what they stand in for."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    for library in libraries:
        options.register_custom_ops_library(os.fspath(library))
    providers = ["CPUExecutionProvider"]
    domains = foreign_domains(path)
    return ort_roialign.InferenceSession(path, providers, options, domains=domains)


def _load(source: Path) -> ir.Model:
    if not source.is_file():
        raise InvalidArgumentError(f"convert_file: source must be an ONNX file; got {source}")
    try:
        proto = onnx.load(source, format="protobuf", load_external_data=False)
    except Exception as error:  # of many kinds, protobuf's among them
        raise InvalidArgumentError(
            f"convert_file: source must be an ONNX file; {source} cannot be read: {error}"
        ) from error
    model = hold(proto)
    ir.external_data.set_base_dir(model.graph, source.parent)
    for tensor in _external_tensors(model):
        if not Path(tensor.path).is_file():
            raise InvalidArgumentError(
                f"convert_file: source must have its weights beside it; {tensor.path} of "
                f"{source} is missing"
            )
    return model


def _check_target(model: ir.Model, source: Path, target: Path) -> None:
    """Refuse to write over the source or the weights beside it, also where a link names them."""
    if not target.parent.is_dir():
        raise InvalidArgumentError(
            f"convert_file: target must be in a directory that exists; got {target}"
        )
    written = [target, target.with_name(f"{target.name}.data")]
    read = [source, *(Path(tensor.path) for tensor in _external_tensors(model))]
    for new in written:
        for old in dict.fromkeys(read):
            if new.exists() and old.exists() and new.samefile(old):
                raise InvalidArgumentError(
                    f"convert_file: target must not be one of the source's files; writing {target} "
                    f"would replace {old}"
                )


def _tensors(model: ir.Model) -> Iterator[ir.TensorProtocol]:
    for graph in model.graphs():
        for value in graph.initializers.values():
            if value.const_value is not None:
                yield value.const_value


def _external_tensors(model: ir.Model) -> list[ir.ExternalTensor]:
    return [each for each in _tensors(model) if isinstance(each, ir.ExternalTensor)]


def _needs_data_file(model: ir.Model) -> bool:
    return bool(_external_tensors(model)) or (
        sum(tensor.nbytes for tensor in _tensors(model)) > _MOST_BYTES_INSIDE
    )


def _add_fallback(path: Path) -> None:
    from ort_roialign.onnx_export import add_fallback

    model = onnx.load(path, load_external_data=False)
    onnx.save(add_fallback(model), path)


def _check(source: Path, path: Path, libraries: Sequence[str | os.PathLike[str]]) -> None:
    """Check that the file is valid, unless the source is not valid either, and that it loads."""
    problem = _problem(path)
    if problem is not None and _problem(source) is None:
        raise OrtRoiAlignError(f"convert_file: the converted model is not valid: {problem}")
    try:
        make_session(path, libraries)
    except ort_roialign.LibraryNotFoundError:
        raise
    except Exception as error:  # onnxruntime's errors have no common class
        raise OrtRoiAlignError(
            f"convert_file: onnxruntime cannot load the converted model, so it was not written: "
            f"{error}"
        ) from error


def _problem(path: Path) -> str | None:
    """Return what onnx's checker says against a file."""
    try:
        onnx.checker.check_model(os.fspath(path))
    except onnx.checker.ValidationError as error:
        return str(error)
    return None
