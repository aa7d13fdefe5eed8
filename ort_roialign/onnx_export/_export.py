"""One call from a PyTorch module to a checked ONNX file with this package's operators."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import onnx
import torch

from ort_roialign._domains import STANDARD_DOMAINS
from ort_roialign._new_files import check_place, new_file
from ort_roialign.errors import ExportError, InvalidArgumentError
from ort_roialign.onnx_export._detectors import (
    has_resizing_transform,
    kept_modes,
    prepare,
    resize_translations,
)
from ort_roialign.onnx_export._domain import ensure_domain_import
from ort_roialign.onnx_export._dynamo import translation_table
from ort_roialign.onnx_export._fallback import add_fallback
from ort_roialign.onnx_export._images import detector_call, takes_images
from ort_roialign.onnx_export._keypoints import add_keypoints_function
from ort_roialign.onnx_export._torchscript import registered_symbolics

# The dynamo exporter's translations are written for 18, and its conversion to less often fails.
_LOWEST_OPSET = {True: 18, False: 16}


def export(
    module: torch.nn.Module,
    args: tuple[Any, ...] | list[torch.Tensor] | torch.Tensor,
    path: str | os.PathLike[str],
    *,
    opset_version: int = 18,
    dynamo: bool = True,
    fallback: bool = True,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    dynamic_shapes: Mapping[str, Any] | Sequence[Any] | None = None,
    dynamic_axes: Mapping[str, Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    **exporter_options: Any,
) -> Path:
    """Export a module to an ONNX file whose RoI operators are those of `ort_roialign`.

    The file is written under its final name only once it is complete and `onnx.checker` has
    passed it. The module is not changed. Call its `eval()` before: the dynamo exporter exports the
    mode that the module is in.

    Args:
        module: the module; `roi_align`, `roi_pool`, `ps_roi_align` and `ps_roi_pool` of
            `torchvision.ops`, all of `ort_roialign.torch`, and the modules and detectors built on
            them are recognised.
        args: example positional inputs, as `torch.onnx.export` takes them. For a detector of
            torchvision also images of any size: a list of [3, H, W], each an input of its own
            ("image", or "image_0" and so on) of a size that may vary; or a tensor [N, 3, H, W],
            one input "images" for batches of any number and size, whose detections lie behind one
            another, with the output `image_indices` beside them. Outputs have the names of the
            detector's results ("boxes", or "boxes_0" and so on). Names and free sizes that are
            given go before these.
        path: the file to write; weights go into `<name>.data` beside it if they exceed 2 GB.
        opset_version: default-domain opset; at least 18 with `dynamo`, 16 without, and at most what
            the exporter writes. 18 is what both exporters support without a conversion.
        dynamo: whether to use the torch.export-based exporter, else the TorchScript one.
        fallback: whether to add functions so that the file also runs without the plugin.
        input_names: names of the graph's inputs, in order.
        output_names: names of the graph's outputs, in order.
        dynamic_shapes: sizes that may vary, as `torch.export` takes them; for `dynamo=True`.
        dynamic_axes: sizes that may vary, for `dynamo=False`: input or output name -> axis number
            -> name.
        kwargs: example keyword inputs.
        **exporter_options: passed on to `torch.onnx.export`; entries of a
            `custom_translation_table` go before this package's.

    Returns:
        `path`.

    Raises:
        InvalidArgumentError: if an argument does not go with the chosen exporter.
        ExportError: if the exporter fails, its own error being the cause; if its file is of another
            opset or does not pass `onnx.checker`; or if `fallback` and there can be no functions
            for it, see `add_fallback`.
    """
    path = Path(path)
    _check_arguments(opset_version, dynamo, dynamic_shapes, dynamic_axes)
    check_place(path, "export: path")
    name = type(module).__name__  # of what the caller knows
    defaults: Mapping[str, Any] = {}
    if takes_images(module, args):
        module, args, defaults = detector_call(module, args, dynamo=dynamo, input_names=input_names)
    args = (args,) if isinstance(args, torch.Tensor) else tuple(args)
    options = {
        "kwargs": dict(kwargs) if kwargs else None,
        "opset_version": opset_version,
        "dynamo": dynamo,
        "input_names": _first(input_names, defaults.get("input_names")),
        "output_names": _first(output_names, defaults.get("output_names")),
        **exporter_options,
    }
    if dynamo:
        resize = resize_translations() if has_resizing_transform(module) else {}
        given = options.get("custom_translation_table") or {}
        table = {**translation_table(), **resize, **given}
        shapes = _first(dynamic_shapes, defaults.get("dynamic_shapes"))
        options |= {"dynamic_shapes": shapes, "custom_translation_table": table}
        options.setdefault("external_data", False)
    else:
        options["dynamic_axes"] = _first(dynamic_axes, defaults.get("dynamic_axes"))
    with new_file(path) as unfinished:
        with kept_modes(module), prepare(module):
            _run_exporter(module, args, unfinished, options, name)
        _finish(unfinished, fallback, opset_version)
    return path


def _first(given: object, default: object) -> Any:
    """Return what is given, also where it is empty."""
    return default if given is None else given


def _check_arguments(
    opset_version: int, dynamo: bool, dynamic_shapes: object, dynamic_axes: object
) -> None:
    if opset_version < _LOWEST_OPSET[dynamo]:
        raise InvalidArgumentError(
            f"export: opset_version must be at least {_LOWEST_OPSET[dynamo]} with "
            f"dynamo={dynamo}; got {opset_version}"
        )
    if dynamo and dynamic_axes is not None:
        raise InvalidArgumentError(
            "export: dynamic_axes needs dynamo=False; dynamo=True takes dynamic_shapes"
        )
    if not dynamo and dynamic_shapes is not None:
        raise InvalidArgumentError(
            "export: dynamic_shapes needs dynamo=True; dynamo=False takes dynamic_axes"
        )


def _run_exporter(
    module: torch.nn.Module,
    args: tuple[Any, ...],
    path: Path,
    options: Mapping[str, Any],
    name: str,
) -> None:
    """Run PyTorch's exporter with this package's translations, leaving no trace of them."""
    dynamo = options["dynamo"]
    with ExitStack() as stack:
        if not dynamo:
            stack.enter_context(registered_symbolics(options["opset_version"]))
            # The caller chose this exporter: being told to choose the other one is noise.
            stack.enter_context(warnings.catch_warnings())
            warnings.filterwarnings(
                "ignore", message=".*legacy TorchScript-based ONNX export", category=Warning
            )
        try:
            if dynamo and options["dynamic_shapes"] and has_resizing_transform(module):
                program = _captured(module, args, options)
                torch.onnx.export(program, (), str(path), **{**options, "kwargs": None})
            else:
                torch.onnx.export(module, args, str(path), **options)
        # Exporters raise errors of many unrelated types, from torch, onnx and onnxscript.
        except Exception as error:
            raise ExportError(
                f"export: {name} could not be exported with dynamo={dynamo}: {_reason(error)}"
            ) from error


def _captured(
    module: torch.nn.Module, args: tuple[Any, ...], options: Mapping[str, Any]
) -> torch.export.ExportedProgram:
    """Trace a detector that resizes its images, ahead of the ONNX exporter.

    The exporter asks torch.export for deferred assertions. PyTorch 2.14 cannot write those on the
    quotients of a resize, and turns to strict tracing, which takes minutes instead of seconds.
    """
    shapes = torch.utils._pytree.tree_map(
        lambda dim: torch.export.Dim.DYNAMIC if isinstance(dim, str) else dim,
        options["dynamic_shapes"],
    )
    return torch.export.export(module, args, options["kwargs"], dynamic_shapes=shapes, strict=False)


def _reason(error: BaseException) -> str:
    """Return this package's own error where one lies under the exporter's, else the exporter's."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ExportError):
            return str(cause)
        cause = cause.__cause__ or cause.__context__
    first_line = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {first_line}"


def _finish(path: Path, fallback: bool, opset_version: int) -> None:
    """Add what the exporter leaves out, and check the file; external weights stay untouched."""
    model = onnx.load(path, load_external_data=False)
    written = [each.version for each in model.opset_import if each.domain in STANDARD_DOMAINS]
    if written not in ([], [opset_version]):
        # The dynamo exporter only warns where it cannot convert a file to another opset.
        raise ExportError(
            f"export: opset_version must be one that the exporter can write this module in; got "
            f"{opset_version}, and it wrote {written[0]}"
        )
    ensure_domain_import(model)
    add_keypoints_function(model)
    if fallback:
        add_fallback(model)
    onnx.save(model, path)
    try:
        onnx.checker.check_model(str(path))
    except onnx.checker.ValidationError as error:
        raise ExportError(f"export: the exported file is not valid: {error}") from error
