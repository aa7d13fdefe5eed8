"""The proof that a pyramid's nodes compute what one MultiScaleRoiAlign computes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from ort_roialign import ops
from ort_roialign.convert._graph import (
    NotConvertibleError,
    attribute,
    constant,
    elements,
    inputs_of,
    label,
    operator_name,
    producer,
    tensor_of,
    used_elsewhere,
)
from ort_roialign.convert._levels import LevelRule
from ort_roialign.convert._region import Array, Region, nodes_between
from ort_roialign.convert._rows import (
    COLUMN_AXES,
    SizeReader,
    chooses_columns,
    entries_of,
    num_columns,
)

_SEED = 20170320
_BOXES_A_LEVEL = 12
_BOXES_WITHOUT_AREA = 3
# Boxes are drawn this near to the limits of levels, too. Nearer ones depend on the last digit of
# the logarithm, which differs between machines.
_NEAR_LIMIT = 1e-4
_IMAGES = 3
BOX_COLUMNS = 4
_CHANNELS = 5
# Both sides run the same kernels: sums of order 10 that are added in the same order.
_TOLERANCE = 1e-4


@dataclass(frozen=True)
class PyramidPart:
    """The nodes of a pyramid.

    Attributes:
        last: the last merge of the maps' results, or the Slice after it.
        chosen: the Equals that choose each map's boxes.
        maps: the feature maps.
        rois: boxes with their images, [R, 5].
        all_rois: what levels choose from, [in_front + R, 5]: `rois`, or these after boxes whose
            results `last` cuts off.
        in_front: number of such boxes.
        boxes: what areas are computed from: `rois`, or the boxes [R_i, 4] of each image.
        zeros: what the results are merged into.
    """

    last: ir.Node
    chosen: tuple[ir.Node, ...]
    maps: tuple[ir.Value, ...]
    rois: ir.Value
    all_rois: ir.Value
    in_front: int
    boxes: tuple[ir.Value, ...]
    zeros: ir.Value

    @property
    def images(self) -> ir.Value | None:
        """The images' numbers [R, 1] that stand before the boxes; None where `boxes` has them.

        Raises:
            NotConvertibleError: if `rois` is made in another way.
        """
        if self.rois in self.boxes:
            return None
        joined = producer(self.rois, "Concat")
        if (
            joined is None
            or len(joined.inputs) != 2
            or attribute(joined, "axis", 0) not in COLUMN_AXES
        ):
            raise NotConvertibleError(
                "boxes must be those that the levels follow from, with the image's number in front"
            )
        return joined.inputs[0]

    @property
    def inputs(self) -> list[ir.Value]:
        """What the part depends on, without `zeros`."""
        images = self.images
        given = [] if images is None or tensor_of(images) is not None else [images]
        return list(dict.fromkeys([*self.boxes, *given, *self.maps]))

    @property
    def zeros_are_inside(self) -> bool:
        """Whether a run must show the sizes of `zeros`, which follow from the boxes and the maps.

        They need not be shown where they are known, and cannot be where they follow from what the
        boxes were computed from, which is no part of this.
        """
        known = None not in (_sizes_of_zeros(self.zeros)[1:] or [None])
        if known and tensor_of(self.zeros) is None and self.has_zeros_of_all_rows:
            return False
        try:
            nodes = nodes_between(self.inputs, self.zeros)
        except NotConvertibleError:
            return False
        readers = [node for node in nodes if set(self.maps) & set(node.inputs)]
        return all(node.op_type in ("Shape", "RoiAlign") for node in readers)

    @property
    def has_zeros_of_all_rows(self) -> bool:
        """Whether `zeros` have as many rows as there are boxes, whatever the model is given."""
        return SizeReader().same_rows(self.all_rois, self.zeros)


def box_sources(area: ir.Value, rois: ir.Value | None = None) -> tuple[ir.Value, ...]:
    """Walk back from areas [R], or other such vectors, to the boxes whose columns they are made of.

    Args:
        area: the areas.
        rois: boxes with their images, which it goes back to where it can. Else it ends at what
            single columns are taken of.

    Returns:
        The boxes, of each image where there are several.

    Raises:
        NotConvertibleError: if they are not made of columns.
    """
    found: dict[ir.Value, None] = {}
    seen: set[ir.Value] = set()
    waiting: list[ir.Value | None] = [area]
    steps = ("Mul", "Sub", "Concat", "Squeeze", "Unsqueeze", "Reshape", "Cast", "Identity")
    while waiting:
        value = waiting.pop()
        if value is None or value in seen or constant(value) is not None:
            continue
        seen.add(value)
        node = value.producer()
        if node is not None and chooses_columns(node):
            found[_source_of_columns(node, rois)] = None
        elif producer(value, *steps) is not None and node is not None and _keeps_areas(node):
            # Reversed, so that boxes are found in the order of the images.
            waiting += reversed(node.inputs if node.op_type != "Reshape" else node.inputs[:1])
        else:
            operator = operator_name(node) if node is not None else "an input"
            raise NotConvertibleError(
                f"areas and centres must be made of columns of boxes, as (x2 - x1) * (y2 - y1) is; "
                f"got {value.name} of {operator}"
            )
    return tuple(found)


def _source_of_columns(node: ir.Node, rois: ir.Value | None) -> ir.Value:
    """Return what a node that chooses columns takes boxes from, by way of others like it."""
    sources: list[ir.Value] = []
    chosen: list[ir.Node] = []
    at: ir.Node | None = node
    while at is not None and chooses_columns(at) and at.inputs[0] is not None:
        chosen.append(at)
        sources.append(at.inputs[0])
        at = at.inputs[0].producer()
    if rois in sources:
        return rois
    for source, following in zip(sources, chosen[1:], strict=False):
        number = num_columns(following)
        if number is None or number >= BOX_COLUMNS:
            return source
    return sources[-1]


def read_areas(nodes: Iterable[ir.Node], area: ir.Value) -> set[ir.Node]:
    """Return the nodes that subtract and multiply, which must do so as in (x2 - x1) * (y2 - y1).

    Args:
        nodes: those between boxes and areas, each after its inputs.
        area: the areas.

    Raises:
        NotConvertibleError: if they compute something else.
    """
    found: set[ir.Node] = set()
    sides: set[ir.Value] = set()
    areas: set[ir.Value] = set()
    for node in nodes:
        given = {value for value in node.inputs if value is not None}
        fits = True
        if node.op_type == "Sub":
            found.add(node)
            fits = len(given) == 2 and not given & (sides | areas)
            fits = fits and all(tensor_of(value) is None for value in given)
            sides.update(node.outputs)
        elif node.op_type == "Mul":
            found.add(node)
            fits = len(given) == 2 and given <= sides
            areas.update(node.outputs)
        elif given & areas:
            areas.update(node.outputs)
        elif given & sides:
            sides.update(node.outputs)
        if not fits:
            raise NotConvertibleError(f"{label(node)} makes areas of more than two sides of a box")
    if area not in areas:
        raise NotConvertibleError(f"areas must be products of sides; got {area.name}")
    return found


def _keeps_areas(node: ir.Node) -> bool:
    """Whether a step is not a Cast to a type that areas are too large or not whole enough for."""
    return node.op_type != "Cast" or attribute(node, "to", 0) == ir.DataType.FLOAT


def check_users(part: PyramidPart, pools: Iterable[ir.Node]) -> None:
    """Check that nothing but the merges uses what the maps' boxes are pooled to.

    Boxes would be pooled twice else.
    """
    inside = set(pools)
    for node in nodes_of(part):
        if any(value.producer() in inside for value in inputs_of(node)):
            inside.add(node)
    values = [value for node in inside - {part.last} for value in node.outputs]
    value = used_elsewhere(values, inside)
    if value is not None:
        users = [label(user) for user, _ in value.uses() if user not in inside]
        raise NotConvertibleError(
            f"{value.name} is used outside the pooling too, by "
            f"{', '.join(users) or 'the outputs of the graph'}"
        )


def nodes_of(part: PyramidPart) -> list[ir.Node]:
    """Return the nodes of a part, each after its inputs."""
    cut = [] if part.zeros_are_inside else [part.zeros]
    return nodes_between([*part.inputs, *cut], part.last.outputs[0])


def prove(
    part: PyramidPart, rule: LevelRule, attributes: dict[str, Any], opsets: Mapping[str, int]
) -> None:
    """Run the part on random boxes of all levels, and compare with MultiScaleRoiAlign.

    Raises:
        NotConvertibleError: if a row differs, or the part cannot run.
    """
    rng = np.random.default_rng(_SEED)
    rows, channels = _fixed_sizes(part, attributes)
    region: Region | None = None
    for run, boxes in enumerate(_runs(_draw_boxes(rng, rule), rows)):
        images = _draw_images(rng, part, len(boxes))
        maps = _draw_maps(rng, part, channels, run % 2)
        values = {**_feed_boxes(part, boxes, images), **maps}
        if not part.zeros_are_inside:
            size = (part.in_front + len(boxes), maps[part.maps[0]].shape[1], *_sides(attributes))
            values[part.zeros] = np.zeros(size, np.float32)
        region = region or Region(values, part.last.outputs[0], opsets)
        expected = ops.multi_scale_roi_align(
            boxes, images[:, 0].astype(np.int64), *maps.values(), **attributes
        )
        _check_equal(region.run(values), expected)


def _check_equal(actual: Array, expected: Array) -> None:
    if actual.shape != expected.shape:
        raise NotConvertibleError(f"it gives {actual.shape} where one node gives {expected.shape}")
    difference = np.abs(actual - expected).reshape(len(expected), -1).max(axis=1)
    if not np.all(difference <= _TOLERANCE):
        raise NotConvertibleError(
            f"{np.sum(~(difference <= _TOLERANCE))} of {len(expected)} random boxes are pooled "
            f"otherwise than by one node"
        )


def _runs(boxes: Array, rows: int | None) -> list[Array]:
    """Divide boxes into runs of as many rows as the model has, or of two numbers of rows."""
    if rows is None:
        return [boxes, boxes[: len(boxes) // 2]]
    if rows == 0:
        raise NotConvertibleError("it pools no boxes")
    runs = -(-len(boxes) // rows)
    return np.split(np.resize(boxes, (runs * rows, 4)), runs)


def _sides(attributes: Mapping[str, Any]) -> tuple[int, int]:
    return attributes.get("output_height", 1), attributes.get("output_width", 1)


def _draw_boxes(rng: np.random.Generator, rule: LevelRule) -> Array:
    """Draw boxes [R, 4] of each level, of the levels beyond, and near their limits."""
    levels = np.arange(rule.lowest - 1, rule.highest + 2)
    limits = rule.canonical_scale * 2.0 ** (levels - rule.canonical_level)
    inside = limits[:, None] * 2.0 ** rng.uniform(0.05, 0.95, (len(levels), _BOXES_A_LEVEL))
    near = limits[:, None] * [1 - _NEAR_LIMIT, 1 + _NEAR_LIMIT]
    none = np.zeros(_BOXES_WITHOUT_AREA)
    sides = rng.permutation(np.concatenate([inside.ravel(), near.ravel(), none]))
    stretch = np.exp(rng.uniform(-1, 1, len(sides)))
    # Boxes begin near the origin, where the maps are: samples beyond them are worth nothing. Some
    # begin before it.
    corners = rng.uniform(-10, 30, (len(sides), 2))
    extents = np.stack([sides * stretch, sides / stretch], axis=1)
    return np.concatenate([corners, corners + extents], axis=1).astype(np.float32)


def _draw_images(rng: np.random.Generator, part: PyramidPart, rows: int) -> Array:
    """Return the images' numbers [R, 1]: the model's own where they are constant."""
    images = part.images
    tensor = tensor_of(images) if images is not None else None
    if tensor is not None:
        return elements(tensor).reshape(rows, 1)
    return rng.integers(0, _IMAGES, (rows, 1)).astype(np.float32)


def _draw_maps(
    rng: np.random.Generator, part: PyramidPart, channels: int | None, more: int
) -> dict[ir.Value, Array]:
    """Draw maps; `more` makes all their sizes others.

    Each map has another mean and other sides, so that one in another's place shows.
    """
    shape = (_IMAGES + 4 * more, channels or _CHANNELS + more)
    return {
        value: rng.normal(3 * n, 1, (*shape, 16 + n + 3 * more, 23 + 2 * n + more)).astype("f4")
        for n, value in enumerate(part.maps)
    }


def _feed_boxes(part: PyramidPart, boxes: Array, images: Array) -> dict[ir.Value, Array]:
    """Give boxes and images to the values that the part takes them from."""
    if part.images is None:
        if part.boxes != (part.rois,):
            raise NotConvertibleError("all areas must be those of one tensor of boxes")
        return {part.rois: np.concatenate([images, boxes], axis=1)}
    sizes = [each.shape[0] if each.shape is not None else None for each in part.boxes]
    fixed = [size for size in sizes if isinstance(size, int)]
    if len(fixed) == len(sizes) and sum(fixed) == len(boxes):
        ends = np.cumsum(fixed)[:-1]
    else:
        # Each image has another number of boxes.
        shares = np.cumsum(np.arange(1, len(sizes) + 1))
        ends = (len(boxes) * shares[:-1] / shares[-1]).astype(int)
    values = dict(zip(part.boxes, np.split(boxes, ends), strict=True))
    return values if tensor_of(part.images) is not None else {**values, part.images: images}


def _fixed_sizes(part: PyramidPart, attributes: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Return how many rows and channels the exporter wrote down, where it did.

    Raises:
        NotConvertibleError: if the zeros may have other sizes than the pooled boxes.
    """
    # What follows from the boxes inside the part shows in a run.
    is_fixed = isinstance(SizeReader().rows(part.zeros), int)
    if not part.has_zeros_of_all_rows and (is_fixed or not part.zeros_are_inside):
        raise NotConvertibleError(
            f"results must be merged into as many rows as there are boxes; {part.zeros.name} may "
            f"have another number of them"
        )
    shapes = [value.shape for value in part.maps if value.shape is not None]
    known = {shape[1] for shape in shapes if len(shape) == 4 and isinstance(shape[1], int)}
    channels = known.pop() if len(known) == 1 else None
    shape = _sizes_of_zeros(part.zeros)
    must = [channels, *_sides(attributes)]
    written = [size for size in shape[1:2] if size is not None]
    if known or written not in ([], [channels]) or not (part.zeros_are_inside or shape[1:] == must):
        raise NotConvertibleError(
            f"results must be merged into zeros of the maps' channels and the output's height and "
            f"width; {part.zeros.name} may have other ones"
        )
    rows = SizeReader().rows(part.rois)
    return rows if isinstance(rows, int) else None, channels


def _sizes_of_zeros(zeros: ir.Value | None) -> list[int | None]:
    """Return the sizes that are constant, None for others, or nothing where none is known."""
    tensor = tensor_of(zeros)
    if tensor is not None:
        return [int(size) for size in tensor.shape.numpy()]
    joined = producer(zeros, "Concat")
    if joined is not None and attribute(joined, "axis", 0) == 0:
        return [None, *_sizes_of_zeros(joined.inputs[-1])[1:]]
    node = producer(zeros, "ConstantOfShape", "Expand", "Reshape", "Mul", "Cast", "Identity")
    if node is None:
        return []
    if node.op_type in ("Expand", "Reshape"):
        sizes = entries_of(node.inputs[1])
    elif node.op_type == "ConstantOfShape":
        sizes = entries_of(node.inputs[0])
    else:  # Mul is by a constant zero
        return _sizes_of_zeros(node.inputs[0])
    return [size if isinstance(size, int) and size >= 0 else None for size in sizes]
