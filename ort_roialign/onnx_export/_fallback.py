"""Functions that let a file run without the plugin: each operator in standard ONNX operators.

With the plugin, onnxruntime takes the kernel; without it, onnxruntime inlines the function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import onnx

from ort_roialign import reference
from ort_roialign.errors import InvalidArgumentError
from ort_roialign.onnx_export._domain import DOMAIN, ensure_domain_import
from ort_roialign.onnx_export._functions import FUNCTIONS
from ort_roialign.onnx_export._functions._text import parse

# What checks the attributes of each operator that has a function.
_REFERENCES: dict[str, Callable[..., object]] = {
    "RoiAlign": reference.roi_align,
    "RoiPool": reference.roi_pool,
}

# The functions use CastLike (15) and coordinate_transformation_mode of RoiAlign (16).
_LOWEST_OPSET = 16
# Functions inside a model exist since this version of the file format.
_LOWEST_IR_VERSION = 8


def fallback_function(name: str, opset_version: int = 18) -> onnx.FunctionProto:
    """Return an operator of the domain `ort_roialign` as a function of standard ONNX operators.

    The function gives the kernel's results, up to the last digits, for every attribute value, in
    float32 and float64, and for float16 and bfloat16 maps with float32 boxes. float16 boxes lose
    precision in it: standard operators cannot widen float16 and leave float64 alone. Its cost grows
    with the RoI where an adaptive grid does. A batch index out of range fails with the text of a
    standard operator, and a box that is not finite is not refused.

    Args:
        name: operator name without its domain, such as "RoiAlign".
        opset_version: version of the default domain that the model which will hold the function
            imports; at least 16. onnxruntime inlines a function at its model's version, so the
            body has to be made for that version.

    Returns:
        The function; the model needs an import of the domain `ort_roialign` too.

    Raises:
        InvalidArgumentError: if the operator has no function, or the opset is too low.
    """
    if name not in FUNCTIONS:
        raise InvalidArgumentError(
            f"fallback_function: name must be one of {sorted(FUNCTIONS)}; got {name!r}"
        )
    if opset_version < _LOWEST_OPSET:
        raise InvalidArgumentError(
            f"fallback_function: opset_version must be at least {_LOWEST_OPSET}; "
            f"got {opset_version}"
        )
    return parse(FUNCTIONS[name](opset_version))


def add_fallback(model: onnx.ModelProto) -> onnx.ModelProto:
    """Add to a model the function of each of this package's operators that it uses, in place.

    Operators whose function the model already holds, or that have no function, are left alone. A
    node that leaves out an optional output gets an empty name for it.
    Functions have to be added after all optimisation: optimisers inline them.

    Args:
        model: the model; changed in place.

    Returns:
        The same model.

    Raises:
        InvalidArgumentError: if the model imports a default-domain opset below 16, or a node has
            an attribute that the operator refuses.
    """
    present = {function.name for function in model.functions if function.domain == DOMAIN}
    bodies = [model.graph.node, *(function.node for function in model.functions)]
    used = [node for body in bodies for node in _all_nodes(body) if node.domain == DOMAIN]
    missing = sorted(({node.op_type for node in used} - present) & FUNCTIONS.keys())
    if not missing:
        return model
    opset = _default_opset(model)
    for node in used:
        if node.op_type in missing:
            _check_attributes(node)
    functions = {name: fallback_function(name, opset) for name in missing}
    model.functions.extend(functions.values())
    for node in used:
        if node.op_type in functions:
            _write_out_omitted_outputs(node, functions[node.op_type])
    model.ir_version = max(model.ir_version, _LOWEST_IR_VERSION)
    ensure_domain_import(model)
    return model


def _write_out_omitted_outputs(node: onnx.NodeProto, function: onnx.FunctionProto) -> None:
    """Give a node an empty name for each optional output it leaves out.

    It means the same, but onnxruntime rejects a function with more outputs than its node lists.
    """
    node.output.extend([""] * (len(function.output) - len(node.output)))


def _check_attributes(node: onnx.NodeProto) -> None:
    """Raise the error that a kernel would raise: standard operators cannot refuse an attribute."""
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    attributes = {
        name: value.decode() if isinstance(value, bytes) else value
        for name, value in attributes.items()
    }
    no_map = np.zeros((0, 1, 1, 1), np.float32)
    no_rois = np.zeros((0, 4), np.float32)
    _REFERENCES[node.op_type](no_map, no_rois, np.zeros(0, np.int64), **attributes)


def _default_opset(model: onnx.ModelProto) -> int:
    versions: list[int] = [
        entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")
    ]
    if not versions or versions[0] < _LOWEST_OPSET:
        raise InvalidArgumentError(
            f"add_fallback: model must import the default domain at opset {_LOWEST_OPSET} or "
            f"later; got {versions[0] if versions else 'no import'}"
        )
    return versions[0]


def _all_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Yield nodes and those of their subgraphs."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            subgraphs = [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]
            for graph in subgraphs:
                yield from _all_nodes(graph.node)
