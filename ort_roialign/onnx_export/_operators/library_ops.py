"""This package's PyTorch operators `ort_roialign::*` in both of PyTorch's exporters.

They take what the ONNX operators take, so one rule translates them all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.onnx import symbolic_helper

import ort_roialign.torch  # noqa: F401  registers torch.ops.ort_roialign
from ort_roialign._domains import DOMAIN
from ort_roialign._signatures import OPERATORS, Signature
from ort_roialign.onnx_export._operators._translation import (
    Translation,
    attribute_type,
    boxes_dynamo,
    boxes_torchscript,
    dynamo_node,
    torchscript_node,
)

_DESCRIPTORS: dict[type, Any] = {int: "i", float: "f", str: "s", tuple: "fs"}


def _dynamo(signature: Signature) -> Callable[..., Any]:
    arguments = (*(name.lower() for name in signature.inputs), *signature.attributes)

    # Not `*args`: the exporter may give any of the arguments by name.
    def translate(*args: Any, **kwargs: Any) -> Any:
        given = {**dict(zip(arguments, args, strict=False)), **kwargs}
        maps = given["x"] if signature.variadic else [given["x"]]
        given["rois"] = boxes_dynamo(maps[0], given["rois"])
        inputs = _flat([given[name.lower()] for name in signature.inputs])
        pooled, _ = dynamo_node(signature.name, inputs, given)
        return pooled

    return translate


def _torchscript(signature: Signature) -> Callable[..., Any]:
    def translate(g: Any, *args: Any) -> Any:
        inputs = dict(zip(signature.inputs, args, strict=False))
        for name in signature.optional_inputs:
            if symbolic_helper._is_none(inputs[name]):
                inputs[name] = None
        maps = symbolic_helper._unpack_list(inputs["X"]) if signature.variadic else [inputs["X"]]
        inputs["X"] = maps if signature.variadic else maps[0]
        inputs["rois"] = boxes_torchscript(g, maps[0], inputs["rois"])
        attributes = {
            name: None
            if symbolic_helper._is_none(value)
            else symbolic_helper._parse_arg(value, _DESCRIPTORS[attribute_type(default)], name)
            for (name, default), value in zip(
                signature.attributes.items(), args[len(signature.inputs) :], strict=True
            )
        }
        pooled, _ = torchscript_node(g, signature.name, _flat(list(inputs.values())), attributes)
        return pooled

    return translate


def _flat(inputs: Sequence[Any]) -> list[Any]:
    """Return inputs with a list's in its place."""
    return [
        value
        for input_ in inputs
        for value in (input_ if isinstance(input_, (list, tuple)) else [input_])
    ]


TRANSLATIONS = tuple(
    Translation(
        torch_name=f"{DOMAIN}::{signature.function_name}",
        torch_overload=getattr(torch.ops.ort_roialign, signature.function_name).default,
        dynamo=_dynamo(signature),
        torchscript=_torchscript(signature),
    )
    for signature in OPERATORS.values()
)
