"""torchvision's operators `torchvision::*` as this package's, in both of PyTorch's exporters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx
import torch
import torchvision  # noqa: F401  registers torch.ops.torchvision
from onnxscript import opset18
from torch.onnx import symbolic_helper

from ort_roialign._signatures import OPERATORS
from ort_roialign.onnx_export._operators._translation import (
    Translation,
    boxes_dynamo,
    boxes_torchscript,
    constant,
    dynamo_node,
    torchscript_node,
)


def _attributes(
    name: str,
    spatial_scale: float,
    pooled_height: object,
    pooled_width: object,
    sampling_ratio: int | None,
    aligned: bool | None,
) -> dict[str, Any]:
    """Return the attributes that the operator has, from torchvision's arguments."""
    values = {
        "mode": "avg",
        "output_height": constant(name, "output_height", pooled_height, int),
        "output_width": constant(name, "output_width", pooled_width, int),
        # torchvision's -1 is an adaptive grid too.
        "sampling_ratio": max(sampling_ratio or 0, 0),
        "spatial_scale": spatial_scale,
        "coordinate_transformation_mode": "half_pixel" if aligned else "output_half_pixel",
    }
    return {attribute: values[attribute] for attribute in OPERATORS[name].attributes}


def _dynamo(name: str, num_results: int) -> Callable[..., Any]:
    # Argument names are those of the PyTorch operators: the exporter passes them by keyword too.
    def translate(
        input: Any,  # noqa: A002
        rois: Any,
        spatial_scale: float,
        pooled_height: int,
        pooled_width: int,
        sampling_ratio: int = -1,
        aligned: bool = False,
    ) -> Any:
        op: Any = opset18  # its type hints know values of eager mode only
        boxes = op.Gather(rois, op.Constant(value_ints=[1, 2, 3, 4]), axis=1)
        images = op.Gather(rois, op.Constant(value_int=0), axis=1)
        images = op.Cast(images, to=onnx.TensorProto.INT64)
        boxes = boxes_dynamo(input, boxes)
        attributes = _attributes(
            name, spatial_scale, pooled_height, pooled_width, sampling_ratio, aligned
        )
        pooled, argmax = dynamo_node(name, (input, boxes, images), attributes)
        if num_results == 1:
            return pooled
        if argmax is None:
            argmax = _channel_mapping_dynamo(pooled)
        return pooled, op.Cast(argmax, to=onnx.TensorProto.INT32)

    return translate


def _channel_mapping_dynamo(pooled: Any) -> Any:
    """Return the map's channel that each of the bins [R, C, PH, PW] reads: (c * PH + ph) * PW + pw.

    torchvision's gradients need it, hence it is mostly left out as unused.
    """
    op: Any = opset18
    numbers = op.Range(
        op.Constant(value_int=0), op.ReduceProd(op.Shape(pooled, start=1), keepdims=0),
        op.Constant(value_int=1),
    )  # fmt: skip
    return op.Expand(op.Reshape(numbers, op.Shape(pooled, start=1)), op.Shape(pooled))


def _torchscript(name: str, num_results: int) -> Callable[..., Any]:
    @symbolic_helper.parse_args("v", "v", "f", "i", "i", "i", "i")
    def translate(
        g: Any,
        input: Any,  # noqa: A002
        rois: Any,
        spatial_scale: float,
        pooled_height: int,
        pooled_width: int,
        sampling_ratio: int = -1,
        aligned: int = False,
    ) -> Any:
        coordinates = g.op("Constant", value_t=torch.tensor([1, 2, 3, 4]))
        boxes = g.op("Gather", rois, coordinates, axis_i=1)
        images = g.op("Gather", rois, g.op("Constant", value_t=torch.tensor(0)), axis_i=1)
        images = g.op("Cast", images, to_i=onnx.TensorProto.INT64)
        boxes = boxes_torchscript(g, input, boxes)
        attributes = _attributes(
            name, spatial_scale, pooled_height, pooled_width, sampling_ratio, bool(aligned)
        )
        pooled, argmax = torchscript_node(g, name, (input, boxes, images), attributes)
        if num_results == 1:
            return pooled
        if argmax is None:
            argmax = _channel_mapping_torchscript(g, pooled)
        return pooled, g.op("Cast", argmax, to_i=onnx.TensorProto.INT32)

    return translate


def _channel_mapping_torchscript(g: Any, pooled: Any) -> Any:
    """Return the map's channel that each bin reads, as `_channel_mapping_dynamo`."""
    of_one_roi = g.op("Shape", pooled, start_i=1)
    zero, one = (g.op("Constant", value_t=torch.tensor(number)) for number in (0, 1))
    numbers = g.op("Range", zero, g.op("ReduceProd", of_one_roi, keepdims_i=0), one)
    mapping = g.op("Expand", g.op("Reshape", numbers, of_one_roi), g.op("Shape", pooled))
    mapping.setType(pooled.type().with_dtype(torch.int64))
    return mapping


def _translation(torch_name: str, name: str, num_results: int) -> Translation:
    return Translation(
        torch_name=f"torchvision::{torch_name}",
        torch_overload=getattr(torch.ops.torchvision, torch_name).default,
        dynamo=_dynamo(name, num_results),
        torchscript=_torchscript(name, num_results),
    )


# torchvision's second result is the cell of the maximum, or the channel that a bin reads.
TRANSLATIONS = (
    _translation("roi_align", "RoiAlign", 1),
    _translation("roi_pool", "RoiPool", 2),
    _translation("ps_roi_align", "PsRoiAlign", 2),
    _translation("ps_roi_pool", "PsRoiPool", 2),
)
