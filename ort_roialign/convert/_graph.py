"""Reading and changing a model's graph: constants, producers, new nodes in place of old ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

DOMAIN: Final = "ort_roialign"
DOMAIN_VERSION: Final = 1
STANDARD_DOMAINS: Final = ("", "ai.onnx")
# The constants that matter here are scales, columns and axes. Larger ones may be weights, in a
# file that is not to be read.
_MOST_ELEMENTS = 256


class NotConvertibleError(Exception):
    """Something looks convertible and is not; the text says why."""


def label(node: ir.Node) -> str:
    """Return a node's name, or that of its first output where it has none."""
    return node.name or (node.outputs[0].name if node.outputs else None) or node.op_type


def operator_name(node: ir.Node) -> str:
    """Return a node's operator with its domain: "ai.onnx::RoiAlign"."""
    return f"{node.domain or 'ai.onnx'}::{node.op_type}"


def all_nodes(graph: ir.Graph) -> list[ir.Node]:
    """Return the nodes of a graph and of its subgraphs."""
    return list(ir.traversal.RecursiveGraphIterator(graph))


def subgraphs(node: ir.Node) -> Iterator[ir.Graph]:
    """Yield the graphs among a node's attributes."""
    for attribute in node.attributes.values():
        if attribute.is_ref():
            continue
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


def inputs_of(node: ir.Node) -> list[ir.Value]:
    """Return the values that a node reads, those that its subgraphs take from outside included."""
    read = [value for value in node.inputs if value is not None]
    for graph in subgraphs(node):
        inner = all_nodes(graph)
        own = {value for each in inner for value in each.outputs}
        own |= {value for each in inner if each.graph is not None for value in each.graph.inputs}
        own |= set(graph.inputs)
        used = [value for each in inner for value in each.inputs if value is not None]
        read += [value for value in (*used, *graph.outputs) if value not in own]
    return list(dict.fromkeys(read))


def producer(value: ir.Value | None, *op_types: str) -> ir.Node | None:
    """Return the node that makes a value, if it is one of these standard operators."""
    node = value.producer() if value is not None else None
    if node is None or node.domain not in STANDARD_DOMAINS or node.op_type not in op_types:
        return None
    return node


def tensor_of(value: ir.Value | None) -> ir.TensorProtocol | None:
    """Return a constant's tensor, not yet read from its file, or None for any other value."""
    if value is None or value.is_graph_input():
        return None
    if value.const_value is None and producer(value, "Constant") is None:
        return None
    return ir.convenience.get_const_tensor(value)


def constant(value: ir.Value | None) -> npt.NDArray[Any] | None:
    """Return a small constant's value, or None for a large one and any other value."""
    tensor = tensor_of(value)
    if tensor is None or tensor.size > _MOST_ELEMENTS:
        return None
    return elements(tensor)


def elements(tensor: ir.TensorProtocol) -> npt.NDArray[Any]:
    """Return a tensor's elements, from its file where they are in one.

    Raises:
        NotConvertibleError: if that file cannot be read.
    """
    try:
        return tensor.numpy()
    except OSError as error:
        raise NotConvertibleError(
            f"constant {tensor.name} is in a file that is not there ({error}); load the model with "
            f"its external data, or convert it by convert_file"
        ) from error


def scalar(value: ir.Value | None) -> Any:
    """Return the only element of a constant as a NumPy scalar, or None."""
    array = constant(value)
    return array.reshape(-1)[0] if array is not None and array.size == 1 else None


def attribute(node: ir.Node, name: str, default: Any) -> Any:
    """Return an attribute's value.

    Raises:
        NotConvertibleError: if it is that of a function's caller.
    """
    given = node.attributes.get(name)
    if given is None:
        return default
    if given.is_ref():
        raise NotConvertibleError(f"attribute {name} is set by the caller of a function")
    return list(given.value) if isinstance(given.value, tuple) else given.value


def check_inputs(node: ir.Node, count: int) -> None:
    """Check that a node has all its inputs.

    Raises:
        NotConvertibleError: if it has fewer or more.
    """
    given = sum(value is not None for value in node.inputs)
    if given != count or len(node.inputs) != count:
        raise NotConvertibleError(f"it must have {count} inputs; got {given}")


def used_elsewhere(values: Iterable[ir.Value], nodes: set[ir.Node]) -> ir.Value | None:
    """Return the first value that a node outside the set, or a graph's output, uses too."""
    for value in values:
        if value.is_graph_output() or any(user not in nodes for user, _ in value.uses()):
            return value
    return None


def become(
    node: ir.Node,
    operator: str,
    inputs: Sequence[ir.Value | None],
    attributes: Mapping[str, Any] | None = None,
) -> None:
    """Make a node one of this package's operators; name, outputs and metadata stay.

    Args:
        node: the node, changed in place.
        operator: name in the domain.
        inputs: all its inputs.
        attributes: all its attributes; None leaves them.
    """
    previous = inputs_of(node)
    node.domain, node.op_type, node.version = DOMAIN, operator, None
    node.resize_inputs(len(inputs))
    for place, value in enumerate(inputs):
        node.replace_input_with(place, value)
    if attributes is not None:
        node.attributes.clear()
        for each in ir.convenience.convert_attributes(attributes):
            node.attributes.add(each)
    remove_unused(previous)


def insert_before(
    node: ir.Node, op_type: str, inputs: Sequence[ir.Value], purpose: str, **attributes: Any
) -> ir.Value:
    """Put a standard operator with one output in front of a node, and return the output.

    Args:
        node: a node of a graph.
        op_type: the operator.
        inputs: its inputs.
        purpose: end of the new names; they begin with that of the node's output, which is unique.
        **attributes: its attributes.
    """
    name = f"{node.outputs[0].name}/{purpose}"
    new = ir.node(op_type, inputs, attributes=attributes or None, name=name)
    new.outputs[0].name = name
    graph = node.graph
    assert graph is not None
    graph.insert_before(node, [new])
    return new.outputs[0]


def insert_constant(node: ir.Node, array: npt.ArrayLike, purpose: str) -> ir.Value:
    """Put an int64 constant in front of a node: functions have no initializers."""
    tensor = ir.tensor(np.array(array, np.int64))
    return insert_before(node, "Constant", [], purpose, value=tensor)


def split_image_number(
    node: ir.Node, rois: ir.Value, columns: int = 4
) -> tuple[ir.Value, ir.Value]:
    """Cut the first column off rois [R, 1 + columns], the image's number, in front of a node.

    Returns:
        rois [R, columns] and batch_indices int64 [R].
    """
    # Gather and Cast mean the same in every opset, which Slice and Squeeze do not.
    first = insert_constant(node, 0, "image_column")
    numbers = insert_before(node, "Gather", [rois, first], "image_numbers", axis=1)
    indices = insert_before(node, "Cast", [numbers], "batch_indices", to=ir.DataType.INT64.value)
    rest = insert_constant(node, range(1, 1 + columns), "box_columns")
    boxes = insert_before(node, "Gather", [rois, rest], "rois", axis=1)
    return boxes, indices


def remove_unused(values: Iterable[ir.Value]) -> None:
    """Remove what makes these values, where nothing uses them, and then what only that used."""
    waiting = list(values)
    while waiting:
        value = waiting.pop()
        if value.uses() or value.is_graph_output() or value.is_graph_input():
            continue
        node = value.producer()
        if node is None:
            if value.is_initializer() and value.graph is not None:
                value.graph.initializers.pop(str(value.name), None)
            continue
        graph = node.graph
        if graph is None or any(v.uses() or v.is_graph_output() for v in node.outputs):
            continue
        waiting += inputs_of(node)
        for inner in (each for body in subgraphs(node) for each in all_nodes(body)):
            for place in range(len(inner.inputs)):
                inner.replace_input_with(place, None)
        graph.remove(node, safe=True)
