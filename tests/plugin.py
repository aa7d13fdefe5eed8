"""Runs one operator of the plugin in an ONNX Runtime session, on any of the devices under test."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

import ort_roialign

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)

ELEMENT_TYPES = {
    "float32": np.dtype(np.float32),
    "float64": np.dtype(np.float64),
    "float16": np.dtype(np.float16),
    "bfloat16": BFLOAT16,
}

_ONNX_TYPES = {
    np.dtype(np.float32): TensorProto.FLOAT,
    np.dtype(np.float64): TensorProto.DOUBLE,
    np.dtype(np.float16): TensorProto.FLOAT16,
    BFLOAT16: TensorProto.BFLOAT16,
    np.dtype(np.int64): TensorProto.INT64,
    np.dtype(np.int32): TensorProto.INT32,
}

# The feature maps of a pyramid in the tests; the operators take any number.
PYRAMID = ("X0", "X1", "X2")
_SINGLE = ("X", "rois", "batch_indices")
_MULTIPLE = ("rois", "batch_indices", *PYRAMID)
INPUTS = {
    "RoiAlign": _SINGLE,
    "MultiScaleRoiAlign": _MULTIPLE,
    "RoiAlignRotated": _SINGLE,
    "MultiScaleRoiAlignRotated": _MULTIPLE,
    "RoiPool": _SINGLE,
    "PsRoiAlign": _SINGLE,
    "PsRoiPool": _SINGLE,
    "PrRoiPool": _SINGLE,
    "DeformRoiPool": (*_SINGLE, "offset"),
}
# Each output and the input whose type it has; None: int64.
OUTPUTS: dict[str, dict[str, str | None]] = {
    operator: {"Y": inputs[-1] if inputs == _MULTIPLE else "X"}
    for operator, inputs in INPUTS.items()
}
OUTPUTS["RoiPool"]["argmax"] = None
for _operator, _inputs in list(INPUTS.items()):
    INPUTS[f"{_operator}Grad"] = ("dY", *_inputs)
    OUTPUTS[f"{_operator}Grad"] = {
        f"d{name}": name for name in _inputs if name == "X" or name in PYRAMID
    }
OUTPUTS["PrRoiPoolGrad"]["drois"] = "rois"
OUTPUTS["DeformRoiPoolGrad"]["doffset"] = "offset"


@dataclass(frozen=True)
class Device:
    """A library with kernels and the provider that runs them."""

    name: str  # "cpu", "cuda_on_host" or "cuda"
    library: str
    provider: str

    @property
    def fails_on_bad_rois(self) -> bool:
        """CPU kernels fail on a bad RoI; CUDA kernels answer NaN for it."""
        return self.name == "cpu"


def make_model(
    operator: str,
    attributes: Mapping[str, Any],
    types: Mapping[str, np.dtype[Any]],
    shapes: Mapping[str, list[int | str | None] | None] | None = None,
    outputs: int | tuple[str, ...] | None = None,
) -> onnx.ModelProto:
    """Makes a model of one node. bfloat16 travels as float32, which NumPy and onnxruntime share.

    Args:
        operator: Name of the operator.
        attributes: Attributes of the node.
        types: Element type of each input.
        shapes: Declared shape of each input; unknown by default.
        outputs: How many outputs the node has, or the names of those that it has; by default all.
    """
    nodes = []
    graph_inputs = []
    node_inputs = []
    for name in INPUTS[operator]:
        outer = np.dtype(np.float32) if types[name] == BFLOAT16 else types[name]
        shape = None if shapes is None else shapes.get(name)
        graph_inputs.append(helper.make_tensor_value_info(name, _ONNX_TYPES[outer], shape))
        node_inputs.append(name)
        if types[name] == BFLOAT16:
            node_inputs[-1] = f"{name}_bfloat16"
            nodes.append(
                helper.make_node("Cast", [name], [node_inputs[-1]], to=TensorProto.BFLOAT16)
            )
    graph_outputs = []
    node_outputs = []
    tail = []
    count = None if isinstance(outputs, tuple) else outputs
    for name, like in list(OUTPUTS[operator].items())[:count]:
        if isinstance(outputs, tuple) and name not in outputs:
            node_outputs.append("")
            continue
        inner = np.dtype(np.int64) if like is None else types[like]
        outer = np.dtype(np.float32) if inner == BFLOAT16 else inner
        graph_outputs.append(helper.make_tensor_value_info(name, _ONNX_TYPES[outer], None))
        node_outputs.append(name)
        if inner == BFLOAT16:
            node_outputs[-1] = f"{name}_bfloat16"
            tail.append(helper.make_node("Cast", [node_outputs[-1]], [name], to=TensorProto.FLOAT))
    node = helper.make_node(
        operator, node_inputs, node_outputs, name="node", domain="ort_roialign", **attributes
    )
    graph = helper.make_graph([*nodes, node, *tail], "graph", graph_inputs, graph_outputs)
    domains = [helper.make_opsetid("", 18), helper.make_opsetid("ort_roialign", 1)]
    return helper.make_model(graph, opset_imports=domains, ir_version=9)


def make_paste_masks_model(
    masks: np.ndarray[Any, Any],
    boxes: np.ndarray[Any, Any],
    attributes: Mapping[str, Any],
    output_type: int | None = None,
) -> onnx.ModelProto:
    """Makes a model of PasteMasks, which is no RoI operator; bfloat16 travels as float32.

    Args:
        masks: for their type and their number of axes; axis 0 is named "masks_0", and so on.
        boxes: likewise.
        attributes: of the node.
        output_type: if given, declared in place of the right one.
    """
    nodes = []
    names = []
    inputs = []
    for name, array in (("masks", masks), ("boxes", boxes)):
        outer = np.dtype(np.float32) if array.dtype == BFLOAT16 else array.dtype
        shape = [f"{name}_{axis}" for axis in range(array.ndim)]
        inputs.append(helper.make_tensor_value_info(name, _ONNX_TYPES[outer], shape))
        names.append(name if array.dtype == outer else f"{name}_bfloat16")
        if array.dtype != outer:
            nodes.append(helper.make_node("Cast", [name], [names[-1]], to=TensorProto.BFLOAT16))
    inputs.append(helper.make_tensor_value_info("image_size", TensorProto.INT64, [2]))
    inner = TensorProto.UINT8 if "threshold" in attributes else _ONNX_TYPES[masks.dtype]
    outer_type = TensorProto.FLOAT if inner == TensorProto.BFLOAT16 else inner
    pasted = "Y" if inner == outer_type else "Y_bfloat16"
    nodes.append(
        helper.make_node(
            "PasteMasks", [*names, "image_size"], [pasted], domain="ort_roialign", **attributes
        )
    )
    if pasted != "Y":
        nodes.append(helper.make_node("Cast", [pasted], ["Y"], to=outer_type))
    outputs = [helper.make_tensor_value_info("Y", output_type or outer_type, None)]
    graph = helper.make_graph(nodes, "graph", inputs, outputs)
    domains = [helper.make_opsetid("", 18), helper.make_opsetid("ort_roialign", 1)]
    return helper.make_model(graph, opset_imports=domains, ir_version=9)


def make_session(
    model: onnx.ModelProto, device: Device, threads: int | None = None, domains: str = ""
) -> onnxruntime.InferenceSession:
    """Makes a session on exactly the device's provider, with further domains if they are named."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # failures are expected, and reach the test as exceptions
    if threads is not None:
        options.intra_op_num_threads = threads
    if domains:
        options.add_session_config_entry("ort_roialign.domains", domains)
    options.register_custom_ops_library(device.library)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=[device.provider]
    )
    assert session.get_providers()[0] == device.provider
    return session


@contextmanager
def forced_kernels(isa: str, path: str, *, some_plain: bool = False) -> Iterator[None]:
    """Forces an instruction set and a path on the CPU sessions made inside.

    Fails unless these kernels ran, and no others, before the end; with `some_plain`, for boxes
    beyond their limits, the plain passes may run beside them.
    """
    before = forward_calls()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ORT_ROIALIGN_FORCE_ISA", isa)
        patch.setenv("ORT_ROIALIGN_FORCE_PATH", path)
        yield
    after = forward_calls()
    ran = {kernels for kernels, calls in after.items() if calls != before[kernels]}
    if some_plain and path != "plain":
        ran.discard((isa, "plain"))
    assert ran == {(isa, path)}, f"{isa} and {path} were forced"


def forward_calls() -> dict[tuple[str, str], int]:
    """How often each instruction set and path has run in this process."""
    calls = ort_roialign.cpu_state()["calls"]
    return {(isa, path): calls[isa][path] for isa in calls for path in calls[isa]}


def run(
    device: Device,
    operator: str,
    inputs: Mapping[str, np.ndarray[Any, Any]],
    *,
    outputs: int | tuple[str, ...] | None = None,
    threads: int | None = None,
    **attributes: Any,
) -> list[np.ndarray[Any, Any]]:
    """Runs one operator, twice; bfloat16 results come back as float32.

    The second run writes into poisoned memory and must give the same bits.
    """
    arrays = {name: np.asarray(array) for name, array in inputs.items()}
    types = {name: array.dtype for name, array in arrays.items()}
    session = make_session(
        make_model(operator, attributes, types, outputs=outputs), device, threads
    )
    feeds = {
        name: array.astype(np.float32) if array.dtype == BFLOAT16 else array
        for name, array in arrays.items()
    }
    results: list[np.ndarray[Any, Any]] = session.run(None, feeds)
    again = _run_into_poisoned_outputs(session, feeds, results)
    for first, second in zip(results, again, strict=True):
        np.testing.assert_array_equal(first, second, err_msg="a second run gave other results")
    return results


def _run_into_poisoned_outputs(
    session: onnxruntime.InferenceSession,
    feeds: Mapping[str, np.ndarray[Any, Any]],
    like: list[np.ndarray[Any, Any]],
) -> list[np.ndarray[Any, Any]]:
    """Runs into memory that holds NaN (or -77), so that an element left unwritten shows."""
    binding = session.io_binding()
    for name, array in feeds.items():
        binding.bind_cpu_input(name, np.ascontiguousarray(array))
    poisoned = []
    for output, array in zip(session.get_outputs(), like, strict=True):
        poison = np.nan if array.dtype.kind == "f" else -77
        poisoned.append(np.full_like(array, poison))
        # The value is a view of the array, which therefore has to outlive it.
        value = onnxruntime.OrtValue.ortvalue_from_numpy(poisoned[-1])
        binding.bind_ortvalue_output(output.name, value)
    session.run_with_iobinding(binding)
    return poisoned


def random_rois(
    rng: np.random.Generator,
    count: int,
    *,
    image_width: float,
    image_height: float,
    dtype: Any = np.float32,
) -> np.ndarray[Any, Any]:
    """Draws boxes of sides log-uniform from 1 pixel to the image's, some of them partly outside."""
    centre = rng.uniform(-0.1, 1.1, (count, 2)) * (image_width, image_height)
    side = np.exp(rng.uniform(0, np.log([image_width, image_height]), (count, 2)))
    return np.concatenate([centre - side / 2, centre + side / 2], axis=1).astype(dtype)


def random_inputs(
    rng: np.random.Generator,
    x_type: str,
    *,
    rois_type: str | None = None,
    num_images: int = 3,
    channels: int = 3,
    height: int = 9,
    width: int = 13,
    num_rois: int = 8,
    spatial_scale: float = 0.25,
) -> dict[str, np.ndarray[Any, Any]]:
    """Draws the inputs of a forward operator, with boxes of images in no order.

    Args:
        rng: Where the numbers come from.
        x_type: A key of `ELEMENT_TYPES`.
        rois_type: Likewise; by default `x_type`.
        num_images: Extent of the feature maps, like the next three.
        channels: See above.
        height: In cells.
        width: In cells.
        num_rois: Number of boxes.
        spatial_scale: Cells per pixel, which says how large the image is that the boxes lie in.
    """
    box_type = ELEMENT_TYPES[rois_type or x_type]
    image = {"image_width": width / spatial_scale, "image_height": height / spatial_scale}
    return {
        "X": rng.standard_normal((num_images, channels, height, width)).astype(
            ELEMENT_TYPES[x_type]
        ),
        "rois": random_rois(rng, num_rois, dtype=box_type, **image),
        "batch_indices": rng.integers(0, num_images, num_rois),
    }
