"""Functions that let a file run without the plugin: each operator in standard ONNX operators.

With the plugin, onnxruntime takes the kernel; without it, onnxruntime inlines the function.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from ort_roialign import reference
from ort_roialign._domains import DOMAIN, STANDARD_DOMAINS
from ort_roialign._signatures import SIGNATURES, Default, Signature
from ort_roialign.errors import ExportError, InvalidArgumentError
from ort_roialign.onnx_export._domain import (
    ensure_domain_import,
)
from ort_roialign.onnx_export._functions import FUNCTIONS
from ort_roialign.onnx_export._functions._text import parse
from ort_roialign.onnx_export._keypoints import add_keypoints_function

# What checks the attributes of each operator that has a function.
_REFERENCES: dict[str, Callable[..., object]] = {
    name: getattr(reference, signature.function_name) for name, signature in SIGNATURES.items()
}

# How ONNX names the type of an attribute with a default of some type.
_ATTRIBUTE_TYPES: dict[type, tuple[str, int]] = {
    int: ("an integer", onnx.AttributeProto.INT),
    type(None): ("an integer", onnx.AttributeProto.INT),
    float: ("a float", onnx.AttributeProto.FLOAT),
    type: ("a float", onnx.AttributeProto.FLOAT),
    str: ("a string", onnx.AttributeProto.STRING),
    tuple: ("a list of floats", onnx.AttributeProto.FLOATS),
}

# The functions use CastLike (15) and coordinate_transformation_mode of RoiAlign (16).
_LOWEST_OPSET = 16
# Functions inside a model exist since this version of the file format.
_LOWEST_IR_VERSION = 8


def fallback_function(
    name: str,
    opset_version: int = 18,
    *,
    num_inputs: int | None = None,
    attributes: Collection[str] = (),
) -> onnx.FunctionProto:
    """Return an operator of the domain `ort_roialign` as a function of standard ONNX operators.

    The function gives the kernel's results, up to the last digits, for every attribute value, in
    float32 and float64, and for float16 and bfloat16 maps with float32 boxes. float16 boxes lose
    precision in it: standard operators cannot widen float16 and leave float64 alone. Its cost grows
    with the RoI where an adaptive grid does. A batch index out of range fails with the text of a
    standard operator, and a box that is not finite is not refused.

    The functions of MultiScaleRoiAlign and MultiScaleRoiAlignRotated call RoiAlign and
    RoiAlignRotated, whose functions the model needs too.

    Args:
        name: operator name without its domain, such as "RoiAlign".
        opset_version: version of the default domain that the model which will hold the function
            imports; at least 16. onnxruntime inlines a function at its model's version, so the
            body has to be made for that version.
        num_inputs: how many inputs the nodes have that will call the function; by default all that
            the operator has, and one map for an operator with a list of them.
        attributes: names of the nodes' attributes. It matters for `threshold` of PasteMasks, with
            which the output is of another type.

    Returns:
        The function; the model needs an import of the domain `ort_roialign` too.

    Raises:
        InvalidArgumentError: if the operator has no function, the opset is too low, or the operator
            cannot have so many inputs.
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
    signature, function = SIGNATURES[name], FUNCTIONS[name]
    count = len(signature.inputs) if num_inputs is None else num_inputs
    _check_num_inputs(signature, count)
    text = function.text
    if function.text_with_option is not None and function.option in attributes:
        text = function.text_with_option
    return parse(text(opset_version, count))


def add_fallback(model: onnx.ModelProto) -> onnx.ModelProto:
    """Add to a model the function of each of this package's operators that it uses, in place.

    Operators whose function the model already holds, or that have no function, are left alone. A
    node that leaves out an optional output gets an empty name for it, and one that has an empty
    name for an input at its end loses that. Functions have to be added after all optimisation:
    optimisers inline them.

    Args:
        model: the model; changed in place.

    Returns:
        The same model.

    Raises:
        InvalidArgumentError: if the model imports a default-domain opset below 16, or a node has
            an attribute or a number of inputs that the operator refuses.
        ExportError: if nodes of one operator have different numbers of inputs, or some nodes of
            PasteMasks a threshold and others not: a model can hold one function of a name.
    """
    add_keypoints_function(model)
    present = {function.name for function in model.functions if function.domain == DOMAIN}
    bodies = [model.graph.node, *(function.node for function in model.functions)]
    used = [node for body in bodies for node in _all_nodes(body) if node.domain == DOMAIN]
    missing = ({node.op_type for node in used} - present) & FUNCTIONS.keys()
    if not missing:
        return model
    opset = _default_opset(model)
    callers = [node for node in used if node.op_type in missing]
    for node in callers:
        _drop_empty_inputs_at_end(node)
    num_inputs = _numbers_of_inputs(callers)
    options = _options(callers)
    for node in callers:
        _check_attributes(node)
    called = {name for caller in missing for name in FUNCTIONS[caller].calls}
    functions = {
        name: fallback_function(
            name, opset, num_inputs=num_inputs.get(name), attributes=options.get(name, ())
        )
        for name in sorted(missing | (called - present))
    }
    model.functions.extend(functions.values())
    for node in callers:
        _write_out_omitted_outputs(node, functions[node.op_type])
    model.ir_version = max(model.ir_version, _LOWEST_IR_VERSION)
    ensure_domain_import(model)
    return model


def _drop_empty_inputs_at_end(node: onnx.NodeProto) -> None:
    """Leave out what is left out by an empty name; it means the same."""
    while node.input and not node.input[-1]:
        del node.input[-1]


def _numbers_of_inputs(nodes: Iterable[onnx.NodeProto]) -> dict[str, int]:
    """Return how many inputs the nodes of each operator have."""
    numbers: dict[str, int] = {}
    for node in nodes:
        name, count = node.op_type, len(node.input)
        _check_num_inputs(SIGNATURES[name], count)
        if numbers.setdefault(name, count) != count:
            raise ExportError(
                f"add_fallback: all nodes of {name} must have the same number of inputs, because "
                f"a model can hold one function of that name; got {numbers[name]} and {count}; "
                f"without functions (fallback=False) the model runs on the plugin"
            )
    return numbers


def _options(nodes: Iterable[onnx.NodeProto]) -> dict[str, tuple[str, ...]]:
    """Return the option of each operator's nodes, if they have it: all of them or none."""
    options: dict[str, tuple[str, ...]] = {}
    for node in nodes:
        name, option = node.op_type, FUNCTIONS[node.op_type].option
        given = tuple(each.name for each in node.attribute if each.name == option)
        if options.setdefault(name, given) != given:
            raise ExportError(
                f"add_fallback: all nodes of {name} must have attribute {option}, or none, because "
                f"a model can hold one function of that name; got both; without functions "
                f"(fallback=False) the model runs on the plugin"
            )
    return options


def _check_num_inputs(signature: Signature, count: int) -> None:
    least = len(signature.inputs) - len(signature.optional_inputs)
    most = None if signature.variadic else len(signature.inputs)
    if count < least or (most is not None and count > most):
        allowed = f"at least {least}" if most is None else f"{least} to {most}"
        allowed = str(most) if least == most else allowed
        raise InvalidArgumentError(f"{signature.name}: inputs must be {allowed}; got {count}")


def _write_out_omitted_outputs(node: onnx.NodeProto, function: onnx.FunctionProto) -> None:
    """Give a node an empty name for each optional output it leaves out.

    It means the same, but onnxruntime rejects a function with more outputs than its node lists.
    """
    node.output.extend([""] * (len(function.output) - len(node.output)))


def _check_attributes(node: onnx.NodeProto) -> None:
    """Raise the error that a kernel would raise: standard operators cannot refuse an attribute."""
    signature = SIGNATURES[node.op_type]
    attributes = {
        attribute.name: _value_of(node.op_type, attribute, signature.attributes[attribute.name])
        for attribute in node.attribute
        if attribute.name in signature.attributes  # onnxruntime ignores any other one
    }
    num_maps = len(node.input) - len(signature.inputs) + 1 if signature.variadic else 1
    columns = 5 if "angle_unit" in signature.attributes else 4
    inputs: list[npt.NDArray[np.float32] | npt.NDArray[np.int64]] = []
    for name in signature.inputs:
        if name == "X":
            inputs += [np.zeros((0, 0, 1, 1), np.float32)] * num_maps
        elif name == "rois":
            inputs.append(np.zeros((0, columns), np.float32))
        elif name == "batch_indices":
            inputs.append(np.zeros(0, np.int64))
        elif name == "masks":
            inputs.append(np.zeros((0, 1, 1, 1), np.float32))
        elif name == "boxes":
            inputs.append(np.zeros((0, 4), np.float32))
        elif name == "image_size":
            inputs.append(np.ones(2, np.int64))
    _REFERENCES[node.op_type](*inputs, **attributes)


def _value_of(operator: str, attribute: onnx.AttributeProto, default: Default) -> Any:
    required, type_ = _ATTRIBUTE_TYPES[type(default)]
    value = onnx.helper.get_attribute_value(attribute)
    value = value.decode() if isinstance(value, bytes) else value
    if attribute.type != type_:
        raise InvalidArgumentError(
            f"{operator}: attribute {attribute.name} must be {required}; got {value!r}"
        )
    return value


def _default_opset(model: onnx.ModelProto) -> int:
    versions: list[int] = [
        entry.version for entry in model.opset_import if entry.domain in STANDARD_DOMAINS
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
