"""A feature pyramid's level choice, pooling and merging as one MultiScaleRoiAlign.

Exporters unroll torchvision's MultiScaleRoIAlign, detectron2's ROIPooler and mmdet's
SingleRoIExtractor: for each map the boxes of its level are gathered and pooled, and the results
are scattered into zeros, or masked and added to them. mmdeploy puts boxes of each level in front of
the detector's, so that no level is empty, and cuts their results off in the end. What is read here
is the level rule, which map has which level, and where boxes and images come from; a run of the
part on random boxes then proves that the whole is what one node computes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from ort_roialign._domains import DOMAIN, STANDARD_DOMAINS
from ort_roialign.convert._graph import (
    NotConvertibleError,
    attribute,
    become,
    check_attributes,
    constant,
    is_filled,
    label,
    operator_name,
    producer,
    scalar,
    split_image_number,
)
from ort_roialign.convert._levels import LevelRule, read_level_rule
from ort_roialign.convert._pyramid_proof import (
    PyramidPart,
    box_sources,
    check_users,
    nodes_of,
    prove,
    read_areas,
)
from ort_roialign.convert._region import nodes_between
from ort_roialign.convert._rows import END_OF_RANGE, SizeReader, slices_of
from ort_roialign.convert._steps import check_pyramid_steps

_SCATTERS = ("ScatterElements", "ScatterND")
# What only reshapes, retypes or chooses columns; the proof by running shows what it does.
_ROW_KEEPING = ("Cast", "Identity", "Squeeze", "Unsqueeze", "Reshape", "Split")
# Values between a RoiAlign and the choice of its boxes, of which exporters write about 20.
_CHOICE_IS_WITHIN = 50
_INDEX_STEPS = ("Transpose", "Slice", "Gather", "Expand", *_ROW_KEEPING)


@dataclass(frozen=True)
class _Level:
    """One map's part.

    Attributes:
        pool: its RoiAlign.
        number: which map it is, 0 for the first.
        numbers: the numbers of all boxes' maps.
        rois: all boxes with their images.
        chosen: the Equal that chooses the boxes of this map.
    """

    pool: ir.Node
    number: int
    numbers: ir.Value
    rois: ir.Value
    chosen: ir.Node


def is_own_roi_align(node: ir.Node) -> bool:
    """Whether a node is this package's RoiAlign, which ONNX's has become."""
    return (node.domain, node.op_type) == (DOMAIN, "RoiAlign")


def last_merge(pool: ir.Node) -> ir.Node | None:
    """Follow a RoiAlign's result through its mask and its merge to the last of all maps' merges."""
    last = None
    value = pool.outputs[0]
    while (step := _next_step(value, last)) is not None:
        if step.op_type in (*_SCATTERS, "Add"):
            last = step
        value = step.outputs[0]
    return last


def _next_step(value: ir.Value, last: ir.Node | None) -> ir.Node | None:
    """Return what a pooled result, or after a merge the merged rows, go into next."""
    users = [(u, place) for u, place in value.uses() if u.domain in STANDARD_DOMAINS]
    # A result is scattered as updates, into the rows that earlier ones were merged into.
    for user, place in users:
        fits = place == 2 if last is None else place == 0 and last.op_type in _SCATTERS
        if user.op_type in _SCATTERS and fits:
            return user
    for user, place in users:
        if last is None and user.op_type in ("Add", "Mul", "Cast", "Identity", "Reshape"):
            return user
        added = last is not None and last.op_type == user.op_type == "Add"
        if added and _pool_of(user.inputs[1 - place]) is not None:
            return user
    return None


def chooses_boxes(pool: ir.Node) -> bool:
    """Whether a RoiAlign's boxes are chosen by what they are equal to, as those of a level are."""
    waiting = [value for value in pool.inputs[1:2] if value is not None]
    seen: set[ir.Value] = set()
    while waiting and len(seen) < _CHOICE_IS_WITHIN:
        value = waiting.pop(0)
        seen.add(value)
        node = value.producer()
        if producer(value, "Equal") is not None:
            return True
        given = node.inputs if node is not None else ()
        waiting += [each for each in given if each is not None and each not in seen]
    return False


def fuse_pyramid(last: ir.Node, pools: list[ir.Node], opsets: Mapping[str, int]) -> ir.Node:
    """Make the end of a pyramid one MultiScaleRoiAlign, in place.

    Args:
        last: the last ScatterElements, ScatterND or Add.
        pools: the RoiAligns of this package that it merges.
        opsets: domain -> version.

    Returns:
        The new node: the last merge, or the Slice after it that cuts boxes in front off.

    Raises:
        NotConvertibleError: if it is not certain that one node computes the same; nothing is
            changed then.
    """
    levels = sorted((_read_level(pool) for pool in pools), key=lambda level: level.number)
    all_numbers, all_rois = levels[0].numbers, levels[0].rois
    if any(level.numbers is not all_numbers or level.rois is not all_rois for level in levels):
        raise NotConvertibleError("all maps must choose from the same boxes by the same levels")
    numbers, in_front = _without_front(all_numbers)
    rois, same_in_front = _without_front(all_rois)
    if not in_front or same_in_front != in_front:
        numbers, rois, in_front = all_numbers, all_rois, 0
    rule = read_level_rule(numbers)
    count = rule.highest - rule.first + 1
    if [level.number for level in levels] != list(range(len(levels))):
        raise NotConvertibleError(
            f"maps must have levels 0, 1, ... less than {len(levels)}; "
            f"got {[level.number for level in levels]}"
        )
    if rule.lowest != rule.first or count > len(levels):
        raise NotConvertibleError(
            f"levels {rule.lowest} to {rule.highest} must begin at the first map's, {rule.first}, "
            f"and end at or before the last map's, {rule.first + len(levels) - 1}"
        )
    attributes = {**_shared_attributes(levels), **_rule_attributes(rule, levels)}
    maps = [level.pool.inputs[0] for level in levels]
    zeros, merges = _check_merge(last, pools)
    end = _cut_of(last, in_front) if in_front else last
    part = PyramidPart(
        last=end,
        chosen=tuple(level.chosen for level in levels),
        maps=tuple(each for each in maps if each is not None),
        rois=rois,
        all_rois=all_rois,
        in_front=in_front,
        boxes=box_sources(rule.area, rois),
        zeros=zeros,
    )
    check_attributes("MultiScaleRoiAlign", attributes, len(maps))
    check_users(part, pools)
    check_pyramid_steps(
        nodes_of(part),
        known={*pools, *part.chosen, *nodes_between([rule.area], numbers), end},
        arithmetic={*merges, *read_areas(nodes_between(part.boxes, rule.area), rule.area)},
    )
    prove(part, rule, attributes, opsets)
    become(end, "MultiScaleRoiAlign", [*split_image_number(end, rois), *maps], attributes)
    return end


def _without_front(value: ir.Value) -> tuple[ir.Value, int]:
    """Return what follows constant rows in front of a value, and their number."""
    joined = producer(value, "Concat")
    if joined is None or attribute(joined, "axis", 0) != 0:
        return value, 0
    *fronts, rest = joined.inputs
    rows = [SizeReader().rows(each) for each in fronts if each is not None and _is_fixed(each)]
    numbers = [each for each in rows if isinstance(each, int)]
    if rest is None or len(numbers) != len(fronts):
        return value, 0
    return rest, sum(numbers)


def _is_fixed(value: ir.Value) -> bool:
    """Whether a value depends on constants only."""
    try:
        nodes_between([], value)
    except NotConvertibleError:
        return False
    return True


def _cut_of(last: ir.Node, in_front: int) -> ir.Node:
    """Return the Slice that cuts the first rows off what is merged."""
    users = [user for user, _ in last.outputs[0].uses()]
    cut = users[0] if len(users) == 1 and users[0].op_type == "Slice" else None
    ranges = slices_of(cut) if cut is not None else None
    if cut is None or ranges is None or len(ranges) != 1:
        ranges = [(0, 0, 0, 0)]
    axis, start, end, step = ranges[0]
    if cut is None or (axis, start, step) != (0, in_front, 1) or end < END_OF_RANGE:
        raise NotConvertibleError(
            f"the results of {in_front} boxes in front of the others must be cut off by a Slice"
        )
    return cut


def _read_level(pool: ir.Node) -> _Level:
    """Read which boxes a RoiAlign pools."""
    rois, index = _selection(pool, pool.inputs[1])
    same_rois, same_index = _selection(pool, pool.inputs[2])
    equal = _comparison(index)
    if rois is not same_rois or _comparison(same_index) is not equal or equal is None:
        raise NotConvertibleError(
            f"{label(pool)} must take its boxes and their images from the same rows of one tensor, "
            f"those of one level"
        )
    numbers, number = equal.inputs
    if scalar(number) is None:
        numbers, number = number, numbers
    level = scalar(number)
    if numbers is None or level is None or not float(level).is_integer():
        raise NotConvertibleError(f"{label(pool)} must pool the boxes of one constant level")
    while (step := producer(numbers, "Cast", "Identity")) is not None and step.inputs[0]:
        numbers = step.inputs[0]
    return _Level(pool, int(level), numbers, rois, equal)


def _selection(pool: ir.Node, value: ir.Value | None) -> tuple[ir.Value, ir.Value]:
    """Walk back from an input of a RoiAlign to where rows are chosen: (all rows, their index)."""
    while True:
        node = producer(value, "GatherND", "Gather", "Slice", "Mul", *_ROW_KEEPING)
        if node is None:
            break
        source, index = node.inputs[0], node.inputs[1] if len(node.inputs) > 1 else None
        chooses = node.op_type == "GatherND" or (
            node.op_type == "Gather" and constant(index) is None
        )
        if node.op_type == "Mul" and _comparison(source) is not None:
            source, index = index, source
        if (chooses or node.op_type == "Mul") and source is not None and index is not None:
            return source, index
        value = source
    maker = value.producer() if value is not None else None
    where = f"{value.name if value is not None else None} of " + (
        operator_name(maker) if maker is not None else "the graph"
    )
    raise NotConvertibleError(
        f"{label(pool)} must pool boxes that a level chooses by their rows; what chooses them was "
        f"looked for up to {where}"
    )


def _comparison(index: ir.Value | None) -> ir.Node | None:
    """Return the Equal behind the rows' numbers, or behind a mask of them."""
    value = index
    while (node := producer(value, "NonZero", "Equal", *_INDEX_STEPS)) is not None:
        if node.op_type == "Equal":
            return node
        value = node.inputs[0]
    return None


def _shared_attributes(levels: list[_Level]) -> dict[str, Any]:
    """Return the attributes that all maps share."""
    shared: dict[str, Any] = {}
    for level in levels:
        own = {}
        for name, each in level.pool.attributes.items():
            if each.is_ref():
                raise NotConvertibleError(f"attribute {name} is set by the caller of a function")
            if name != "spatial_scale":
                own[name] = each.value
        if level is not levels[0] and own != shared:
            raise NotConvertibleError(f"all maps must be pooled alike; got {shared} and {own}")
        shared = own
    return shared


def _rule_attributes(rule: LevelRule, levels: list[_Level]) -> dict[str, Any]:
    scales = [attribute(level.pool, "spatial_scale", 1.0) for level in levels]
    return {
        "spatial_scales": scales,
        "canonical_scale": rule.canonical_scale,
        "canonical_level": rule.canonical_level,
        "min_level": rule.first,
        "max_level": rule.highest,
        "log_epsilon": rule.log_epsilon,
        "level_epsilon": rule.level_epsilon,
    }


def _check_merge(last: ir.Node, pools: list[ir.Node]) -> tuple[ir.Value, list[ir.Node]]:
    """Check that each merge adds one map's result to zeros; return the zeros and the merges."""
    merges: list[ir.Node] = []
    merged: list[ir.Node] = []
    value: ir.Value | None = last.outputs[0]
    while (node := producer(value, *_SCATTERS, "Add")) is not None:
        if node.op_type == "Add":
            places = [place for place in (0, 1) if _pool_of(node.inputs[place]) in pools]
            if not places:
                break
            result, value = node.inputs[places[0]], node.inputs[1 - places[0]]
        else:
            if attribute(node, "reduction", "none") != "none":
                raise NotConvertibleError(f"{label(node)} must replace rows, not combine them")
            result, value = node.inputs[2], node.inputs[0]
        pool = _pool_of(result)
        if pool is None:
            raise NotConvertibleError(f"{label(node)} must merge the result of a RoiAlign")
        merged.append(pool)
        merges.append(node)
    if value is None or sorted(merged, key=id) != sorted(pools, key=id):
        raise NotConvertibleError("each map's result must be merged exactly once")
    joined = producer(value, "Concat")  # with those of boxes in front
    if not all(map(_is_zero, joined.inputs if joined is not None else [value])):
        raise NotConvertibleError(f"results must be merged into zeros; got {value.name}")
    return value, merges


def _pool_of(value: ir.Value | None) -> ir.Node | None:
    """Return the RoiAlign whose result a value is, possibly masked."""
    for each in _factors(value, "Cast", "Identity", "Reshape", "Mul"):
        node = each.producer()
        if node is not None and is_own_roi_align(node):
            return node
    return None


def _is_zero(value: ir.Value | None) -> bool:
    """Whether a value is zeros of any shape."""
    factors = _factors(value, "Expand", "Mul", "Cast", "Identity", "Reshape")
    return any(is_filled(each, 0) for each in factors)


def _factors(value: ir.Value | None, *steps: str) -> Iterator[ir.Value]:
    """Yield what a value is made of by these steps: both factors of a Mul, the first of others."""
    seen: set[ir.Value] = set()
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if each is None or each in seen:
            continue
        seen.add(each)
        yield each
        step = producer(each, *steps)
        if step is not None:
            waiting += reversed(step.inputs[: 2 if step.op_type == "Mul" else 1])
