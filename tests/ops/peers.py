"""The peers that the operators are compared with: torchvision's, and onnxruntime's own RoiAlign."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch
import torchvision
from onnx import TensorProto, helper

Array = npt.NDArray[Any]


def _as_torch(inputs: Mapping[str, Array]) -> tuple[torch.Tensor, torch.Tensor]:
    """The feature maps, and the boxes with the image's number in front."""
    rois = inputs["rois"]
    boxes = np.concatenate([inputs["batch_indices"][:, np.newaxis].astype(rois.dtype), rois], 1)
    return torch.from_numpy(inputs["X"]), torch.from_numpy(boxes)


def _float32(scale: float) -> float:
    # torchvision computes with the scale in the type of X, ONNX stores a float32.
    return float(np.float32(scale))


def _roi_align(
    x: torch.Tensor,
    boxes: torch.Tensor,
    *,
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
    coordinate_transformation_mode: str = "half_pixel",
) -> torch.Tensor:
    aligned = coordinate_transformation_mode == "half_pixel"
    size = (output_height, output_width)
    result: torch.Tensor = torchvision.ops.roi_align(
        x, boxes, size, _float32(spatial_scale), sampling_ratio, aligned
    )
    return result


def torchvision_roi_align(inputs: Mapping[str, Array], **attributes: Any) -> Array:
    """The average by torchvision, for our inputs and attributes."""
    return _roi_align(*_as_torch(inputs), **attributes).numpy()


def torchvision_roi_align_grad(inputs: Mapping[str, Array], **attributes: Any) -> Array:
    """The gradient of the average by torchvision."""
    x, boxes = _as_torch(inputs)
    x.requires_grad_()
    _roi_align(x, boxes, **attributes).backward(torch.from_numpy(inputs["dY"]))
    assert x.grad is not None
    return x.grad.numpy()


def torchvision_roi_pool(
    inputs: Mapping[str, Array],
    *,
    output_height: int = 1,
    output_width: int = 1,
    spatial_scale: float = 1.0,
) -> tuple[Array, Array]:
    """The maxima and their cells by torchvision, whose Python function keeps the cells back."""
    y, argmax = torch.ops.torchvision.roi_pool(
        *_as_torch(inputs), _float32(spatial_scale), output_height, output_width
    )
    return y.numpy(), argmax.numpy()


def torchvision_roi_pool_grad(
    inputs: Mapping[str, Array],
    *,
    output_height: int = 1,
    output_width: int = 1,
    spatial_scale: float = 1.0,
) -> Array:
    """The gradient of RoiPool by torchvision."""
    x, boxes = _as_torch(inputs)
    x.requires_grad_()
    y = torchvision.ops.roi_pool(x, boxes, (output_height, output_width), _float32(spatial_scale))
    y.backward(torch.from_numpy(inputs["dY"]))
    assert x.grad is not None
    return x.grad.numpy()


def onnxruntime_roi_align(inputs: Mapping[str, Array], **attributes: Any) -> Array:
    """RoiAlign of opset 16 by onnxruntime's own kernel."""
    element_type = helper.np_dtype_to_tensor_dtype(inputs["X"].dtype)
    types = {"X": element_type, "rois": element_type, "batch_indices": TensorProto.INT64}
    node = helper.make_node("RoiAlign", list(types), ["Y"], **attributes)
    graph = helper.make_graph(
        [node],
        "graph",
        [helper.make_tensor_value_info(name, kind, None) for name, kind in types.items()],
        [helper.make_tensor_value_info("Y", element_type, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 16)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # it warns about its maximum
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    (y,) = session.run(None, dict(inputs))
    return np.asarray(y)
