"""`torchvision::roi_align` as `ort_roialign::RoiAlign`, in both of PyTorch's exporters."""

from __future__ import annotations

from typing import Any

import torch
import torchvision  # noqa: F401  registers torch.ops.torchvision
from onnx.defs import OpSchema
from torch.onnx import symbolic_helper

from ort_roialign.onnx_export._operators._translation import (
    Translation,
    constant_int,
    roi_operator,
    set_pooled_type,
    split_rois_dynamo,
    split_rois_torchscript,
)

_ROI_ALIGN = roi_operator(
    "RoiAlign",
    {
        "mode": OpSchema.AttrType.STRING,
        "output_height": OpSchema.AttrType.INT,
        "output_width": OpSchema.AttrType.INT,
        "sampling_ratio": OpSchema.AttrType.INT,
        "spatial_scale": OpSchema.AttrType.FLOAT,
        "coordinate_transformation_mode": OpSchema.AttrType.STRING,
    },
    {"Y": "T"},
)


def _adaptive_as_zero(sampling_ratio: int) -> int:
    """Return torchvision's sampling ratio as ONNX writes it: 0, not -1, for an adaptive grid."""
    return max(sampling_ratio, 0)


def _coordinate_mode(aligned: bool) -> str:
    return "half_pixel" if aligned else "output_half_pixel"


# Argument names are those of the PyTorch operator: the exporter passes them by keyword too.
def _dynamo(
    input: Any,  # noqa: A002
    rois: Any,
    spatial_scale: float,
    pooled_height: int,
    pooled_width: int,
    sampling_ratio: int = -1,
    aligned: bool = False,
) -> Any:
    boxes, batch_indices = split_rois_dynamo(input, rois)
    return _ROI_ALIGN(
        input,
        boxes,
        batch_indices,
        mode="avg",
        output_height=constant_int("RoiAlign", "output_height", pooled_height),
        output_width=constant_int("RoiAlign", "output_width", pooled_width),
        sampling_ratio=_adaptive_as_zero(sampling_ratio),
        spatial_scale=spatial_scale,
        coordinate_transformation_mode=_coordinate_mode(aligned),
    )


@symbolic_helper.parse_args("v", "v", "f", "i", "i", "i", "i")
def _torchscript(
    g: Any,
    input: Any,  # noqa: A002
    rois: Any,
    spatial_scale: float,
    pooled_height: int,
    pooled_width: int,
    sampling_ratio: int,
    aligned: int,
) -> Any:
    boxes, batch_indices = split_rois_torchscript(g, input, rois)
    pooled = g.op(
        "ort_roialign::RoiAlign",
        input,
        boxes,
        batch_indices,
        mode_s="avg",
        output_height_i=pooled_height,
        output_width_i=pooled_width,
        sampling_ratio_i=_adaptive_as_zero(sampling_ratio),
        spatial_scale_f=spatial_scale,
        coordinate_transformation_mode_s=_coordinate_mode(bool(aligned)),
    )
    set_pooled_type(pooled, input, (pooled_height, pooled_width))
    return pooled


TRANSLATION = Translation(
    torch_name="torchvision::roi_align",
    torch_overload=torch.ops.torchvision.roi_align.default,
    dynamo=_dynamo,
    torchscript=_torchscript,
)
