"""The contestants: objects that are called once for each timed run of some calls of RoIAlign."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import onnxruntime
from onnx import TensorProto, helper

import ort_roialign
from ort_roialign._domains import DOMAIN, DOMAIN_VERSION
from ort_roialign.benchmarks.element_types import ELEMENT_TYPES, FLOAT32, ElementType
from ort_roialign.benchmarks.problems import Array, Call

PLUGIN_DOMAIN = DOMAIN
STANDARD_DOMAIN = ""
# onnxruntime has no CPU kernel for a newer version of the standard operator.
OPSETS = {STANDARD_DOMAIN: 16, PLUGIN_DOMAIN: DOMAIN_VERSION}
LOG_ERRORS_ONLY = 3
# Before, memory could be bound only as a type that NumPy has.
BFLOAT16_BINDABLE = (1, 20)


class Runner(Protocol):
    """A way to compute some calls of RoIAlign, with everything prepared."""

    def __call__(self) -> object:
        """Compute all calls."""

    def outputs(self) -> list[Array]:
        """Compute all calls and return their outputs as float32 or float64."""


@dataclass(frozen=True)
class SessionSettings:
    """How onnxruntime computes.

    Attributes:
        domain: whose operator, `PLUGIN_DOMAIN` or `STANDARD_DOMAIN`.
        threads: threads within an operator.
        mode: "avg" or "max".
        element_type: of the map.
    """

    domain: str
    threads: int
    mode: str = "avg"
    element_type: ElementType = FLOAT32


class SessionRunner:
    """RoIAlign in onnxruntime: one model with a node for each call, as a detector has them.

    Inputs are bound and outputs allocated beforehand.
    """

    def __init__(self, calls: Sequence[Call], settings: SessionSettings) -> None:
        self.settings = settings
        self._type = settings.element_type
        self._session = _session(_model(calls, settings), settings)
        self._binding = self._session.io_binding()
        self._arrays: dict[str, Array] = {}  # the binding holds no references to them
        self._outputs: list[Array] = []
        for call, names in zip(calls, _names(calls), strict=True):
            self._bind(call, *names)

    def __call__(self) -> None:
        """Compute all calls into the same outputs again."""
        self._session.run_with_iobinding(self._binding)

    def outputs(self) -> list[Array]:
        """Compute all calls and return copies; what a kernel leaves unwritten is NaN."""
        for array in self._outputs:
            array.fill(self._type.not_a_number)
        self()
        return [self._type.decode(array) for array in self._outputs]

    def _bind(self, call: Call, x: str, rois: str, batch_indices: str, y: str) -> None:
        if x not in self._arrays:  # stages of a cascade share theirs
            self._bind_array(x, self._type.encode(call.x), self._binding.bind_input)
        self._bind_array(rois, call.rois.astype(self._type.roi_type), self._binding.bind_input)
        self._bind_array(batch_indices, call.batch_indices, self._binding.bind_input)
        output = np.empty(call.output_shape, self._type.storage)
        self._bind_array(y, output, self._binding.bind_output)
        self._outputs.append(output)

    def _bind_array(self, name: str, array: Array, bind: Any) -> None:
        element_type: Any = array.dtype.type
        if array.dtype == np.uint16:  # NumPy has no bfloat16
            element_type = self._type.onnx_type
        bind(name, "cpu", 0, element_type, array.shape, array.ctypes.data)
        self._arrays[name] = array


class TorchvisionRunner:
    """RoIAlign of torchvision, which has no way to write into memory allocated beforehand."""

    def __init__(self, calls: Sequence[Call], threads: int) -> None:
        import torch
        import torchvision

        torch.set_num_threads(threads)
        self._inference_mode = torch.inference_mode
        self._roi_align = torchvision.ops.roi_align
        self._arguments = [_torchvision_arguments(call, torch.from_numpy) for call in calls]

    def __call__(self) -> list[Any]:
        """Compute all calls, one after the other."""
        with self._inference_mode():
            return [self._roi_align(**arguments) for arguments in self._arguments]

    def outputs(self) -> list[Array]:
        """Compute all calls and return their outputs."""
        return [output.numpy() for output in self()]


def bindable_types() -> dict[str, ElementType]:
    """Return the element types of `ELEMENT_TYPES` that this onnxruntime can bind from Python."""
    version = tuple(int(number) for number in onnxruntime.__version__.split(".")[:2])
    return {
        name: element_type
        for name, element_type in ELEMENT_TYPES.items()
        if version >= BFLOAT16_BINDABLE or element_type.onnx_type != TensorProto.BFLOAT16
    }


def _torchvision_arguments(call: Call, from_numpy: Any) -> dict[str, Any]:
    return {
        "input": from_numpy(call.x),
        "boxes": from_numpy(call.numbered_rois),
        "output_size": call.bins,
        "spatial_scale": 1 / call.stride,
        "sampling_ratio": call.sampling_ratio,
        "aligned": True,
    }


def _names(calls: Sequence[Call]) -> list[tuple[str, str, str, str]]:
    """Return the names of each call's inputs and output; calls on one map share the map's name."""
    maps: dict[int, str] = {}
    for call in calls:
        maps.setdefault(id(call.x), f"X{len(maps)}")
    return [
        (maps[id(call.x)], f"rois{number}", f"batch_indices{number}", f"Y{number}")
        for number, call in enumerate(calls)
    ]


def _model(calls: Sequence[Call], settings: SessionSettings) -> bytes:
    map_type = settings.element_type.onnx_type
    roi_type = helper.np_dtype_to_tensor_dtype(settings.element_type.roi_type)
    types: dict[str, int] = {}
    nodes = []
    for call, (*inputs, output) in zip(calls, _names(calls), strict=True):
        types |= dict(zip(inputs, (map_type, roi_type, TensorProto.INT64), strict=True))
        nodes.append(
            helper.make_node(
                "RoiAlign",
                inputs,
                [output],
                domain=settings.domain,
                mode=settings.mode,
                output_height=call.bins,
                output_width=call.bins,
                sampling_ratio=call.sampling_ratio,
                spatial_scale=1 / call.stride,
                coordinate_transformation_mode="half_pixel",
            )
        )
    outputs = [node.output[0] for node in nodes]
    graph = helper.make_graph(
        nodes,
        "benchmark",
        [helper.make_tensor_value_info(name, kind, None) for name, kind in types.items()],
        [helper.make_tensor_value_info(name, map_type, None) for name in outputs],
    )
    opsets = [helper.make_opsetid(domain, version) for domain, version in OPSETS.items()]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    return bytes(model.SerializeToString())


def _session(model: bytes, settings: SessionSettings) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = LOG_ERRORS_ONLY
    options.intra_op_num_threads = settings.threads
    ort_roialign.register(options)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
