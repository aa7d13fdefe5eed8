"""The operators that mmcv and mmdeploy export, as this package's.

Their rois have the image's number in front. Sources: mmcv's symbolics (mmcv/ops) and mmdeploy's
operators (csrc/mmdeploy/backend_ops); `src/ops/foreign_operators.cpp` has the same for the kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from ort_roialign.convert._graph import (
    NotConvertibleError,
    attribute,
    become,
    split_image_number,
    tensor_of,
)


def _sides(node: ir.Node, prefix: str = "output") -> dict[str, Any]:
    return {
        f"output_{side}": int(attribute(node, f"{prefix}_{side}", 1))
        for side in ("height", "width")
    }


def _scale(node: ir.Node) -> dict[str, Any]:
    return {"spatial_scale": float(attribute(node, "spatial_scale", 1.0))}


def _sampling(node: ir.Node) -> dict[str, Any]:
    aligned = attribute(node, "aligned", 1)
    return {
        **_sides(node),
        "sampling_ratio": int(attribute(node, "sampling_ratio", 0)),
        "coordinate_transformation_mode": "half_pixel" if aligned else "output_half_pixel",
    }


def _pyramid(node: ir.Node) -> dict[str, Any]:
    strides = [np.float32(stride) for stride in attribute(node, "featmap_strides", [])]
    maps = len(node.inputs) - 1
    if len(strides) != maps or not all(stride > 0 for stride in strides):
        raise NotConvertibleError(
            f"featmap_strides must be one positive number for each of {maps} maps; got {strides}"
        )
    factor = attribute(node, "roi_scale_factor", 1.0)
    if factor > 0 and factor != 1:
        raise NotConvertibleError(
            f"roi_scale_factor must be 1, or 0 or less, for boxes pooled as they are; got {factor}"
        )
    return {
        **_sampling(node),
        "spatial_scales": [float(np.float32(1) / stride) for stride in strides],
        "canonical_scale": float(attribute(node, "finest_scale", 56)),
        "canonical_level": 0,
        "min_level": 0,
        "max_level": maps - 1,
        "log_epsilon": 1e-6,
        "level_epsilon": 0.0,
    }


def _roi_align(node: ir.Node) -> dict[str, Any]:
    return {**_sampling(node), **_scale(node), "mode": attribute(node, "mode", "avg")}


def _roi_align_rotated(node: ir.Node) -> dict[str, Any]:
    clockwise = int(attribute(node, "clockwise", 0))
    return {**_sampling(node), **_scale(node), "clockwise": clockwise}


def _pr_roi_pool(node: ir.Node) -> dict[str, Any]:
    return {**_sides(node, "pooled"), **_scale(node)}


def _deform_roi_pool(node: ir.Node) -> dict[str, Any]:
    samples = float(attribute(node, "sampling_ratio", 0.0))
    if samples < 0 or samples != int(samples):
        raise NotConvertibleError(f"sampling_ratio must be a whole number; got {samples}")
    gamma = float(attribute(node, "gamma", 0.1))
    return {**_sides(node), **_scale(node), "sampling_ratio": int(samples), "gamma": gamma}


def _multi_level(node: ir.Node) -> dict[str, Any]:
    return {**_pyramid(node), "mode": "avg" if attribute(node, "pool_mode", 1) else "max"}


def _multi_level_rotated(node: ir.Node) -> dict[str, Any]:
    if attribute(node, "aligned", 1):
        raise NotConvertibleError(
            "with aligned=1 it moves boxes by half a cell and yet makes them at least one cell "
            "wide and high, which no operator of ort_roialign does; it runs as it is in a session "
            "with domains=['mmdeploy']"
        )
    return {**_pyramid(node), "clockwise": int(attribute(node, "clockwise", 0))}


# (domain, operator) -> this package's operator, its attributes, and the columns of a box.
_Rule = tuple[str, Callable[[ir.Node], dict[str, Any]], int]
RULES: dict[tuple[str, str], _Rule] = {
    ("mmcv", "MMCVRoiAlign"): ("RoiAlign", _roi_align, 4),
    ("mmcv", "PrRoIPool"): ("PrRoiPool", _pr_roi_pool, 4),
    ("mmcv", "MMCVDeformRoIPool"): ("DeformRoiPool", _deform_roi_pool, 4),
    ("mmdeploy", "MMCVRoIAlignRotated"): ("RoiAlignRotated", _roi_align_rotated, 5),
    ("mmdeploy", "MMCVMultiLevelRoiAlign"): ("MultiScaleRoiAlign", _multi_level, 4),
    ("mmdeploy", "MMCVMultiLevelRotatedRoiAlign"): (
        "MultiScaleRoiAlignRotated",
        _multi_level_rotated,
        5,
    ),
}


def convert_mmcv(node: ir.Node) -> None:
    """Make an operator of mmcv or mmdeploy this package's, in place."""
    operator, read_attributes, columns = RULES[node.domain, node.op_type]
    attributes = read_attributes(node)
    inputs = list(node.inputs)
    if operator.startswith("MultiScale"):
        rois, *maps = inputs
        assert rois is not None
        become(node, operator, [*split_image_number(node, rois, columns), *maps], attributes)
        return
    x, rois, *offsets = inputs
    assert rois is not None
    # mmcv hands over an empty tensor where there is no offset.
    offsets = [each for each in offsets if each is not None and not _is_empty(each)]
    become(node, operator, [x, *split_image_number(node, rois, columns), *offsets], attributes)


def _is_empty(value: ir.Value) -> bool:
    tensor = tensor_of(value)
    return tensor is not None and tensor.size == 0
