"""The loop that pastes a Mask R-CNN's masks, as one PasteMasks.

The TorchScript exporter writes torchvision's `paste_masks_in_image` as a Loop over the masks,
after nodes that frame the masks with zeros and stretch the boxes. Where masks, boxes and the
image's size come from is read here; a run of all that on random masks then proves that it is
what PasteMasks computes.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from ort_roialign import ops
from ort_roialign._domains import STANDARD_DOMAINS
from ort_roialign.convert._graph import (
    NotConvertibleError,
    all_nodes,
    attribute,
    become,
    inputs_of,
    insert_before,
    insert_constant,
    producer,
    scalar,
    subgraphs,
    tensor_of,
)
from ort_roialign.convert._pyramid_proof import BOX_COLUMNS, box_sources
from ort_roialign.convert._region import Array, Region, nodes_between
from ort_roialign.convert._rows import SizeReader, entries_of
from ort_roialign.convert._steps import check_loop_steps

# torchvision frames masks with one row of zeros, whatever their size.
_PADDING = 1
_SEED = 20170320
# Numbers of masks, and images as large as detectors take them, where the model says none.
_RUNS = ((9, (37, 45)), (1, (13, 1500)), (300, (1500, 11)))
_MASK_SIDES = (28, 21)
_MASK_AXES = 4
# The exported Resize rounds a pixel's place in a mask otherwise: 1e-5 cells between values 0 to 1.
_TOLERANCE = 1e-4


def may_paste_masks(node: ir.Node) -> bool:
    """Whether a Loop resizes something and appends it to the one thing that it returns."""
    if node.op_type != "Loop" or node.domain not in STANDARD_DOMAINS or len(node.outputs) != 1:
        return False
    inner = {each.op_type for graph in subgraphs(node) for each in all_nodes(graph)}
    return {"Resize", "Concat", "Slice"} <= inner


def convert_mask_loop(loop: ir.Node, opsets: Mapping[str, int]) -> ir.Node:
    """Make a loop over masks one PasteMasks, in place of the Unsqueeze after it.

    Returns:
        The new node.

    Raises:
        NotConvertibleError: if it is not certain that PasteMasks computes the same; nothing is
            changed then.
    """
    if len(loop.inputs) != 3:
        raise NotConvertibleError("a loop over masks must carry the pasted masks and nothing else")
    last = _unsqueeze_after(loop)
    size = _image_size(loop.inputs[2])
    masks, framed = _framed_masks(loop)
    boxes = _boxes(loop)
    _check_trips(loop, framed)
    given = [masks, boxes, *(side for side in size if isinstance(side, ir.Value))]
    before = [each for each in nodes_between(given, last.outputs[0]) if each is not loop]
    sides = [side for side in (masks.shape or ())[2:] if isinstance(side, int)]
    sides += [side + 2 * _PADDING for side in sides]
    sides += [side for side in size if isinstance(side, int)]
    check_loop_steps(before, loop, sides)
    _prove(last, masks, boxes, size, opsets)
    sizes = [_as_vector(last, value, side) for value, side in zip(size, "yx", strict=True)]
    image_size = insert_before(last, "Concat", sizes, "image_size", axis=0)
    become(last, "PasteMasks", [masks, boxes, image_size], {"padding": _PADDING})
    return last


def _unsqueeze_after(loop: ir.Node) -> ir.Node:
    """Return the node that gives the pasted masks [R, H, W] their channel."""
    pasted = loop.outputs[0]
    users = [user for user, _ in pasted.uses()]
    if len(users) != 1 or pasted.is_graph_output() or users[0].op_type != "Unsqueeze":
        raise NotConvertibleError("the pasted masks must go into an Unsqueeze and nowhere else")
    return users[0]


def _image_size(empty: ir.Value | None) -> tuple[ir.Value | int, ir.Value | int]:
    """Read height and width out of the empty tensor [0, H, W] that masks are appended to."""
    folded = tensor_of(empty)
    if folded is not None and len(folded.shape) == 3 and folded.size == 0:
        return int(folded.shape.numpy()[1]), int(folded.shape.numpy()[2])
    filled = producer(empty, "ConstantOfShape")
    entries = entries_of(filled.inputs[0]) if filled is not None else []
    sides = [side for side in entries[1:] if side is not None]
    if len(entries) != 3 or len(sides) != 2:
        raise NotConvertibleError("masks must be appended to an empty tensor [0, height, width]")
    return sides[0], sides[1]


def _framed_masks(loop: ir.Node) -> tuple[ir.Value, ir.Value]:
    """Return the masks [R, 1, M, M] before and after they are framed."""
    pads = [node for value in inputs_of(loop) if (node := producer(value, "Pad")) is not None]
    if len(pads) != 1 or pads[0].inputs[0] is None:
        raise NotConvertibleError("a loop over masks must read masks framed by one Pad")
    shape = pads[0].inputs[0].shape
    if shape is not None and len(shape) != _MASK_AXES:
        raise NotConvertibleError(f"masks must have shape [R, 1, M, M]; got {shape}")
    return pads[0].inputs[0], pads[0].outputs[0]


def _check_trips(loop: ir.Node, framed: ir.Value) -> None:
    """Check that the loop runs once for every mask."""
    (body,) = subgraphs(loop)
    goes_on = [loop.inputs[1], body.outputs[0]]
    while (step := producer(goes_on[1], "Identity")) is not None:
        goes_on[1] = step.inputs[0]
    always = all(each is None or scalar(each) or each is body.inputs[1] for each in goes_on)
    sizes = SizeReader()
    if sizes.size(loop.inputs[0]) != sizes.rows(framed) or not always:
        raise NotConvertibleError("a loop over masks must run once for each of them")


def _boxes(loop: ir.Node) -> ir.Value:
    """Return the boxes [R, 4] before they are stretched."""
    for value in inputs_of(loop):
        cast = producer(value, "Cast")
        joined = producer(cast.inputs[0], "Concat") if cast is not None else None
        if joined is None or attribute(joined, "axis", 0) != 1 or len(joined.inputs) != 4:
            continue
        edge = producer(joined.inputs[0], "Unsqueeze")
        difference = producer(edge.inputs[0], "Sub") if edge is not None else None
        centre = difference.inputs[0] if difference is not None else None
        half = producer(centre, "Mul")
        total = producer(half.inputs[0], "Add") if half is not None else None
        if total is not None and total.inputs[0] is not None and total.inputs[1] is not None:
            sources = {*box_sources(total.inputs[0]), *box_sources(total.inputs[1])}
            if len(sources) == 1 and _may_be_boxes(boxes := sources.pop()):
                return boxes
    raise NotConvertibleError("a loop over masks must read boxes [R, 4] stretched about centres")


def _may_be_boxes(value: ir.Value) -> bool:
    """Whether nothing says that a value has other than four columns."""
    columns = value.shape[1] if value.shape is not None and len(value.shape) == 2 else None
    return not isinstance(columns, int) or columns == BOX_COLUMNS


def _prove(
    last: ir.Node,
    masks: ir.Value,
    boxes: ir.Value,
    size: tuple[ir.Value | int, ir.Value | int],
    opsets: Mapping[str, int],
) -> None:
    """Run the loop and what comes before it on random masks, and compare with PasteMasks."""
    rng = np.random.default_rng(_SEED)
    region: Region | None = None
    for count, drawn in _RUNS:
        image = tuple(
            side if isinstance(side, int) else number
            for side, number in zip(size, drawn, strict=True)
        )
        shape = [count, 1, *_MASK_SIDES]
        for axis, known in enumerate(masks.shape or ()):
            shape[axis] = known if isinstance(known, int) else shape[axis]
        values: dict[ir.Value, Array] = {
            masks: rng.uniform(-2, 2, shape).astype(np.float32),
            boxes: _draw_boxes(rng, shape[0], image),
        }
        for value, number in zip(size, image, strict=True):
            if isinstance(value, ir.Value):
                values[value] = np.array(number, np.int64)
        region = region or Region(values, last.outputs[0], opsets)
        actual = region.run(values)
        expected = ops.paste_masks(values[masks], values[boxes], image, padding=_PADDING)
        if actual.shape != expected.shape:
            raise NotConvertibleError(
                f"it gives {actual.shape} where PasteMasks gives {expected.shape}"
            )
        largest = float(np.abs(actual - expected).max(initial=0))
        if not largest <= _TOLERANCE:
            raise NotConvertibleError(f"random masks differ from PasteMasks by {largest:.2g}")


def _draw_boxes(rng: np.random.Generator, count: int, image: tuple[int, ...]) -> Array:
    """Draw boxes inside the image, as detectors clip them to it; some have but a few pixels."""
    height, width = image
    limits = np.array([width, height])
    corners = rng.uniform(0, 0.9, (count, 2)) * limits
    ends = corners + rng.uniform(0, 1, (count, 2)) ** 2 * (limits - corners)
    return np.concatenate([corners, ends], axis=1).astype(np.float32)


def _as_vector(node: ir.Node, side: ir.Value | int, axis: str) -> ir.Value:
    """Put a side of the image [1] in front of a node."""
    if isinstance(side, int):
        return insert_constant(node, [side], f"image_{axis}")
    shape = insert_constant(node, [1], f"image_{axis}_shape")
    return insert_before(node, "Reshape", [side, shape], f"image_{axis}")
