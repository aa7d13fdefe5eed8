"""One operator of the family in a model, its inputs, and what the reference gives for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from ort_roialign import reference
from ort_roialign._signatures import OPERATORS

Array = npt.NDArray[Any]
NUM_IMAGES, PH, PW = 2, 3, 2
SCALES = [0.125, 0.0625, 0.03125]
IMAGE_HEIGHT, IMAGE_WIDTH = 112, 160
# Each operator with attributes that are none of the defaults.
SIZE = {"output_height": PH, "output_width": PW}
GRID = {**SIZE, "sampling_ratio": 2}
LEVELS = {"spatial_scales": SCALES, "canonical_scale": 40.0, "canonical_level": 3}
ANGLE = {"angle_unit": "degrees", "clockwise": 1}
ATTRIBUTES: dict[str, dict[str, Any]] = {
    "RoiAlign": {**GRID, "spatial_scale": 0.125, "mode": "max"},
    "MultiScaleRoiAlign": {**GRID, **LEVELS},
    "RoiAlignRotated": {**GRID, "spatial_scale": 0.125, **ANGLE},
    "MultiScaleRoiAlignRotated": {**GRID, **LEVELS, **ANGLE},
    "RoiPool": {**SIZE, "spatial_scale": 0.125},
    "PsRoiAlign": {**GRID, "spatial_scale": 0.125},
    "PsRoiPool": {**SIZE, "spatial_scale": 0.125},
    "PrRoiPool": {**SIZE, "spatial_scale": 0.125},
    "DeformRoiPool": {**GRID, "spatial_scale": 0.125, "gamma": 0.5},
}


def upright_boxes(rng: np.random.Generator, image_pixels_per_cell: float = 8) -> Array:
    """Return boxes [R, 4] of every kind, in pixels of a 112 x 160 image."""
    corner = rng.uniform(-30, 150, (20, 2))
    random = np.concatenate([corner, corner + rng.uniform(-40, 120, (20, 2))], 1)
    cell = image_pixels_per_cell
    special = [
        [40, 40, 40, 40],  # no area
        [60, 20, 30, 70],  # only the width is negative
        [60, 70, 30, 20],  # both sides are
        [0, 0, 160, 112],  # the whole image
        [-500, -500, -400, -400],  # wholly outside
        [-3.9, -3.9, 8.1, 12.3],  # within a cell of the border
        [2 * cell, 3 * cell, 2.25 * cell, 3.25 * cell],  # a part of a cell
    ]
    return np.concatenate([random, special])


def rotated_boxes(rng: np.random.Generator) -> Array:
    """Return boxes [R, 5], in pixels of a 112 x 160 image, and angles of any unit."""
    boxes = upright_boxes(rng)
    centre, size = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    angle = rng.uniform(-200, 200, (len(boxes), 1))
    angle[::4] = 90
    angle[1::4] = 0
    return np.concatenate([centre, size, angle], 1)


def family_inputs(
    name: str,
    rng: np.random.Generator,
    *,
    map_type: Any = np.float32,
    rois_type: Any = np.float32,
    num_maps: int = len(SCALES),
    with_offset: bool = True,
    num_rois: int | None = None,
) -> list[Array]:
    """Return inputs in the operator's order; the maps of stride 8 are [2, C, 14, 20]."""
    signature = OPERATORS[name]
    boxes = rotated_boxes(rng) if "angle_unit" in signature.attributes else upright_boxes(rng)
    boxes = boxes[:num_rois].astype(rois_type)
    channels = 4 * (PH * PW if signature.channel_per_bin else 1)
    maps = [
        rng.standard_normal((NUM_IMAGES, channels, 14 >> level, 20 >> level)).astype(map_type)
        for level in range(num_maps if signature.variadic else 1)
    ]
    given = {
        "X": maps,
        "rois": [boxes],
        "batch_indices": [rng.integers(0, NUM_IMAGES, len(boxes))],
        "offset": [rng.uniform(-1, 1, (len(boxes), 2, PH, PW)).astype(map_type)],
    }
    if not with_offset:
        del given["offset"]
    return [array for input_ in signature.inputs for array in given.get(input_, [])]


def family_model(
    name: str,
    attributes: dict[str, Any],
    inputs: Sequence[Array],
    *,
    opset: int = 18,
    input_names: Sequence[str] | None = None,
) -> onnx.ModelProto:
    """Return a model of one node, of sizes that are known at run time only."""
    names = [f"input_{number}" for number in range(len(inputs))]
    node = helper.make_node(name, input_names or names, ["Y"], domain="ort_roialign", **attributes)
    types = [helper.np_dtype_to_tensor_dtype(each.dtype) for each in inputs]
    map_at = OPERATORS[name].inputs.index("X")
    graph = helper.make_graph(
        [node],
        "one_node",
        [
            helper.make_tensor_value_info(each, type_, [f"{each}_{i}" for i in range(array.ndim)])
            for each, type_, array in zip(names, types, inputs, strict=True)
        ],
        [helper.make_tensor_value_info("Y", types[map_at], ["R", "C", PH, PW])],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("ort_roialign", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def family_reference(name: str, attributes: dict[str, Any], inputs: Sequence[Array]) -> Array:
    result = getattr(reference, OPERATORS[name].function_name)(*inputs, **attributes)
    return result[0] if isinstance(result, tuple) else result
