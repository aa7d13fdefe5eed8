"""One random call of each operator of the family, and the reference's answer to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from plugin import ELEMENT_TYPES, INPUTS, PYRAMID, random_rois

from ort_roialign import reference

Array = np.ndarray[Any, Any]
SCALE = 0.3
HEIGHT, WIDTH = 17, 23
BINS = {"output_height": 3, "output_width": 4}
NUM_IMAGES = 2


@dataclass(frozen=True)
class Case:
    """An operator with attributes.

    Attributes:
        operator: its name.
        attributes: of the node.
        forward: the reference of the operator.
        backward: the reference of its gradient.
        columns: of the RoIs.
        channels: of the output.
    """

    operator: str
    attributes: Mapping[str, Any]
    forward: Callable[..., Any]
    backward: Callable[..., Any]
    columns: int = 4
    channels: int = 3

    @property
    def maximum(self) -> bool:
        """Whether bins take a maximum, so that the output does not depend linearly on the maps."""
        return self.operator == "RoiPool" or self.attributes.get("mode") == "max"

    def draw(self, rng: np.random.Generator, type_name: str, num_rois: int = 9) -> dict[str, Array]:
        """Draw inputs, with boxes of images in no order and some of them partly outside."""
        dtype = ELEMENT_TYPES[type_name]
        image = {"image_width": WIDTH / SCALE, "image_height": HEIGHT / SCALE}
        boxes = random_rois(rng, num_rois, **image)
        channels = self.channels
        if self.operator.startswith("Ps"):
            channels *= BINS["output_height"] * BINS["output_width"]
        sizes = {"X": (HEIGHT, WIDTH), "X0": (HEIGHT, WIDTH), "X1": (9, 12), "X2": (5, 6)}
        values: dict[str, Array] = {
            name: rng.standard_normal((NUM_IMAGES, channels, *sizes[name])).astype(dtype)
            for name in ("X", *PYRAMID)
            if name in INPUTS[self.operator]
        }
        values["rois"] = (rotated(rng, boxes) if self.columns == 5 else boxes).astype(dtype)
        values["batch_indices"] = rng.integers(0, NUM_IMAGES, num_rois)
        values["offset"] = rng.standard_normal((num_rois, 2, *BINS.values())).astype(dtype)
        return {name: values[name] for name in INPUTS[self.operator]}

    def with_gradient(
        self, rng: np.random.Generator, inputs: Mapping[str, Array]
    ) -> dict[str, Array]:
        """The inputs with a random dY in front."""
        shape = (len(inputs["rois"]), self.channels, *BINS.values())
        like = inputs[next(name for name in inputs if name in ("X", *PYRAMID))]
        return {"dY": rng.standard_normal(shape).astype(like.dtype), **inputs}

    def expected(self, inputs: Mapping[str, Array]) -> list[Array]:
        """The reference's outputs."""
        return _as_list(self.forward(*inputs.values(), **self.attributes))

    def expected_gradients(self, inputs: Mapping[str, Array]) -> list[Array]:
        """The reference's gradients, of inputs that begin with dY."""
        return _as_list(self.backward(*inputs.values(), **self.attributes))


def with_wide_bins(case: Case, sampling_ratio: int) -> Case:
    """The operator with few bins, and as many samples a bin and axis where it has any."""
    attributes = {**case.attributes, "output_height": 1, "output_width": 2}
    if "sampling_ratio" in attributes:
        attributes["sampling_ratio"] = sampling_ratio
    return replace(case, attributes=attributes)


def on_a_wide_map(rng: np.random.Generator, case: Case, type_name: str) -> dict[str, Array]:
    """Inputs of a case with wide bins: some of the boxes are as large as a map of many cells."""
    dtype = ELEMENT_TYPES[type_name]
    height, width = 47, 61
    inputs = case.draw(rng, type_name)
    channels = case.channels * (2 if case.operator.startswith("Ps") else 1)
    for name in inputs:
        if name in ("X", *PYRAMID):
            inputs[name] = rng.standard_normal((NUM_IMAGES, channels, height, width)).astype(dtype)
    image_height, image_width = height / SCALE, width / SCALE
    box = [-9, 3, image_width + 5, image_height]
    if case.columns == 5:
        box = [image_width / 2, image_height / 2, 1.1 * image_width, image_height, 0.4]
    inputs["rois"][1::3] = np.array(box).astype(dtype)
    shape = (len(inputs["rois"]), 2, 1, 2)
    if "offset" in inputs:
        inputs["offset"] = rng.standard_normal(shape).astype(dtype)
    dy = rng.standard_normal((shape[0], case.channels, 1, 2)).astype(dtype)
    return {"dY": dy, **inputs}


def rotated(rng: np.random.Generator, boxes: Array) -> Array:
    """Turn boxes by any angle."""
    sides = boxes[:, 2:] - boxes[:, :2]
    angles = rng.uniform(-4, 4, (len(boxes), 1))
    return np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, sides, angles], axis=1)


def _as_list(results: Any) -> list[Array]:
    return list(results) if isinstance(results, (tuple, list)) else [results]


_GRID = {**BINS, "sampling_ratio": 2, "spatial_scale": SCALE}
_ADAPTIVE = {**_GRID, "sampling_ratio": 0}
_LEVELS = {
    **BINS,
    "spatial_scales": [SCALE, SCALE / 2, SCALE / 4],
    "canonical_scale": 10.0,
    "min_level": 3,
    "max_level": 5,
}
_POOL = {**BINS, "spatial_scale": SCALE}
_ROTATED = (reference.roi_align_rotated, reference.roi_align_rotated_grad, 5)
_MULTI = (reference.multi_scale_roi_align, reference.multi_scale_roi_align_grad)
_MULTI_ROTATED = (
    reference.multi_scale_roi_align_rotated,
    reference.multi_scale_roi_align_rotated_grad,
    5,
)
_PS_ALIGN = (reference.ps_roi_align, reference.ps_roi_align_grad)
_DEFORM = (reference.deform_roi_pool, reference.deform_roi_pool_grad)

CASES = {
    "MultiScaleRoiAlign": Case("MultiScaleRoiAlign", {**_LEVELS, "sampling_ratio": 2}, *_MULTI),
    "MultiScaleRoiAlign-max": Case("MultiScaleRoiAlign", {**_LEVELS, "mode": "max"}, *_MULTI),
    "RoiAlignRotated": Case("RoiAlignRotated", _GRID, *_ROTATED),
    "RoiAlignRotated-adaptive": Case(
        "RoiAlignRotated",
        {**_ADAPTIVE, "clockwise": 1, "coordinate_transformation_mode": "output_half_pixel"},
        *_ROTATED,
    ),
    "RoiAlignRotated-max": Case(
        "RoiAlignRotated", {**_GRID, "mode": "max", "angle_unit": "degrees"}, *_ROTATED
    ),
    "MultiScaleRoiAlignRotated": Case("MultiScaleRoiAlignRotated", _LEVELS, *_MULTI_ROTATED),
    "RoiPool": Case("RoiPool", _POOL, reference.roi_pool, reference.roi_pool_grad),
    "PsRoiAlign": Case("PsRoiAlign", _GRID, *_PS_ALIGN),
    "PsRoiAlign-adaptive": Case("PsRoiAlign", _ADAPTIVE, *_PS_ALIGN),
    "PsRoiPool": Case("PsRoiPool", _POOL, reference.ps_roi_pool, reference.ps_roi_pool_grad),
    "PrRoiPool": Case("PrRoiPool", _POOL, reference.pr_roi_pool, reference.pr_roi_pool_grad),
    "DeformRoiPool": Case("DeformRoiPool", _GRID, *_DEFORM),
    "DeformRoiPool-adaptive": Case("DeformRoiPool", {**_ADAPTIVE, "gamma": 0.3}, *_DEFORM),
    "RoiAlign": Case("RoiAlign", _ADAPTIVE, reference.roi_align, reference.roi_align_grad),
}
