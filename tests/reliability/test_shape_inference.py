"""Shapes and types of the outputs, as onnxruntime knows them before the first run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from plugin import ELEMENT_TYPES, INPUTS, OUTPUTS, PYRAMID, Device, make_model

SIZE = {"output_height": 7, "output_width": 5}
SHAPES = {"X": ["N", "C", "H", "W"], "rois": ["R", 4], "batch_indices": ["R"]}


def types_of(x_type: str = "float32", rois_type: str | None = None) -> dict[str, Any]:
    x = ELEMENT_TYPES[x_type]
    rois = ELEMENT_TYPES[rois_type or x_type]
    types = dict.fromkeys(("dY", "X", *PYRAMID, "offset"), x)
    return {**types, "rois": rois, "batch_indices": np.dtype(np.int64)}


def load(device: Device, model: onnx.ModelProto, optimized: Path | None = None) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.register_custom_ops_library(device.library)
    if optimized:
        options.optimized_model_filepath = str(optimized)
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=[device.provider]
    )


def inferred_shapes(device: Device, operator: str, shapes: Any, **attributes: Any) -> list[Any]:
    session = load(device, make_model(operator, attributes, types_of(), shapes))
    return [output.shape for output in session.get_outputs()]


@pytest.mark.parametrize("operator", ["RoiAlign", "RoiPool"])
@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        (SHAPES, ["R", "C", 7, 5]),
        (SHAPES | {"X": [1, 256, "H", "W"]}, ["R", 256, 7, 5]),
        (SHAPES | {"rois": [1000, 4], "batch_indices": [1000]}, [1000, "C", 7, 5]),
        (SHAPES | {"X": [2, 3, 9, 13], "rois": [0, 4], "batch_indices": [0]}, [0, 3, 7, 5]),
    ],
)
def test_dimensions_are_carried(cpu_device, operator, shapes, expected):
    assert inferred_shapes(cpu_device, operator, shapes, **SIZE) == [expected] * len(
        OUTPUTS[operator]
    )


@pytest.mark.parametrize("operator", ["RoiAlignGrad", "RoiPoolGrad"])
@pytest.mark.parametrize("x", [["N", "C", "H", "W"], [2, "C", 100, "W"], [2, 256, 100, 152]])
def test_gradient_has_the_shape_of_the_map(cpu_device, operator, x):
    shapes = SHAPES | {"X": x, "dY": ["R", "C", 7, 5]}
    assert inferred_shapes(cpu_device, operator, shapes, **SIZE) == [x]


@pytest.mark.parametrize(
    "shapes",
    [
        None,
        {"X": None, "rois": None, "batch_indices": None},
        {"X": [None, None, None, None], "rois": [None, 4], "batch_indices": [None]},
        # Wrong ranks are found when the model runs.
        {"X": ["N"], "rois": [], "batch_indices": []},
    ],
)
def test_unknown_dimensions_are_unknown_and_distinct(cpu_device, shapes):
    num_rois, channels, height, width = inferred_shapes(cpu_device, "RoiAlign", shapes, **SIZE)[0]
    assert (height, width) == (7, 5)
    # onnxruntime takes dimensions of one name for equal.
    assert isinstance(num_rois, str)
    assert isinstance(channels, str)
    assert num_rois != channels


def test_unknown_dimensions_of_two_nodes_are_distinct(cpu_device):
    model = make_model("RoiAlign", SIZE, types_of())
    second = helper.make_node(
        "RoiAlign", ["X", "rois_2", "batch_indices_2"], ["Y_2"], domain="ort_roialign", **SIZE
    )
    model.graph.node.append(second)
    for name, kind in (("rois_2", TensorProto.FLOAT), ("batch_indices_2", TensorProto.INT64)):
        model.graph.input.append(helper.make_tensor_value_info(name, kind, None))
    model.graph.output.append(helper.make_tensor_value_info("Y_2", TensorProto.FLOAT, None))
    first, other = (output.shape for output in load(cpu_device, model).get_outputs())
    assert len({*first[:2], *other[:2]}) == 4


def test_defaults_of_the_output_size(cpu_device):
    assert inferred_shapes(cpu_device, "RoiAlign", SHAPES) == [["R", "C", 1, 1]]


ONNX_NAMES = {
    "float32": "tensor(float)",
    "float64": "tensor(double)",
    "float16": "tensor(float16)",
    "bfloat16": "tensor(bfloat16)",
}


@pytest.mark.parametrize("operator", list(INPUTS))
@pytest.mark.parametrize(
    ("x_type", "rois_type"),
    [(name, name) for name in ELEMENT_TYPES] + [("float16", "float32"), ("bfloat16", "float32")],
)
def test_types_follow_the_map(cpu_device, operator, x_type, rois_type):
    levels = {"spatial_scales": [0.5, 0.25, 0.125]} if operator.startswith("Multi") else {}
    model = make_model(operator, SIZE | levels, types_of(x_type, rois_type))
    # Without the Casts of bfloat16, and with outputs whose types are not declared.
    node = next(node for node in model.graph.node if node.op_type == operator)
    del model.graph.output[:]
    model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in node.output)
    found = [output.type for output in load(cpu_device, model).get_outputs()]
    types = {None: "tensor(int64)", "rois": ONNX_NAMES[rois_type]}
    assert found == [types.get(like, ONNX_NAMES[x_type]) for like in OUTPUTS[operator].values()]


def test_the_family_carries_dimensions(cpu_device):
    levels = {"spatial_scales": [0.5, 0.25, 0.125]}
    maps = {name: ["N", "C", f"H{name}", f"W{name}"] for name in PYRAMID}
    shapes = SHAPES | maps | {"dY": ["R", "C", 7, 5], "offset": ["R", 2, 7, 5]}
    found = {
        operator: inferred_shapes(cpu_device, operator, shapes, **SIZE, **attributes)
        for operator, attributes in (
            ("MultiScaleRoiAlign", levels),
            ("MultiScaleRoiAlignGrad", levels),
            ("PrRoiPoolGrad", {}),
            ("DeformRoiPoolGrad", {}),
        )
    }
    assert found == {
        "MultiScaleRoiAlign": [["R", "C", 7, 5]],
        "MultiScaleRoiAlignGrad": list(maps.values()),
        "PrRoiPoolGrad": [SHAPES["X"], ["R", 4]],
        "DeformRoiPoolGrad": [SHAPES["X"], ["R", 2, 7, 5]],
    }


def test_position_sensitive_channels_are_divided(cpu_device):
    shapes = SHAPES | {"X": ["N", 105, "H", "W"]}
    assert inferred_shapes(cpu_device, "PsRoiAlign", shapes, **SIZE) == [["R", 3, 7, 5]]
    ((num_rois, channels, *bins),) = inferred_shapes(cpu_device, "PsRoiPool", SHAPES, **SIZE)
    assert (num_rois, bins) == ("R", [7, 5])
    assert isinstance(channels, str)
    assert channels != "C"  # a thirty-fifth of it


def with_shape_of_output(shapes: Any) -> onnx.ModelProto:
    """A model whose second output is the shape of the first."""
    model = make_model("RoiAlign", SIZE, types_of(), shapes)
    model.graph.node.append(helper.make_node("Shape", ["Y"], ["shape"]))
    model.graph.output.append(helper.make_tensor_value_info("shape", TensorProto.INT64, None))
    return model


def test_constant_shapes_are_folded(cpu_device, tmp_path, rng):
    shapes = {"X": [1, 3, "H", "W"], "rois": [9, 4], "batch_indices": [9]}
    load(cpu_device, with_shape_of_output(shapes), tmp_path / "optimized.onnx")
    graph = onnx.load(tmp_path / "optimized.onnx").graph
    assert [node.op_type for node in graph.node] == ["RoiAlign"]
    (folded,) = graph.initializer
    assert onnx.numpy_helper.to_array(folded).tolist() == [9, 3, 7, 5]


def test_symbolic_shapes_are_not_folded(cpu_device, tmp_path):
    load(cpu_device, with_shape_of_output(SHAPES), tmp_path / "optimized.onnx")
    graph = onnx.load(tmp_path / "optimized.onnx").graph
    assert [node.op_type for node in graph.node] == ["RoiAlign", "Shape"]
