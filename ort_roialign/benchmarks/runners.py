"""The contestants: objects that are called once for each timed run of some calls of RoIAlign."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import onnxruntime
from onnx import TensorProto, helper

import ort_roialign
from ort_roialign.benchmarks.element_types import ELEMENT_TYPES, FLOAT32, ElementType
from ort_roialign.benchmarks.problems import Array, Call

PLUGIN_DOMAIN = "ort_roialign"
STANDARD_DOMAIN = ""
# onnxruntime has no CPU kernel for a newer version of the standard operator.
OPSETS = {STANDARD_DOMAIN: 16, PLUGIN_DOMAIN: 1}
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
    """RoIAlign in onnxruntime, inputs bound and outputs allocated beforehand."""

    def __init__(self, calls: Sequence[Call], settings: SessionSettings) -> None:
        self.settings = settings
        self._type = settings.element_type
        self._bound: list[tuple[onnxruntime.InferenceSession, Any]] = []
        self._arrays: list[Mapping[str, Array]] = []  # the bindings hold no references to them
        sessions: dict[bytes, onnxruntime.InferenceSession] = {}
        maps: dict[int, Array] = {}  # stages of a cascade share theirs
        for call in calls:
            model = _model(call, settings)
            if model not in sessions:
                sessions[model] = _session(model, settings)
            if id(call.x) not in maps:
                maps[id(call.x)] = self._type.encode(call.x)
            self._bind(sessions[model], call, maps[id(call.x)])

    def __call__(self) -> None:
        """Compute all calls, one after the other, into the same outputs again."""
        for session, binding in self._bound:
            session.run_with_iobinding(binding)

    def outputs(self) -> list[Array]:
        """Compute all calls and return copies; what a kernel leaves unwritten is NaN."""
        for arrays in self._arrays:
            arrays["Y"].fill(self._type.not_a_number)
        self()
        return [self._type.decode(arrays["Y"]) for arrays in self._arrays]

    def _bind(self, session: onnxruntime.InferenceSession, call: Call, x: Array) -> None:
        arrays = {
            "X": x,
            "rois": call.rois.astype(self._type.roi_type),
            "batch_indices": call.batch_indices,
            "Y": np.empty(call.output_shape, self._type.storage),
        }
        binding = session.io_binding()
        for name, array in arrays.items():
            bind = binding.bind_output if name == "Y" else binding.bind_input
            element_type: Any = array.dtype.type
            if name in ("X", "Y") and array.dtype == np.uint16:  # NumPy has no bfloat16
                element_type = self._type.onnx_type
            bind(name, "cpu", 0, element_type, array.shape, array.ctypes.data)
        self._bound.append((session, binding))
        self._arrays.append(arrays)


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
    boxes = np.concatenate([call.batch_indices[:, None].astype(np.float32), call.rois], axis=1)
    return {
        "input": from_numpy(call.x),
        "boxes": from_numpy(boxes),
        "output_size": call.bins,
        "spatial_scale": 1 / call.stride,
        "sampling_ratio": call.sampling_ratio,
        "aligned": True,
    }


def _model(call: Call, settings: SessionSettings) -> bytes:
    element_type = settings.element_type
    inputs = {
        "X": element_type.onnx_type,
        "rois": helper.np_dtype_to_tensor_dtype(element_type.roi_type),
        "batch_indices": TensorProto.INT64,
    }
    node = helper.make_node(
        "RoiAlign",
        list(inputs),
        ["Y"],
        domain=settings.domain,
        mode=settings.mode,
        output_height=call.bins,
        output_width=call.bins,
        sampling_ratio=call.sampling_ratio,
        spatial_scale=1 / call.stride,
        coordinate_transformation_mode="half_pixel",
    )
    graph = helper.make_graph(
        [node],
        "benchmark",
        [helper.make_tensor_value_info(name, kind, None) for name, kind in inputs.items()],
        [helper.make_tensor_value_info("Y", element_type.onnx_type, None)],
    )
    opsets = [helper.make_opsetid(domain, version) for domain, version in OPSETS.items()]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    return bytes(model.SerializeToString())


def _session(model: bytes, settings: SessionSettings) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = LOG_ERRORS_ONLY
    options.intra_op_num_threads = settings.threads
    # Else the threads of a session that has finished wait for more work for a while, and keep the
    # cores from the next contestant.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    ort_roialign.register(options)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
