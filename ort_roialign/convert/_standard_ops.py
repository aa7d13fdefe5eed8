"""RoiAlign and MaxRoiPool of the standard domain, as this package's operators.

Sources: ONNX RoiAlign-10, -16 and -22, MaxRoiPool-1 and -22.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ort_roialign.convert._graph import (
    NotConvertibleError,
    attribute,
    become,
    check_inputs,
    constant,
    label,
    producer,
    split_image_number,
)

# From this opset on RoiAlign has coordinate_transformation_mode.
_COORDINATE_MODE_SINCE = 16
_MODE = "coordinate_transformation_mode"


def convert_roi_align(node: ir.Node, opset: int, fold_shift: bool) -> list[str]:
    """Make ONNX's RoiAlign this package's, in place.

    Args:
        node: the node.
        opset: version of the default domain.
        fold_shift: whether boxes that were moved by half a cell beforehand become `half_pixel`.

    Returns:
        Where the new node means something else, a sentence each.
    """
    check_inputs(node, 3)
    warnings = []
    x, rois, batch_indices = node.inputs
    default = "half_pixel" if opset >= _COORDINATE_MODE_SINCE else "output_half_pixel"
    given = node.attributes.get(_MODE)
    mode = default if given is None else None if given.is_ref() else given.as_string()
    unmoved = _before_shift(node, rois)
    if unmoved is not None and mode == "output_half_pixel" and fold_shift:
        rois, mode = unmoved, "half_pixel"
        warnings.append(
            f"{label(node)}: Sub(rois, 0.5 / spatial_scale) became half_pixel, which its author "
            f"meant; boxes narrower than one cell of the map are no longer widened to one"
        )
    elif unmoved is not None and mode == "half_pixel":
        warnings.append(
            f"{label(node)}: boxes are moved by half a cell twice, by Sub(rois, 0.5 / "
            f"spatial_scale) and by half_pixel; this was kept, though its author hardly meant it"
        )
    reduce = node.attributes.get("mode")
    if reduce is not None and (reduce.is_ref() or reduce.as_string() == "max"):
        warnings.append(
            f"{label(node)}: mode max took the largest weighted corner of the samples in "
            f"onnxruntime, and takes the largest interpolated sample now"
        )
    become(node, "RoiAlign", [x, rois, batch_indices])
    if mode is not None and (given is not None or mode != "half_pixel"):
        node.attributes[_MODE] = ir.AttrString(_MODE, mode)
    return warnings


def _before_shift(node: ir.Node, rois: ir.Value | None) -> ir.Value | None:
    """Return the rois before Sub(rois, 0.5 / spatial_scale), or None if that is not there.

    Before opset 16 exporters wrote `aligned=True` so.
    """
    sub = producer(rois, "Sub")
    moved = constant(sub.inputs[1]) if sub is not None else None
    scale = node.attributes.get("spatial_scale")
    if sub is None or moved is None or (scale is not None and scale.is_ref()):
        return None
    half_cell = np.float32(0.5 / (1.0 if scale is None else scale.as_float()))
    # The author's scale was rounded twice, to write the attribute and to write the constant.
    if moved.size == 0 or np.any(np.abs(moved - half_cell) > 2 * np.spacing(half_cell)):
        return None
    return sub.inputs[0]


def convert_max_roi_pool(node: ir.Node, opset: int, fold_shift: bool) -> list[str]:
    """Make ONNX's MaxRoiPool this package's RoiPool, in place."""
    check_inputs(node, 2)
    sides = attribute(node, "pooled_shape", [])
    if len(sides) != 2:
        raise NotConvertibleError(f"pooled_shape must be height and width; got {sides}")
    attributes = {
        "output_height": int(sides[0]),
        "output_width": int(sides[1]),
        "spatial_scale": float(attribute(node, "spatial_scale", 1.0)),
    }
    x, rois = node.inputs
    assert rois is not None
    become(node, "RoiPool", [x, *split_image_number(node, rois)], attributes)
    return []
