"""The level rule of a feature pyramid, read out of the constants of an exported graph.

    number = clip(floor(canonical_level + log2(sqrt(area)/canonical_scale + log_epsilon)
                        + level_epsilon), lowest, highest) - first

Lin et al., "Feature Pyramid Networks", 2017, equation 1. Exporters write log2(x) as
log(x) / log(2). The order of the additions matters, as each rounds to float32.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ort_roialign.convert._graph import (
    NotConvertibleError,
    attribute,
    keeps_numbers,
    producer,
    scalar,
)

_LOG_2 = np.log(np.float32(2))


@dataclass(frozen=True)
class LevelRule:
    """How the number of a box's map follows from its area.

    Attributes:
        area: the boxes' areas [R].
        canonical_scale: side of a square box of the canonical level, in image pixels.
        canonical_level: level of such a box.
        log_epsilon: added before the logarithm.
        level_epsilon: added to the level before it is rounded down.
        first: level of map 0.
        lowest: level of the smallest boxes.
        highest: level of the largest boxes.
    """

    area: ir.Value
    canonical_scale: float
    canonical_level: int
    log_epsilon: float
    level_epsilon: float
    first: int
    lowest: int
    highest: int


def read_level_rule(numbers: ir.Value) -> LevelRule:
    """Read the rule that the numbers of the boxes' maps follow.

    Args:
        numbers: [R], compared with 0, 1 and so on to choose the boxes of each map.

    Raises:
        NotConvertibleError: if a step is not that of the rule.
    """
    floor, first, lowest, highest = _read_clip(numbers)
    canonical_level, level_epsilon, logarithm = _read_additions(floor.inputs[0])
    argument = _read_log2(logarithm)
    ratio, log_epsilon = argument, np.float32(0)
    add = producer(argument, "Add")
    if add is not None:
        ratio, log_epsilon = _operand_and_float(add)
    division = producer(ratio, "Div")
    canonical_scale = scalar(division.inputs[1]) if division is not None else None
    root = producer(division.inputs[0], "Sqrt") if division is not None else None
    if not isinstance(canonical_scale, np.float32) or root is None or root.inputs[0] is None:
        raise NotConvertibleError(
            "the level rule's logarithm must be that of sqrt(area) / a float32 constant"
        )
    if not (np.isfinite(canonical_scale) and canonical_scale > 0 and log_epsilon >= 0):
        raise NotConvertibleError(
            f"the level rule must divide by a finite number above 0, and add 0 or more; it divides "
            f"by {canonical_scale} and adds {log_epsilon}"
        )
    return LevelRule(
        area=root.inputs[0],
        canonical_scale=float(canonical_scale),
        canonical_level=canonical_level,
        log_epsilon=float(log_epsilon),
        level_epsilon=float(level_epsilon),
        first=first,
        lowest=lowest,
        highest=highest,
    )


def _read_clip(numbers: ir.Value) -> tuple[ir.Node, int, int, int]:
    """Read what comes after rounding down: Floor, then levels `first`, `lowest` and `highest`."""
    first = 0
    lowest: int | None = None
    highest: int | None = None
    value: ir.Value | None = numbers
    while (floor := producer(value, "Floor")) is None:
        node = producer(value, "Cast", "Identity", "Sub", "Clip", "Min", "Max")
        if node is None:
            maker = value.producer() if value is not None else None
            raise NotConvertibleError(
                "the level rule must round down by Floor, clip and subtract the first level; "
                f"found {maker.op_type if maker is not None else 'an input'}"
            )
        if node.op_type in ("Cast", "Identity"):
            # A level that is not clipped yet may be endless.
            clipped = lowest is highest is None
            if node.op_type == "Cast" and not (clipped and keeps_numbers(node)):
                raise NotConvertibleError(
                    "the level rule must clip levels before their type changes, and to no shorter "
                    "type than int32"
                )
            value = node.inputs[0]
        elif node.op_type == "Sub":
            value, step = node.inputs[0], _whole(node.inputs[1])
            first += step
            lowest = None if lowest is None else lowest + step
            highest = None if highest is None else highest + step
        else:
            value, low, high = _read_limits(node)
            if (low is not None and lowest is not None) or (
                high is not None and highest is not None
            ):
                raise NotConvertibleError("the level rule must clip levels once")
            lowest = low if low is not None else lowest
            highest = high if high is not None else highest
            if lowest is not None and highest is not None and lowest > highest:
                raise NotConvertibleError(
                    f"the level rule's lowest level {lowest} is above its highest {highest}"
                )
    if lowest is None or highest is None:
        raise NotConvertibleError("the level rule must clip levels on both sides")
    return floor, first, lowest, highest


def _read_limits(node: ir.Node) -> tuple[ir.Value | None, int | None, int | None]:
    """Read Clip, Min or Max: what is limited, and the limits."""
    if node.op_type == "Clip":
        if len(node.inputs) > 1:
            given = (*node.inputs[1:], None)[:2]
            low, high = (None if each is None else _whole(each) for each in given)
            return node.inputs[0], low, high
        # Before opset 11 the limits were attributes.
        limits = [attribute(node, name, np.inf) for name in ("min", "max")]
        if not all(limit.is_integer() for limit in limits):
            raise NotConvertibleError("the level rule must clip levels to whole numbers")
        return node.inputs[0], int(limits[0]), int(limits[1])
    if len(node.inputs) != 2:
        raise NotConvertibleError(f"the level rule's {node.op_type} must have two inputs")
    value, limit = node.inputs
    if scalar(limit) is None:
        value, limit = limit, value
    whole = _whole(limit)
    return (value, None, whole) if node.op_type == "Min" else (value, whole, None)


def _read_additions(value: ir.Value | None) -> tuple[int, np.float32, ir.Value | None]:
    """Read what is added to the logarithm: the canonical level first, the epsilon last."""
    added: list[np.float32] = []
    while (node := producer(value, "Add")) is not None:
        value, number = _operand_and_float(node)
        added.insert(0, number)
    if not added:
        return 0, np.float32(0), value
    level, *epsilon = added
    if not float(level).is_integer():
        level, epsilon = np.float32(0), added
    if len(epsilon) > 1 or (epsilon and abs(epsilon[0]) >= 1):
        raise NotConvertibleError(
            "the level rule must add a whole number to the logarithm, and then less than 1; "
            f"it adds {', '.join(str(number) for number in added)}"
        )
    return int(level), epsilon[0] if epsilon else np.float32(0), value


def _read_log2(value: ir.Value | None) -> ir.Value | None:
    """Return the argument of a logarithm to base 2."""
    division = producer(value, "Div")
    log = producer(division.inputs[0], "Log") if division is not None else None
    base = scalar(division.inputs[1]) if division is not None else None
    if log is None or base is None or base.dtype != np.float32 or base != _LOG_2:
        raise NotConvertibleError(
            f"the level rule must be a float32 logarithm to base 2, Log / {_LOG_2}; "
            f"the divisor is {base}"
        )
    return log.inputs[0]


def _operand_and_float(node: ir.Node) -> tuple[ir.Value | None, np.float32]:
    """Return what an addition adds a float32 constant to, and the constant."""
    left, right = node.inputs
    if scalar(right) is None:
        left, right = right, left
    number = scalar(right)
    if not isinstance(number, np.float32):
        raise NotConvertibleError("the level rule must add float32 constants")
    return left, number


def _whole(value: ir.Value | None) -> int:
    number = scalar(value)
    if number is None or not float(number).is_integer():
        raise NotConvertibleError(
            f"the level rule's limits and first level must be whole constants; got {number}"
        )
    return int(number)
