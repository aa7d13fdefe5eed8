"""Converts a file to a file. What does not load is never left behind."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import onnx
import onnx_ir as ir

import ort_roialign
from ort_roialign._new_files import check_place, new_file
from ort_roialign.convert._convert import convert_in_place, hold
from ort_roialign.convert._graph import all_nodes, graphs_of
from ort_roialign.convert._report import ConversionReport
from ort_roialign.convert._sessions import make_session
from ort_roialign.errors import InvalidArgumentError, OrtRoiAlignError

# Protobuf's limit is 2^31 bytes; the graph needs some of them.
_MOST_BYTES_INSIDE = 1_900_000_000


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
            one of the source's files, a directory or in none, or a library cannot be loaded.
        OrtRoiAlignError: if the converted file is not valid or onnxruntime cannot load it.
        MissingDependencyError: if `fallback` lacks PyTorch.
        LibraryNotFoundError: if the plugin's library is missing.
    """
    source, target = Path(source), Path(target)
    model, weights = _load(source)
    _check_target([source, *weights], target)
    report = convert_in_place(model, fold_shift)
    if not report.converted:
        return report
    with new_file(target) as unfinished:
        data = f"{target.name}.data" if _needs_data_file(model) else None
        try:
            ir.save(model, unfinished, format="protobuf", external_data=data)
        except ValueError as error:  # such as a weights file that has two names
            raise OrtRoiAlignError(
                f"convert_file: the weights of {source} cannot be written again: {error}"
            ) from error
        if fallback:
            _add_fallback(unfinished)
        _check(source, unfinished, libraries)
    return report


def _load(source: Path) -> tuple[ir.Model, list[Path]]:
    """Read a model; return it, and the files that its weights are in."""
    if not source.is_file():
        raise InvalidArgumentError(f"convert_file: source must be an ONNX file; got {source}")
    try:
        proto = onnx.load(source, format="protobuf", load_external_data=False)
    except Exception as error:  # of many kinds, protobuf's among them
        raise InvalidArgumentError(
            f"convert_file: source must be an ONNX file; {source} cannot be read: {error}"
        ) from error
    model = hold(proto)
    files: dict[Path, None] = {}

    def found(tensor: ir.ExternalTensor) -> ir.ExternalTensor:
        path = source.parent / tensor.location
        if not path.is_file():
            raise InvalidArgumentError(
                f"convert_file: source must have its weights beside it; {path} of {source} is "
                f"missing"
            )
        files[path] = None
        return _where_it_is(tensor, path, source)

    for graph in graphs_of(model):
        nodes = all_nodes(graph)
        for each in {graph, *(node.graph for node in nodes if node.graph is not None)}:
            for value in each.initializers.values():
                if isinstance(value.const_value, ir.ExternalTensor):
                    value.const_value = found(value.const_value)
        for node in nodes:
            for name, given in list(node.attributes.items()):
                # Only initializers are written to a file again.
                if not given.is_ref() and isinstance(given.value, ir.ExternalTensor):
                    tensor = found(given.value)
                    held = ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=tensor.name)
                    node.attributes.add(ir.AttrTensor(name, held))
    return model, list(files)


def _where_it_is(tensor: ir.ExternalTensor, path: Path, source: Path) -> ir.ExternalTensor:
    """Return a tensor at the end of the links that its file is behind, as download caches have it.

    onnx_ir does not follow links out of a directory: a model must not choose any file it likes. A
    link beside the model is the user's own.
    """
    location = Path(os.path.normpath(tensor.location))
    if location.is_absolute() or location.parts[0] == os.pardir:
        raise InvalidArgumentError(
            f"convert_file: source must have its weights in its directory; {source} names "
            f"{tensor.location}"
        )
    real = path.resolve()
    return ir.ExternalTensor(
        real.name,
        tensor.offset,
        tensor.length,
        tensor.dtype,
        shape=tensor.shape,
        name=tensor.name,
        doc_string=tensor.doc_string,
        metadata_props=dict(tensor.metadata_props),
        base_dir=real.parent,
    )


def _check_target(read: Sequence[Path], target: Path) -> None:
    """Refuse to write over the source or the weights beside it, also where a link names them."""
    check_place(target, "convert_file: target")
    for new in (target, target.with_name(f"{target.name}.data")):
        for old in read:
            if new.exists() and old.exists() and new.samefile(old):
                raise InvalidArgumentError(
                    f"convert_file: target must not be one of the source's files; writing {target} "
                    f"would replace {old}"
                )


def _needs_data_file(model: ir.Model) -> bool:
    tensors = [
        value.const_value
        for graph in model.graphs()
        for value in graph.initializers.values()
        if value.const_value is not None
    ]
    return (
        any(isinstance(tensor, ir.ExternalTensor) for tensor in tensors)
        or sum(tensor.nbytes for tensor in tensors) > _MOST_BYTES_INSIDE
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
    error = _load_error(path, libraries)
    if error is not None:
        alone = _load_error(source, libraries) is None
        what = "cannot load the converted model" if alone else "can load neither model"
        raise OrtRoiAlignError(
            f"convert_file: onnxruntime {what}, so it was not written: {error}"
        ) from error


def _load_error(path: Path, libraries: Sequence[str | os.PathLike[str]]) -> Exception | None:
    """Return what onnxruntime says against a file."""
    try:
        make_session(path, libraries)
    except (ort_roialign.LibraryNotFoundError, InvalidArgumentError):
        raise
    except Exception as error:  # onnxruntime's errors have no common class
        return error
    return None


def _problem(path: Path) -> str | None:
    """Return what onnx's checker says against a file."""
    try:
        onnx.checker.check_model(os.fspath(path))
    except onnx.checker.ValidationError as error:
        return str(error)
    return None
