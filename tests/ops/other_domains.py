"""Runs one operator of another domain on the kernels that stand in for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper
from plugin import Device, make_session

Array = np.ndarray[Any, Any]
SIZE = {"output_height": 3, "output_width": 4}
SCALE = 0.25
SAMPLED = {**SIZE, "sampling_ratio": 2}


def model_of(
    operator: str,
    domain: str,
    inputs: Mapping[str, Array],
    attributes: Mapping[str, Any],
    opset: int = 16,
) -> onnx.ModelProto:
    """Make a model of one node."""
    values = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(array.dtype), [None] * array.ndim
        )
        for name, array in inputs.items()
    ]
    node = helper.make_node(operator, list(inputs), ["Y"], domain=domain, **attributes)
    element_type = helper.np_dtype_to_tensor_dtype(next(iter(inputs.values())).dtype)
    output = helper.make_tensor_value_info("Y", element_type, None)
    imports = [helper.make_opsetid("", opset)]
    if domain:
        imports.append(helper.make_opsetid(domain, 1))
    graph = helper.make_graph([node], "one_node", values, [output])
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def run(
    device: Device,
    domains: str,
    operator: str,
    domain: str,
    inputs: Mapping[str, Array],
    opset: int = 16,
    **attributes: Any,
) -> Array:
    """Run one operator of another domain into poisoned memory."""
    model = model_of(operator, domain, inputs, attributes, opset)
    session = make_session(model, device, domains=domains)
    (first,) = session.run(None, dict(inputs))
    assert session.get_outputs()[0].shape[2:] == list(first.shape[2:])
    binding = session.io_binding()
    for name, array in inputs.items():
        binding.bind_cpu_input(name, np.ascontiguousarray(array))
    again = np.full_like(first, np.nan)
    value = onnxruntime.OrtValue.ortvalue_from_numpy(again)
    binding.bind_ortvalue_output("Y", value)
    session.run_with_iobinding(binding)
    np.testing.assert_array_equal(again, first)
    return again


def with_image(rois: Array, batch_indices: Array) -> Array:
    """Put each box's image in front of it."""
    return np.concatenate([batch_indices[:, None].astype(rois.dtype), rois], axis=1)


def coordinates(aligned: int) -> dict[str, str]:
    return {"coordinate_transformation_mode": "half_pixel" if aligned else "output_half_pixel"}
