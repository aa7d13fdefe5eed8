"""A model, its inputs and session options without the operators."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from plugin import make_model, random_inputs

SIZE = {"output_height": 3, "output_width": 4}


@pytest.fixture
def inputs(rng: np.random.Generator) -> dict[str, Any]:
    return random_inputs(rng, "float32", spatial_scale=1.0)


@pytest.fixture
def model(inputs: dict[str, Any]) -> onnx.ModelProto:
    return make_model("RoiAlign", SIZE, {name: array.dtype for name, array in inputs.items()})


@pytest.fixture
def options() -> onnxruntime.SessionOptions:
    fresh = onnxruntime.SessionOptions()
    fresh.log_severity_level = 4  # failures are expected, and reach the test as exceptions
    return fresh
