"""RoiAlign of the standard domain, as this package's.

Source: ONNX RoiAlign-10, -16 and -22.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ort_roialign._domains import STANDARD_DOMAINS
from ort_roialign._opset import COORDINATE_MODE_SINCE
from ort_roialign.convert._graph import (
    NotConvertibleError,
    attribute,
    become,
    check_inputs,
    constant,
    producer,
)

_FIRST_OPSET = 10
_MODE = "coordinate_transformation_mode"


def is_standard_roi_align(node: ir.Node) -> bool:
    """Whether a node is ONNX's RoiAlign."""
    return node.domain in STANDARD_DOMAINS and node.op_type == "RoiAlign"


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
    if opset < _FIRST_OPSET:
        raise NotConvertibleError(
            f"ONNX has RoiAlign since opset {_FIRST_OPSET}; the model is of opset {opset}"
        )
    warnings = []
    x, rois, batch_indices = node.inputs
    default = "half_pixel" if opset >= COORDINATE_MODE_SINCE else "output_half_pixel"
    given = node.attributes.get(_MODE)
    mode = None if given is not None and given.is_ref() else attribute(node, _MODE, default)
    unmoved = _before_shift(node, rois)
    if unmoved is not None and mode == "output_half_pixel" and fold_shift:
        rois, mode = unmoved, "half_pixel"
        warnings.append(
            "Sub(rois, 0.5 / spatial_scale) became half_pixel, which its author "
            "meant; boxes narrower than one cell of the map are no longer widened to one"
        )
    elif unmoved is not None and mode == "half_pixel":
        warnings.append(
            "boxes are moved by half a cell twice, by Sub(rois, 0.5 / "
            "spatial_scale) and by half_pixel; this was kept, though its author hardly meant it"
        )
    changes = (
        {_MODE: mode} if mode is not None and (given is not None or mode != "half_pixel") else {}
    )
    reduce = node.attributes.get("mode")
    if reduce is not None and not reduce.is_ref():
        changes["mode"] = attribute(node, "mode", "avg").lower()  # onnxruntime takes it in any case
    if reduce is not None and (reduce.is_ref() or changes["mode"] == "max"):
        warnings.append(
            "mode max took the largest weighted corner of the samples in "
            "onnxruntime, and takes the largest interpolated sample now"
        )
    become(node, "RoiAlign", [x, rois, batch_indices], changes, keep_others=True)
    return warnings


def _before_shift(node: ir.Node, rois: ir.Value | None) -> ir.Value | None:
    """Return the rois before Sub(rois, 0.5 / spatial_scale), or None if that is not there.

    Before opset 16 exporters wrote `aligned=True` so.
    """
    sub = producer(rois, "Sub")
    moved = constant(sub.inputs[1]) if sub is not None else None
    unmoved = sub.inputs[0] if sub is not None else None
    given = node.attributes.get("spatial_scale")
    if unmoved is None or moved is None or (given is not None and given.is_ref()):
        return None
    scale = attribute(node, "spatial_scale", 1.0)
    # One number, or one a column; not one a row.
    of_columns = moved.size == 1 or (moved.size == 4 and moved.shape[-1] == 4)
    if not of_columns or moved.ndim > 2 or not scale > 0:
        return None
    if unmoved.shape is not None and len(unmoved.shape) != 2:
        return None
    half_cell = np.float32(0.5 / scale)
    # The author's scale was rounded twice, to write the attribute and to write the constant.
    if np.any(~(np.abs(moved - half_cell) <= 2 * np.spacing(half_cell))):
        return None
    return unmoved
