"""`torch.ops.ort_roialign.paste_masks` in both of PyTorch's exporters."""

from __future__ import annotations

from typing import Any

import onnx
import onnxscript
import torch
from onnx.defs import OpSchema
from onnxscript import opset18
from torch.onnx import symbolic_helper

import ort_roialign.torch  # noqa: F401  registers torch.ops.ort_roialign
from ort_roialign._domains import DOMAIN, DOMAIN_VERSION
from ort_roialign.onnx_export._operators._translation import (
    Translation,
    boxes_dynamo,
    boxes_torchscript,
    constant,
)

_NAME = "PasteMasks"
_FLOATING = ["tensor(float)", "tensor(double)", "tensor(float16)", "tensor(bfloat16)"]


def _schema(gives_bytes: bool) -> OpSchema:
    """Return what onnxscript has to know of the operator; the output's type follows from it."""
    parameter = OpSchema.FormalParameter
    return OpSchema(
        _NAME,
        DOMAIN,
        DOMAIN_VERSION,
        inputs=[parameter("masks", "T"), parameter("boxes", "TBoxes"), parameter("size", "TSize")],
        outputs=[parameter("Y", "TBytes" if gives_bytes else "T")],
        type_constraints=[
            ("T", _FLOATING, "masks"),
            ("TBoxes", _FLOATING, "boxes"),
            ("TSize", ["tensor(int64)"], "height and width"),
            ("TBytes", ["tensor(uint8)"], "0 and 1"),
        ],
        attributes=[
            OpSchema.Attribute("padding", OpSchema.AttrType.INT, required=True),
            OpSchema.Attribute("threshold", OpSchema.AttrType.FLOAT, required=gives_bytes),
        ],
    )


def _dynamo(
    masks: Any, boxes: Any, height: Any, width: Any, padding: int, threshold: float | None
) -> Any:
    op: Any = opset18  # its type hints know values of eager mode only

    def one_number(size: Any) -> Any:
        if isinstance(size, int):
            return op.Constant(value_ints=[size])
        return op.Reshape(op.Cast(size, to=onnx.TensorProto.INT64), op.Constant(value_ints=[1]))

    size = op.Concat(one_number(height), one_number(width), axis=0)
    attributes = {"padding": constant(_NAME, "padding", padding, int)}
    if threshold is not None:
        attributes["threshold"] = constant(_NAME, "threshold", threshold, float)
    opset = onnxscript.values.Opset(DOMAIN, DOMAIN_VERSION)
    operator: Any = onnxscript.values.Op(opset, _NAME, _schema(threshold is not None))
    return operator(masks, boxes_dynamo(masks, boxes), size, **attributes)


def _torchscript(
    g: Any, masks: Any, boxes: Any, image_size: Any, padding: Any, threshold: Any
) -> Any:
    attributes = {"padding_i": symbolic_helper._parse_arg(padding, "i", "padding")}
    gives_bytes = not symbolic_helper._is_none(threshold)
    if gives_bytes:
        attributes["threshold_f"] = symbolic_helper._parse_arg(threshold, "f", "threshold")
    boxes = boxes_torchscript(g, masks, boxes)
    pasted = g.op(f"{DOMAIN}::{_NAME}", masks, boxes, image_size, **attributes)
    type_ = masks.type().with_sizes([None, 1, None, None])
    pasted.setType(type_.with_dtype(torch.uint8) if gives_bytes else type_)
    return pasted


TRANSLATIONS = (
    Translation(  # each exporter meets an operator of its own
        torch_name=f"{DOMAIN}::paste_masks_traced",
        torch_overload=torch.ops.ort_roialign.paste_masks.default,
        dynamo=_dynamo,
        torchscript=_torchscript,
    ),
)
