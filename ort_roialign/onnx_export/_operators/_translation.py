"""What both exporters need to know of an operator, and the nodes that operators share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx
import onnxscript
import torch
from onnx.defs import OpSchema
from onnxscript import opset18

from ort_roialign._domains import DOMAIN, DOMAIN_VERSION
from ort_roialign._signatures import OPERATORS, Default, Signature
from ort_roialign.errors import ExportError

_FLOATING = ["tensor(float)", "tensor(double)", "tensor(float16)", "tensor(bfloat16)"]
_INDEX = "tensor(int64)"
_TYPES = [
    ("T", _FLOATING, "feature map"),
    ("TRois", _FLOATING, "boxes: the type of the map, or float32 for a half-precision map"),
    ("TIndex", [_INDEX], "indices"),
    ("TAny", [*_FLOATING, _INDEX], "any of those"),
]
_TYPE_OF_INPUT = {"X": "T", "rois": "TRois", "batch_indices": "TIndex", "offset": "T"}
_ATTRIBUTE_TYPES: dict[type, tuple[OpSchema.AttrType, str]] = {
    int: (OpSchema.AttrType.INT, "i"),
    float: (OpSchema.AttrType.FLOAT, "f"),
    str: (OpSchema.AttrType.STRING, "s"),
    tuple: (OpSchema.AttrType.FLOATS, "f"),
}
_HALF_PRECISION = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)


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


def attribute_type(default: Default) -> type:
    """Return the Python type of an attribute with this default: a tuple for a list of floats."""
    return int if default is None else type(default)


def _has_argmax(name: str) -> bool:
    return name == "RoiPool"


def _schema(signature: Signature) -> OpSchema:
    """Return what onnxscript has to know of an operator.

    All attributes are required, because a function's defaults never reach the kernel, but those
    that the kernel derives itself. The schema stays out of ONNX's global registry: importing this
    package must not change how other code checks models.
    """
    option = OpSchema.FormalParameterOption
    if signature.variadic:
        # The exporter writes the inputs before a list twice, unless all are in the list.
        inputs = [
            OpSchema.FormalParameter(
                "inputs", "TAny", param_option=option.Variadic, is_homogeneous=False
            )
        ]
    else:
        inputs = [
            OpSchema.FormalParameter(
                name,
                _TYPE_OF_INPUT[name],
                param_option=option.Optional
                if name in signature.optional_inputs
                else option.Single,
            )
            for name in signature.inputs
        ]
    outputs = {"Y": "T", "argmax": "TIndex"} if _has_argmax(signature.name) else {"Y": "T"}
    return OpSchema(
        signature.name,
        DOMAIN,
        DOMAIN_VERSION,
        inputs=inputs,
        outputs=[OpSchema.FormalParameter(name, type_) for name, type_ in outputs.items()],
        type_constraints=_TYPES,
        attributes=[
            OpSchema.Attribute(
                name, _ATTRIBUTE_TYPES[attribute_type(default)][0], required=default is not None
            )
            for name, default in signature.attributes.items()
        ],
    )


def dynamo_node(name: str, inputs: Sequence[Any], attributes: Mapping[str, Any]) -> tuple[Any, Any]:
    """Write an operator's node with the torch.export-based exporter.

    Args:
        name: operator name without its domain.
        inputs: the exporter's values, in the operator's order; None at the end for what is absent.
        attributes: all of the operator's; None for one that the operator derives.

    Returns:
        Y, and RoiPool's argmax, else None.

    Raises:
        ExportError: if an attribute is a value that is only known at run time.
    """
    signature = OPERATORS[name]
    constants = {
        attribute: constant(name, attribute, attributes[attribute], attribute_type(default))
        for attribute, default in signature.attributes.items()
        if attributes[attribute] is not None
    }
    opset = onnxscript.values.Opset(DOMAIN, DOMAIN_VERSION)
    operator: Any = onnxscript.values.Op(opset, name, _schema(signature))
    outputs = operator(*inputs, **constants)
    return outputs if _has_argmax(name) else (outputs, None)


def torchscript_node(
    g: Any, name: str, inputs: Sequence[Any], attributes: Mapping[str, Any]
) -> tuple[Any, Any]:
    """Write an operator's node with the TorchScript exporter, as `dynamo_node`.

    Without type and shape of Y [R, C, PH, PW] the exporter does not know the rank, and writes an If
    where something depends on it.
    """
    signature = OPERATORS[name]
    written = {
        f"{attribute}_{_ATTRIBUTE_TYPES[attribute_type(default)][1]}": attributes[attribute]
        for attribute, default in signature.attributes.items()
        if attributes[attribute] is not None
    }
    # The exporter keeps an empty name for an input that is absent; a list's end says it as well.
    present = [value for value in inputs if value is not None]
    num_outputs = 2 if _has_argmax(name) else 1
    outputs = g.op(f"{DOMAIN}::{name}", *present, **written, outputs=num_outputs)
    pooled, argmax = outputs if _has_argmax(name) else (outputs, None)

    like = inputs[signature.inputs.index("X")]
    bins = [attributes["output_height"], attributes["output_width"]]
    map_sizes = like.type().varyingSizes()
    num_channels = map_sizes[1] if map_sizes else None
    if signature.channel_per_bin and num_channels is not None:
        num_channels //= bins[0] * bins[1]
    pooled.setType(like.type().with_sizes([None, num_channels, *bins]))
    if argmax is not None:
        argmax.setType(pooled.type().with_dtype(torch.int64))
    return pooled, argmax


def constant(operator: str, argument: str, value: object, type_: type) -> Any:
    """Return a value that becomes a node attribute, in the attribute's type.

    Raises:
        ExportError: if the exporter passes a value that is only known at run time.
    """
    words = {int: "integer", float: "number", str: "string", tuple: "list of numbers"}
    if type_ is tuple and isinstance(value, (list, tuple)):
        return [constant(operator, argument, each, float) for each in value]
    if isinstance(value, (int, float) if type_ is float else type_):
        return type_(value)
    raise ExportError(
        f"{operator}: {argument} must be a Python {words[type_]} when the module is exported, "
        f"because it becomes an attribute of the node; got {value}"
    )


def boxes_dynamo(X: Any, boxes: Any) -> Any:  # noqa: N803
    """Return boxes in a type that goes with the map's.

    Those of a half-precision map become float32, the only other type the operators take.
    """
    if X.dtype in _HALF_PRECISION and boxes.dtype in (None, *_HALF_PRECISION):
        op: Any = opset18  # its type hints know values of eager mode only
        return op.Cast(boxes, to=onnx.TensorProto.FLOAT)
    return boxes


def boxes_torchscript(g: Any, X: Any, boxes: Any) -> Any:  # noqa: N803
    """Return boxes in a type that goes with the map's, as `boxes_dynamo`."""
    half_precision = ("Half", "BFloat16")
    types = [value.type().scalarType() for value in (X, boxes)]
    if types[0] in half_precision and types[1] in (None, *half_precision):
        return g.op("Cast", boxes, to_i=onnx.TensorProto.FLOAT)
    return boxes
