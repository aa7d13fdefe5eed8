"""ONNX's MaxRoiPool and the operators that mmcv and mmdeploy export, as this package's.

The library knows them, and says which of its own each one is. Their rois have the image's number in
front.
"""

from __future__ import annotations

import functools

import onnx_ir as ir

from ort_roialign._domains import STANDARD_DOMAINS
from ort_roialign._kernels import Attribute, Integers, Unreadable, translate
from ort_roialign._library import build_info
from ort_roialign._signatures import SIGNATURES, Signature
from ort_roialign.convert._graph import (
    NotConvertibleError,
    become,
    check_inputs,
    split_image_number,
    tensor_of,
)
from ort_roialign.errors import InvalidArgumentError


def is_translated(node: ir.Node) -> bool:
    """Whether the library knows a node's operator, by other attributes than its own."""
    return (_domain(node), node.op_type) in _translated_operators()


def other_domains(node: ir.Node) -> list[str]:
    """Return the domains in which the library knows an operator of this name, where not in its."""
    found = {domain for domain, name in _translated_operators() if name == node.op_type}
    return [] if _domain(node) in found else sorted(found)


@functools.cache
def _translated_operators() -> frozenset[tuple[str, str]]:
    return frozenset(
        (known["domain"], operator["name"])
        for known in build_info()["domains"]
        for operator in known["operators"]
        if operator["translated"]
    )


def _domain(node: ir.Node) -> str:
    return "" if node.domain in STANDARD_DOMAINS else node.domain


def convert_translated(node: ir.Node) -> None:
    """Make an operator that the library translates this package's, in place."""
    given = {name: _value(each) for name, each in node.attributes.items()}
    try:
        operator, attributes = translate(_domain(node), node.op_type, given, len(node.inputs))
    except InvalidArgumentError as error:
        raise NotConvertibleError(str(error)) from error
    inputs = _checked_inputs(node, SIGNATURES[operator])
    place = SIGNATURES[operator].inputs.index("rois")
    rois = inputs[place]
    assert rois is not None
    columns = 5 if "angle_unit" in SIGNATURES[operator].attributes else 4
    inputs[place : place + 1] = split_image_number(node, rois, columns)
    become(node, operator, inputs, attributes)


def _checked_inputs(node: ir.Node, own: Signature) -> list[ir.Value | None]:
    """Return a node's inputs, without those that are empty: so mmcv says that there is no offset.

    Raises:
        NotConvertibleError: if they are not those of this package's operator but batch_indices.
    """
    most = len(own.inputs) - 1
    least = most - len(own.optional_inputs)
    if own.variadic:
        check_inputs(node, max(least, len(node.inputs)))
        return list(node.inputs)
    check_inputs(node, least, most)
    return [*node.inputs[:least], *(each for each in node.inputs[least:] if not _is_empty(each))]


def _value(attribute: ir.Attr) -> Attribute:
    if attribute.is_ref():
        return Unreadable("one that the caller of a function sets")
    if attribute.type == ir.AttributeType.INT:
        return attribute.as_int()
    if attribute.type == ir.AttributeType.FLOAT:
        return attribute.as_float()
    if attribute.type == ir.AttributeType.STRING:
        return attribute.as_string()
    if attribute.type == ir.AttributeType.FLOATS:
        return attribute.as_floats()
    if attribute.type == ir.AttributeType.INTS:
        return Integers(tuple(attribute.as_ints()))
    return Unreadable(f"one of type {attribute.type.name}")


def _is_empty(value: ir.Value | None) -> bool:
    tensor = tensor_of(value)
    return value is None or (tensor is not None and tensor.size == 0)
