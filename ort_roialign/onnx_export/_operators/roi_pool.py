"""`torchvision::roi_pool` as `ort_roialign::RoiPool`, in both of PyTorch's exporters."""

from __future__ import annotations

from typing import Any

import onnx
import torch
import torchvision  # noqa: F401  registers torch.ops.torchvision
from onnx.defs import OpSchema
from onnxscript import opset18
from torch.onnx import symbolic_helper

from ort_roialign.onnx_export._operators._translation import (
    Translation,
    constant_int,
    roi_operator,
    set_pooled_type,
    split_rois_dynamo,
    split_rois_torchscript,
)

_ROI_POOL = roi_operator(
    "RoiPool",
    {
        "output_height": OpSchema.AttrType.INT,
        "output_width": OpSchema.AttrType.INT,
        "spatial_scale": OpSchema.AttrType.FLOAT,
    },
    {"Y": "T", "argmax": "TIndex"},
)


# Argument names are those of the PyTorch operator: the exporter passes them by keyword too.
# torchvision's argmax is int32, the operator's int64.
def _dynamo(
    input: Any,  # noqa: A002
    rois: Any,
    spatial_scale: float,
    pooled_height: int,
    pooled_width: int,
) -> Any:
    boxes, batch_indices = split_rois_dynamo(input, rois)
    pooled, argmax = _ROI_POOL(
        input,
        boxes,
        batch_indices,
        output_height=constant_int("RoiPool", "output_height", pooled_height),
        output_width=constant_int("RoiPool", "output_width", pooled_width),
        spatial_scale=spatial_scale,
    )
    return pooled, opset18.Cast(argmax, to=onnx.TensorProto.INT32)


@symbolic_helper.parse_args("v", "v", "f", "i", "i")
def _torchscript(
    g: Any,
    input: Any,  # noqa: A002
    rois: Any,
    spatial_scale: float,
    pooled_height: int,
    pooled_width: int,
) -> Any:
    boxes, batch_indices = split_rois_torchscript(g, input, rois)
    pooled, argmax = g.op(
        "ort_roialign::RoiPool",
        input,
        boxes,
        batch_indices,
        output_height_i=pooled_height,
        output_width_i=pooled_width,
        spatial_scale_f=spatial_scale,
        outputs=2,
    )
    set_pooled_type(pooled, input, (pooled_height, pooled_width))
    argmax.setType(pooled.type().with_dtype(torch.int64))
    return pooled, g.op("Cast", argmax, to_i=onnx.TensorProto.INT32)


TRANSLATION = Translation(
    torch_name="torchvision::roi_pool",
    torch_overload=torch.ops.torchvision.roi_pool.default,
    dynamo=_dynamo,
    torchscript=_torchscript,
)
