"""What a part's nodes may be, so that a run on random values proves what they do to all values.

A run shows a wrong column, row, order or number. It does not show what happens to other values than
it draws: a limit, a comparison, a number type that is too short. So none of these may be there but
those that were read before: the level rule, and the clamping of masks to their image. Sizes may be
chosen, added and multiplied by numbers, and only shapes may follow from them: runs with other sizes
then show on which ones they depend.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ort_roialign._domains import STANDARD_DOMAINS
from ort_roialign.convert._graph import (
    NotConvertibleError,
    all_nodes,
    attribute,
    constant,
    elements,
    inputs_of,
    is_filled,
    keeps_numbers,
    label,
    operator_name,
    producer,
    subgraphs,
    tensor_of,
)
from ort_roialign.convert._rows import END_OF_RANGE, FEW, limits_rows

_MOVES = frozenset({
    "Concat", "Expand", "Identity", "Reshape", "Split", "Squeeze", "Transpose", "Unsqueeze",
})  # fmt: skip
_CHOICES = {"Gather": 1, "GatherND": 1, "ScatterElements": 1, "ScatterND": 1}  # place of the index
_ARITHMETIC = ("Add", "Div", "Mul", "Sub")
_SIZE_STEPS = frozenset({
    "Add", "Cast", "Concat", "Gather", "Identity", "Mul", "Reshape", "Slice", "Squeeze",
    "Unsqueeze",
})  # fmt: skip
_SHAPE_PLACES = {"ConstantOfShape": 0, "Expand": 1, "Reshape": 1}
# What a loop over masks does beside moving.
_LOOP_STEPS = frozenset({
    "Add", "Cast", "ConstantOfShape", "Gather", "ReduceMax", "ReduceMin", "Resize", "Shape",
    "Slice", "Sub", *_MOVES,
})  # fmt: skip
# What comes before it: masks are framed, and boxes stretched about their centres.
_STEPS_BEFORE_LOOP = frozenset({
    "Add", "Cast", "ConstantOfShape", "Div", "Floor", "Gather", "Mul", "Pad", "Shape", "Slice",
    "Sub", *_MOVES,
})  # fmt: skip


def check_pyramid_steps(
    nodes: Iterable[ir.Node], *, known: Container[ir.Node], arithmetic: Container[ir.Node]
) -> None:
    """Check that a pyramid's nodes only move values, beside those that were read.

    Args:
        nodes: the pyramid's nodes, each after its inputs.
        known: nodes that were read: the RoiAligns, the level rule, the comparisons with each map's
            level.
        arithmetic: Add, Sub and Mul that a run proves: the merges, and what areas are made by.

    Raises:
        NotConvertibleError: if another node may change values.
    """
    nodes = list(nodes)
    sizes, _, idioms = _read_sizes(nodes)
    masks: set[ir.Value] = set()
    indices: set[ir.Value] = set()
    for node in nodes:
        if node in known:
            masks.update(node.outputs if node.op_type == "Equal" else ())
            continue
        if node in idioms or sizes.issuperset(node.outputs):
            continue
        shape_place = _SHAPE_PLACES.get(node.op_type)
        if any(value in sizes and n != shape_place for n, value in enumerate(node.inputs)):
            raise _refusal(node)
        _check_step(node, masks, indices, node in arithmetic)
        moved = {each for each in inputs_of(node) if tensor_of(each) is None} - sizes
        if node.op_type == "NonZero" or (moved and moved <= indices):
            indices.update(node.outputs)
        elif moved and moved <= masks:
            masks.update(node.outputs)


def _check_step(
    node: ir.Node, masks: set[ir.Value], indices: set[ir.Value], is_arithmetic: bool
) -> None:
    """Check that a node moves values, masks them, or chooses from them by indices."""
    operator, given = node.op_type, node.inputs
    if node.domain not in STANDARD_DOMAINS:
        fits = False
    elif operator == "Cast":
        fits = keeps_numbers(node)
    elif operator in _CHOICES:
        index = given[_CHOICES[operator]]
        fits = index in indices or tensor_of(index) is not None
        fits = fits and attribute(node, "reduction", "none") == "none"
        if operator in ("Gather", "GatherND") and tensor_of(given[0]) is not None:
            fits = fits and tensor_of(index) is not None  # else it maps numbers to others
    elif operator == "Slice":
        fits = not limits_rows(node)
    elif operator == "NonZero":
        fits = given[0] in masks
    elif operator in ("Add", "Sub", "Mul") and is_arithmetic:
        fits = True
    elif operator == "Mul":
        fits = any(value in masks or is_filled(value, 0) for value in given)
    else:
        fits = operator in _MOVES or operator in ("Constant", "ConstantOfShape")
    if not fits:
        raise _refusal(node)


def check_loop_steps(before: Iterable[ir.Node], loop: ir.Node, known: Container[int]) -> None:
    """Check that a loop over masks has no limits but the image's.

    Args:
        before: the nodes between masks and boxes and the loop.
        loop: the loop.
        known: sides of masks and of the image, where they are constant.

    Raises:
        NotConvertibleError: if a node may change values otherwise.
    """
    (body,) = subgraphs(loop)
    for nodes, steps in ((list(before), _STEPS_BEFORE_LOOP), (all_nodes(body), _LOOP_STEPS)):
        _, fixed, idioms = _read_sizes(nodes)
        for node in nodes:
            if node in idioms or producer(node.outputs[0], "Constant") is not None:
                continue
            fits = node.domain in STANDARD_DOMAINS and node.op_type in steps
            if node.op_type == "Cast":
                fits = fits and keeps_numbers(node)
            elif node.op_type == "Slice" and steps is _STEPS_BEFORE_LOOP:
                fits = fits and not limits_rows(node)
            given = [elements(tensor) for tensor in _constants_of(node)]
            if node.op_type == "Div" and (given or not fixed.isdisjoint(node.inputs)):
                fits = False  # the only quotient is that of a mask's sizes
            elif node.op_type in _ARITHMETIC and fixed.issuperset(node.outputs):
                made = _made_of_constants(node)  # small constants make large ones
                fits = fits and made is not None
                given += [] if made is None else [made]
            if not fits or any(_may_limit(array, known) for array in given):
                raise _refusal(node)
    # The mask's number must choose a mask and a box, and nothing else.
    for user, place in body.inputs[0].uses():
        if (user.op_type, place) != ("Gather", 1):
            raise _refusal(user)


def _constants_of(node: ir.Node) -> list[ir.TensorProtocol]:
    """Return the constants that a node reads, or fills a tensor with."""
    found = [tensor for each in node.inputs if (tensor := tensor_of(each)) is not None]
    if node.op_type == "ConstantOfShape" and "value" in node.attributes:
        found.append(node.attributes["value"].as_tensor())
    return found


def _made_of_constants(node: ir.Node) -> npt.NDArray[Any] | None:
    """Return the sum, difference or product of two constants, or None of anything else."""
    operands = [constant(value) for value in node.inputs]
    left, right = operands if len(operands) == 2 else (None, None)
    if left is None or right is None:
        return None
    made = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply}[node.op_type](left, right)
    return np.asarray(made)


def _may_limit(array: npt.NDArray[Any], known: Container[int]) -> bool:
    """Whether a constant is one that values of a run need not reach."""
    if array.dtype.kind == "b":
        return False
    return array.dtype.kind not in "fiu" or any(
        not (abs(number) <= FEW or abs(number) >= END_OF_RANGE or number in known)
        for number in array.reshape(-1).tolist()
    )


def _read_sizes(
    nodes: Iterable[ir.Node],
) -> tuple[set[ir.Value], set[ir.Value], set[ir.Node]]:
    """Find sizes.

    Returns:
        What is computed from shapes, what from constants alone, and the nodes of
        `Where(size == -1, 1, size)`, by which exporters let sizes broadcast. They write -1 as it
        is, or as ones * -1.
    """
    sizes: set[ir.Value] = set()
    fixed: set[ir.Value] = set()
    idioms: set[ir.Node] = set()
    for node in nodes:
        computed = {each for each in inputs_of(node) if tensor_of(each) is None} - fixed
        idiom = _broadcast_idiom(node)
        is_step = node.domain in STANDARD_DOMAINS and node.op_type in _SIZE_STEPS
        if node.op_type == "Cast":
            is_step = is_step and keeps_numbers(node)
        elif node.op_type == "Mul":
            is_step = is_step and len(computed) < 2  # a size by a number
        if idiom and node.inputs[2] not in computed - sizes:
            idioms |= idiom
            sizes.update(node.outputs)
        elif producer(node.outputs[0], "Shape") or (is_step and computed and computed <= sizes):
            sizes.update(node.outputs)
        elif is_step and not computed:
            fixed.update(node.outputs)
    return sizes, fixed, idioms


def _broadcast_idiom(where: ir.Node) -> set[ir.Node]:
    """Return the nodes of `Where(size == -1, 1, size)` but those of the ones, or none."""
    if producer(where.outputs[0], "Where") is None or len(where.inputs) != 3:
        return set()
    chosen, ones, size = where.inputs
    answers = constant(chosen)
    if answers is not None and not answers.any():
        return {where}  # simplified: no size is -1
    equal = producer(chosen, "Equal")
    if equal is None or not is_filled(ones, 1):
        return set()
    left, right = equal.inputs
    if not (_are_same(left, size) or _are_same(right, size)):
        return set()
    minus = right if _are_same(left, size) else left
    product = producer(minus, "Mul")
    if product is None:
        return {where, equal} if is_filled(minus, -1) else set()
    factors = list(product.inputs)
    fits = ones in factors and any(is_filled(factor, -1) for factor in factors)
    return {where, equal, product} if fits else set()


def _are_same(left: ir.Value | None, right: ir.Value | None) -> bool:
    a, b = constant(left), constant(right)
    return left is right or (a is not None and b is not None and np.array_equal(a, b))


def _refusal(node: ir.Node) -> NotConvertibleError:
    what = f"{label(node)}, {operator_name(node)}"
    if producer(node.outputs[0], "Cast") is not None and not keeps_numbers(node):
        dtype = ir.DataType(attribute(node, "to", 0))
        what += f" to {dtype} where float32 is converted"
    return NotConvertibleError(f"{what}, may change the values")
