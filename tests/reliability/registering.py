"""Ways to give a session the operators."""

from __future__ import annotations

from typing import Any

import onnx
import onnxruntime

import ort_roialign

CPU = ["CPUExecutionProvider"]


def plain_session(model: onnx.ModelProto, options: onnxruntime.SessionOptions) -> Any:
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=CPU)


def by_function(options: onnxruntime.SessionOptions) -> None:
    ort_roialign.register(options)


def by_library(options: onnxruntime.SessionOptions) -> None:
    options.register_custom_ops_library(ort_roialign.get_library_path())
