"""What both exporters need to know of an operator, and the conversions operators share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx
import onnxscript
import torch
from onnx.defs import OpSchema
from onnxscript import opset18

from ort_roialign.errors import ExportError
from ort_roialign.onnx_export._domain import DOMAIN, DOMAIN_VERSION

_FLOATING = ["tensor(float)", "tensor(double)", "tensor(float16)", "tensor(bfloat16)"]
_TYPES = [
    ("T", _FLOATING, "feature map"),
    ("TRois", _FLOATING, "boxes: the type of the map, or float32 for a half-precision map"),
    ("TIndex", ["tensor(int64)"], "indices"),
]


@dataclass(frozen=True)
class Translation:
    """One PyTorch operator and its translations to an operator of this package.

    Attributes:
        torch_name: PyTorch's qualified name, such as "torchvision::roi_align".
        torch_overload: the same operator as torch.export records it.
        dynamo: builds the nodes from values of the torch.export-based exporter.
        torchscript: builds the nodes from values of a TorchScript graph.
    """

    torch_name: str
    torch_overload: Callable[..., Any]
    dynamo: Callable[..., Any]
    torchscript: Callable[..., Any]


def roi_operator(
    name: str, attributes: Mapping[str, OpSchema.AttrType], outputs: Mapping[str, str]
) -> Any:
    """Return an operator that onnxscript can call with inputs X, rois, batch_indices.

    The schema stays out of ONNX's global registry: importing this package must not change how
    other code checks models.

    Args:
        name: operator name without its domain.
        attributes: attribute name -> type; all required, because a function's defaults never reach
            the kernel.
        outputs: output name -> type letter of `_TYPES`.
    """
    schema = OpSchema(
        name,
        DOMAIN,
        DOMAIN_VERSION,
        inputs=[
            OpSchema.FormalParameter("X", "T"),
            OpSchema.FormalParameter("rois", "TRois"),
            OpSchema.FormalParameter("batch_indices", "TIndex"),
        ],
        outputs=[OpSchema.FormalParameter(output, type_) for output, type_ in outputs.items()],
        type_constraints=_TYPES,
        attributes=[
            OpSchema.Attribute(attribute, type_, required=True)
            for attribute, type_ in attributes.items()
        ],
    )
    opset = onnxscript.values.Opset(DOMAIN, DOMAIN_VERSION)
    return onnxscript.values.Op(opset, name, schema)


def constant_int(operator: str, argument: str, value: object) -> int:
    """Return an integer that becomes a node attribute.

    Raises:
        ExportError: if the exporter passes a value that is only known at run time.
    """
    if isinstance(value, int):
        return value
    raise ExportError(
        f"{operator}: {argument} must be a Python integer when the module is exported, because it "
        f"becomes an attribute of the node; got {value}"
    )


def split_rois_dynamo(X: Any, rois: Any) -> tuple[Any, Any]:  # noqa: N803
    """Return boxes [R, 4] and batch indices [R] from torchvision's rois [R, 5].

    The boxes of a half-precision map become float32, the only other type the operators take.
    """
    op: Any = opset18  # its type hints know values of eager mode only
    boxes = op.Gather(rois, op.Constant(value_ints=[1, 2, 3, 4]), axis=1)
    first_column = op.Gather(rois, op.Constant(value_int=0), axis=1)
    if X.dtype in (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16):
        boxes = op.Cast(boxes, to=onnx.TensorProto.FLOAT)
    return boxes, op.Cast(first_column, to=onnx.TensorProto.INT64)


def split_rois_torchscript(g: Any, X: Any, rois: Any) -> tuple[Any, Any]:  # noqa: N803
    """Return boxes [R, 4] and batch indices [R], as `split_rois_dynamo`."""
    coordinates = g.op("Constant", value_t=torch.tensor([1, 2, 3, 4]))
    boxes = g.op("Gather", rois, coordinates, axis_i=1)
    first_column = g.op("Gather", rois, g.op("Constant", value_t=torch.tensor(0)), axis_i=1)
    if X.type().scalarType() in ("Half", "BFloat16"):
        boxes = g.op("Cast", boxes, to_i=onnx.TensorProto.FLOAT)
    return boxes, g.op("Cast", first_column, to_i=onnx.TensorProto.INT64)


def set_pooled_type(value: Any, like: Any, sizes: Sequence[int]) -> None:
    """Tell the TorchScript exporter an output's type and shape [R, C, PH, PW].

    Without it the exporter does not know the rank, and writes an If where it depends on it.
    """
    map_sizes = like.type().varyingSizes()
    num_channels = map_sizes[1] if map_sizes else None
    value.setType(like.type().with_sizes([None, num_channels, *sizes]))
