"""How many rows a value has, as an expression of what the model computes.

Two values with equal expressions have equally many rows, whatever the model is given. A value that
this does not see through stands for itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable
from typing import Any

import numpy as np
import onnx_ir as ir

from ort_roialign.convert._graph import attribute, constant, producer, scalar, tensor_of

_RETYPE = ("Cast", "Identity")
_ELEMENTWISE = ("Add", "Sub", "Mul", "Div", "Sqrt", "Log", "Floor", "Clip", "Sigmoid", "Exp")
COLUMN_AXES = (1, -1)
END_OF_RANGE = 2**31 - 1  # what exporters write for an end is this or more
# Less than what a proof's run has of anything.
FEW = 8


class SizeReader:
    """Reads rows and sizes as expressions, each value's once: compare what one reader has read."""

    def __init__(self) -> None:
        self._rows: dict[ir.Value, Hashable] = {}
        self._sizes: dict[ir.Value | None, Hashable] = {}
        self._equal: dict[Hashable, Hashable] = {}

    def same_rows(self, one: ir.Value, other: ir.Value) -> bool:
        """Whether two values have equally many rows, whatever the model is given."""
        rows = self.rows(one), self.rows(other)  # both are read before what is equal counts
        return self._simplest(rows[0]) == self._simplest(rows[1])

    def rows(self, value: ir.Value) -> Hashable:
        """Return the size of a value's first axis: a number or an expression."""
        if value not in self._rows:
            self._rows[value] = self._read_rows(value)
        return self._rows[value]

    def size(self, value: ir.Value | None) -> Hashable:
        """Return a size that a model computes, the first where there are several."""
        if value not in self._sizes:
            self._sizes[value] = self._read_size(value)
        return self._sizes[value]

    def _simplest(self, rows: Hashable) -> Hashable:
        """Return what stands for all expressions that are equal where the model runs at all."""
        while rows in self._equal:
            rows = self._equal[rows]
        return rows

    def _read_rows(self, value: ir.Value) -> Hashable:
        known = _known_rows(value)
        node = value.producer()
        source = node.inputs[0] if node is not None and node.inputs else None
        if known is not None or node is None or source is None:
            return ("rows", value) if known is None else known
        if producer(value, *_RETYPE) is not None or _keeps_rows(node):
            return self.rows(source)
        if producer(value, *_ELEMENTWISE) is not None:
            operands = [each for each in node.inputs if each is not None and constant(each) is None]
            return self.rows(operands[0]) if len(operands) == 1 else ("rows", value)
        if producer(value, "Concat") is not None:
            rows = [self.rows(each) for each in node.inputs if each is not None]
            if attribute(node, "axis", 0) == 0:
                return _sum(rows)
            if attribute(node, "axis", 0) == 1:
                common = next((each for each in rows if isinstance(each, int)), rows[-1])
                for each in map(self._simplest, rows):
                    if each != self._simplest(common):
                        self._equal[each] = self._simplest(common)
                return common
        if producer(value, "Gather", "GatherND") is not None:
            chosen = node.inputs[1]
            along_rows = attribute(node, "axis", 0) == attribute(node, "batch_dims", 0) == 0
            return self.rows(chosen) if chosen is not None and along_rows else ("rows", value)
        if producer(value, "Slice") is not None:
            ranges = slices_of(node)
            if ranges is not None and len(ranges) == 1:
                axis, start, end, step = ranges[0]
                if axis == start == 0 and end >= 0 and step == 1:
                    return ("min", frozenset({self.rows(source), end}))
        # Of one number, so that its own sizes say nothing.
        if producer(value, "Expand") is not None and scalar(source) is not None:
            return self.size(node.inputs[1])
        return self.size(source) if producer(value, "ConstantOfShape") else ("rows", value)

    def _read_size(self, value: ir.Value | None) -> Hashable:
        array = constant(value)
        if array is not None and array.size:
            return int(array.reshape(-1)[0])
        node = producer(value, *_RETYPE, "Squeeze", "Unsqueeze", "Reshape", "Concat")
        if node is not None:
            return self.size(node.inputs[0])
        node = producer(value, "Shape")
        if node is not None and node.inputs[0] is not None and attribute(node, "start", 0) == 0:
            return self.rows(node.inputs[0])
        node = producer(value, "Gather", "Slice")
        if node is not None and scalar(node.inputs[1]) == 0:  # the first, or from the first on
            return self.size(node.inputs[0])
        node = producer(value, "Min", "Add")
        if node is None:
            return ("size", value)
        sizes = [self.size(each) for each in node.inputs]
        return ("min", frozenset(sizes)) if node.op_type == "Min" else _sum(sizes)


def entries_of(shape: ir.Value | None) -> list[int | ir.Value | None]:
    """Return the entries of a vector of sizes: numbers, computed scalars, or None for others."""
    joined = producer(shape, "Concat")
    if joined is not None:
        return [entry for part in joined.inputs for entry in _entries_of_part(part)]
    return _entries_of_part(shape)


def _entries_of_part(part: ir.Value | None) -> list[int | ir.Value | None]:
    array = constant(part)
    if array is not None:
        return array.reshape(-1).astype(int).tolist()
    node = producer(part, "Unsqueeze", "Reshape")
    if node is None:
        return [None]
    number = scalar(node.inputs[0])
    return [node.inputs[0] if number is None else int(number)]


def _known_rows(value: ir.Value) -> int | None:
    tensor = tensor_of(value)
    if tensor is not None and len(tensor.shape):
        return int(tensor.shape.numpy()[0])
    if value.shape is not None and len(value.shape) and isinstance(value.shape[0], int):
        return value.shape[0]
    return None


def _sum(sizes: Iterable[Hashable]) -> Hashable:
    terms = list(sizes)
    number = sum(term for term in terms if isinstance(term, int))
    others = Counter(term for term in terms if not isinstance(term, int))
    if not others:
        return number
    if number == 0 and len(terms) == 1:
        return terms[0]
    return ("sum", number, frozenset(others.items()))


def _keeps_rows(node: ir.Node) -> bool:
    """Whether a node only takes, adds or drops columns of a matrix."""
    value, source = node.outputs[0], node.inputs[0]
    if producer(value, "Squeeze", "Unsqueeze") is not None:
        given = node.attributes.get("axes")
        axes = given.value if given is not None else constant(node.inputs[-1])
        return axes is not None and all(axis in COLUMN_AXES for axis in np.ravel(axes))
    if producer(value, "Reshape") is not None:
        is_vector = source is not None and source.shape is not None and len(source.shape) == 1
        shape = constant(node.inputs[1])
        return is_vector and shape is not None and shape.tolist() == [-1]
    # Of a vector, the last axis is that of its rows.
    known = source is not None and source.shape is not None and len(source.shape) > 1
    return chooses_columns(node, COLUMN_AXES if known else COLUMN_AXES[:1])


def chooses_columns(node: ir.Node, column_axes: tuple[int, ...] = COLUMN_AXES) -> bool:
    """Whether a node takes columns of a matrix and keeps its rows."""
    value = node.outputs[0]
    if producer(value, "Gather") is not None:
        along = attribute(node, "axis", 0) in column_axes
        return along and constant(node.inputs[1]) is not None
    if producer(value, "Split") is not None:
        return attribute(node, "axis", 0) in column_axes
    ranges = slices_of(node) if producer(value, "Slice") is not None else None
    return ranges is not None and all(
        axis in column_axes or (start == 0 and end >= END_OF_RANGE and step == 1)
        for axis, start, end, step in ranges
    )


def num_columns(node: ir.Node) -> int | None:
    """Return how many columns a node of `chooses_columns` takes, or None where it does not tell."""
    value = node.outputs[0]
    if producer(value, "Gather") is not None:
        index = constant(node.inputs[1])
        return index.size if index is not None else None
    if producer(value, "Split") is not None:
        given = constant(node.inputs[1]) if len(node.inputs) > 1 else None
        sizes = given.reshape(-1).tolist() if given is not None else attribute(node, "split", [0])
        return max(sizes) or None  # of the widest part
    columns = [each for each in slices_of(node) or [] if each[0] in COLUMN_AXES]
    if len(columns) != 1:
        return None
    _, start, end, step = columns[0]
    return len(range(start, end, step)) if 0 <= start <= end < END_OF_RANGE else None


def slices_of(node: ir.Node) -> list[tuple[int, int, int, int]] | None:
    """Return a Slice's constant (axis, start, end, step), or None where one is computed."""
    if len(node.inputs) == 1:  # before opset 10
        starts, ends = attribute(node, "starts", [0]), attribute(node, "ends", [0])
        axes = attribute(node, "axes", list(range(len(starts))))
        return [(*each, 1) for each in zip(axes, starts, ends, strict=True)]
    vectors: list[Any] = []
    for place in range(1, 5):
        value = node.inputs[place] if place < len(node.inputs) else None
        if value is None:
            default = range(len(vectors[0])) if place == 3 else [1] * len(vectors[0])
            vectors.append(np.array(default))
        elif (given := constant(value)) is not None:
            vectors.append(given.reshape(-1))
        else:
            return None
    starts, ends, axes, steps = (vector.tolist() for vector in vectors)
    return list(zip(axes, starts, ends, steps, strict=True))


def limits_rows(node: ir.Node) -> bool:
    """Whether a Slice may leave out some of many rows, and none of those that a run has.

    It may not where it begins and ends near an end of the axis, and takes short steps.
    """
    ranges = slices_of(node)
    return ranges is None or any(
        abs(start) > FEW or FEW < abs(end) < END_OF_RANGE or abs(step) > FEW
        for _, start, end, step in ranges
    )
