"""Reading and changing a model's graph: constants, producers, new nodes in place of old ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ort_roialign._domains import DOMAIN, STANDARD_DOMAINS
from ort_roialign._kernels import ABSENT, Call, Tensor
from ort_roialign._signatures import SIGNATURES
from ort_roialign.errors import InvalidArgumentError

# The constants that matter here are scales, columns and axes. Larger ones may be weights, in a
# file that is not to be read.
_MOST_ELEMENTS = 256
_WANTED_NAME = "ort_roialign.wanted_name"
_IMAGE_SIZE = np.ones(2, np.int64)


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


def graphs_of(model: ir.Model) -> list[ir.Graph]:
    """Return the main graph and those of functions."""
    return [model.graph, *(function.graph for function in model.functions.values())]


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
        for each in {graph, *(each.graph for each in inner if each.graph is not None)}:
            own |= {*each.inputs, *each.initializers.values()}
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
    if value.const_value is not None:
        return value.const_value
    node = producer(value, "Constant")
    given = node.attributes.get("value") if node is not None else None
    if given is not None and not given.is_ref():
        return given.as_tensor()
    # Of a tensor that the model holds this would change the name.
    return ir.convenience.get_const_tensor(value) if node is not None and given is None else None


def constant(value: ir.Value | None) -> npt.NDArray[Any] | None:
    """Return a small constant's value, or None for a large one and any other value."""
    tensor = tensor_of(value)
    if tensor is not None:
        return elements(tensor) if tensor.size <= _MOST_ELEMENTS else None
    cast = producer(value, "Cast")  # which exporters write where they do not fold constants
    array = constant(cast.inputs[0]) if cast is not None else None
    if cast is None or array is None or not keeps_numbers(cast):
        return None
    return array.astype(ir.DataType(attribute(cast, "to", 0)).numpy())


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


def is_filled(value: ir.Value | None, number: int) -> bool:
    """Whether all elements of a value are known to be a number, be they constant or filled in."""
    filling = producer(value, "ConstantOfShape")
    given = filling.attributes.get("value") if filling is not None else None
    tensor = given.as_tensor() if given is not None else tensor_of(value)
    array = elements(tensor) if tensor is not None else constant(value)
    if filling is not None and given is None:
        array = np.zeros(1)
    return array is not None and array.dtype.kind in "fiu" and bool(np.all(array == number))


def attribute(node: ir.Node, name: str, default: Any) -> Any:
    """Return an attribute's value, of its default's type.

    Raises:
        NotConvertibleError: if it is that of a function's caller, or of another type.
    """
    given = node.attributes.get(name)
    if given is None:
        return default
    if given.is_ref():
        raise NotConvertibleError(f"attribute {name} is set by the caller of a function")
    value = list(given.value) if isinstance(given.value, tuple | list) else given.value
    if type(value) is not type(default):
        required = type(default).__name__
        raise NotConvertibleError(f"attribute {name} must be of type {required}; got {value!r}")
    return value


def keeps_numbers(cast: ir.Node) -> bool:
    """Whether a Cast's type holds every number that boxes, levels and sizes have."""
    return attribute(cast, "to", 0) in (ir.DataType.FLOAT, ir.DataType.INT32, ir.DataType.INT64)


def check_inputs(node: ir.Node, least: int, most: int | None = None) -> None:
    """Check that a node has its inputs.

    Raises:
        NotConvertibleError: if the first `least` are not all there, or there are more than `most`.
    """
    given = sum(value is not None for value in node.inputs[:least])
    if given < least or len(node.inputs) > (most or least):
        number = str(least) if most in (None, least) else f"{least} to {most}"
        raise NotConvertibleError(
            f"it must have {number} inputs; got {[each and each.name for each in node.inputs]}"
        )


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
    attributes: Mapping[str, Any],
    *,
    keep_others: bool = False,
) -> None:
    """Make a node one of this package's operators; name, outputs and metadata stay.

    Args:
        node: the node, changed in place.
        operator: name in the domain.
        inputs: all its inputs.
        attributes: name -> value.
        keep_others: whether the node's attributes of other names stay.

    Raises:
        NotConvertibleError: if the operator refuses the attributes; nothing is changed then.
    """
    previous = inputs_of(node)
    kept = list(node.attributes.values()) if keep_others else []
    values = {each.name: each.value for each in kept if not each.is_ref()}
    check_attributes(operator, {**values, **attributes}, max(len(inputs) - 2, 1))
    node.domain, node.op_type, node.version = DOMAIN, operator, None
    node.resize_inputs(len(inputs))
    for place, value in enumerate(inputs):
        node.replace_input_with(place, value)
    node.attributes.clear()
    for each in (*kept, *ir.convenience.convert_attributes(attributes)):
        node.attributes.add(each)
    remove_unused(previous)


def check_attributes(operator: str, attributes: Mapping[str, Any], num_maps: int = 1) -> None:
    """Check that an operator of this package takes attributes, by asking the library.

    Raises:
        NotConvertibleError: if it does not.
    """
    signature = SIGNATURES[operator]
    tensors = {
        "X": Tensor(0, "float32", (0, 0, 1, 1)),
        "rois": Tensor(0, "float32", (0, 5 if "angle_unit" in signature.attributes else 4)),
        "batch_indices": Tensor(0, "int64", (0,)),
        "offset": ABSENT,
        "masks": Tensor(0, "float32", (0, 1, 1, 1)),
        "boxes": Tensor(0, "float32", (0, 4)),
        "image_size": Tensor(_IMAGE_SIZE.ctypes.data, "int64", (2,)),
    }
    names = [name for name in signature.inputs if name != "X" or not signature.variadic]
    inputs = [tensors[name] for name in names]
    inputs += [tensors["X"]] * num_maps if signature.variadic else []
    known = {name: value for name, value in attributes.items() if name in signature.attributes}
    try:
        Call(operator, known, inputs, 1).infer()
    except InvalidArgumentError as error:
        raise NotConvertibleError(str(error)) from error


def insert_before(
    node: ir.Node, op_type: str, inputs: Sequence[ir.Value], purpose: str, **attributes: Any
) -> ir.Value:
    """Put a standard operator with one output in front of a node, and return the output.

    Args:
        node: a node of a graph.
        op_type: the operator.
        inputs: its inputs.
        purpose: end of the new name that `name_new_values` gives it.
        **attributes: its attributes.
    """
    new = ir.node(op_type, inputs, attributes=attributes or None)
    new.outputs[0].meta[_WANTED_NAME] = f"{node.outputs[0].name}/{purpose}"
    graph = node.graph
    assert graph is not None
    graph.insert_before(node, [new])
    return new.outputs[0]


def name_new_values(graphs: Iterable[ir.Graph]) -> None:
    """Give what `insert_before` made names that nothing else in the model has.

    A name may stand in a graph around or inside: so all of the model's names count.
    """
    taken: set[str | None] = set()
    new: list[ir.Value] = []
    for graph in graphs:
        nodes = all_nodes(graph)
        inner = {each.graph for each in nodes if each.graph is not None} | {graph}
        for each in inner:
            taken |= {value.name for value in (*each.inputs, *each.initializers.values())}
        for node in nodes:
            made = [value for value in node.outputs if _WANTED_NAME in value.meta]
            new += made
            if not made:
                taken |= {node.name, *(value.name for value in node.outputs)}
    for value in new:
        wanted = name = str(value.meta.pop(_WANTED_NAME))
        number = 1
        while name in taken:
            number += 1
            name = f"{wanted}_{number}"
        taken.add(name)
        maker = value.producer()
        assert maker is not None
        value.name = maker.name = name


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
