"""The functions of standard operators give the kernels' results for every operator of the family.

What is easily wrong in them - NaN, huge boxes, levels, absent inputs - is in
`test_export_fallback_family_edges.py`.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
import tolerances
from family_models import (
    ANGLE,
    ATTRIBUTES,
    GRID,
    LEVELS,
    PH,
    PW,
    SIZE,
    family_inputs,
    family_model,
    family_reference,
)
from onnx import TensorProto, helper
from running import Array, Run, run_on_kernels, run_without_plugin

from ort_roialign._signatures import OPERATORS, SIGNATURES
from ort_roialign.errors import InvalidArgumentError
from ort_roialign.onnx_export import add_fallback, fallback_function
from ort_roialign.onnx_export._functions import FUNCTIONS

# Those whose functions test_export_fallback.py does not test.
FAMILY = [name for name in OPERATORS if name not in ("RoiAlign", "RoiPool")]
OLD_FRAME = {"coordinate_transformation_mode": "output_half_pixel"}
ADAPTIVE = {**SIZE, "spatial_scale": 0.125}
# Beside those of ATTRIBUTES.
OTHER_ATTRIBUTES: list[tuple[str, dict[str, Any]]] = [
    ("MultiScaleRoiAlign", {**SIZE, **LEVELS, "mode": "max", **OLD_FRAME}),
    ("MultiScaleRoiAlign", {**GRID, **LEVELS, "max_level": 4}),
    ("MultiScaleRoiAlign", {**GRID, **LEVELS, "min_level": 2, "max_level": 4}),
    ("RoiAlignRotated", {**ADAPTIVE, "mode": "max"}),
    ("RoiAlignRotated", {**ADAPTIVE, **OLD_FRAME, **ANGLE, "clockwise": 0}),
    ("MultiScaleRoiAlignRotated", {**SIZE, **LEVELS, "mode": "max", **OLD_FRAME}),
    ("PsRoiAlign", ADAPTIVE),
    ("PsRoiPool", {**SIZE, "spatial_scale": 0.1}),
    ("PrRoiPool", {**SIZE, "spatial_scale": 0.1}),
    ("DeformRoiPool", ADAPTIVE),
    ("DeformRoiPool", {**GRID, "spatial_scale": 0.1, "gamma": -0.3, **OLD_FRAME}),
]


def without_plugin(
    name: str, attributes: dict[str, Any], inputs: list[Array], opset: int = 18
) -> Array:
    model = add_fallback(family_model(name, attributes, inputs, opset=opset))
    return run_without_plugin(model, *inputs)["Y"]


@pytest.mark.parametrize("opset", [16, 17, 18, 19, 20, 21, 22, 23])
@pytest.mark.parametrize("name", FAMILY)
def test_function_matches_reference(name: str, opset: int, rng: np.random.Generator) -> None:
    inputs, attributes = family_inputs(name, rng), ATTRIBUTES[name]
    model = add_fallback(family_model(name, attributes, inputs, opset=opset))
    onnx.checker.check_model(model, full_check=True)
    actual = run_without_plugin(model, *inputs)["Y"]
    expected = family_reference(name, attributes, inputs)
    assert np.count_nonzero(expected) > expected.size / 5
    np.testing.assert_allclose(actual, expected, *tolerances.KERNEL["float32"])


@pytest.mark.parametrize("opset", [18, 22])
@pytest.mark.parametrize(("name", "attributes"), OTHER_ATTRIBUTES)
def test_other_attributes(
    name: str, attributes: dict[str, Any], opset: int, rng: np.random.Generator
) -> None:
    inputs = family_inputs(name, rng)
    actual = without_plugin(name, attributes, inputs, opset)
    expected = family_reference(name, attributes, inputs)
    np.testing.assert_allclose(actual, expected, *tolerances.KERNEL["float32"])


@pytest.mark.parametrize("name", FAMILY)
def test_kernels_and_functions_agree(name: str, rng: np.random.Generator) -> None:
    inputs = family_inputs(name, rng)
    model = add_fallback(family_model(name, ATTRIBUTES[name], inputs))
    kernels, function = run_on_kernels(model, *inputs), run_without_plugin(model, *inputs)
    np.testing.assert_allclose(kernels["Y"], function["Y"], *tolerances.KERNEL["float32"])


@pytest.mark.parametrize("name", FAMILY)
def test_default_attributes(name: str, rng: np.random.Generator) -> None:
    inputs = family_inputs(name, rng)
    inputs = [each[:, :, :1, :1] if each.shape[1:2] == (2,) else each for each in inputs]
    # No power of two: levels 2.3, 3.3 and 4.3 are rounded.
    attributes = {"spatial_scales": [0.2, 0.1, 0.05]} if OPERATORS[name].variadic else {}
    actual = without_plugin(name, attributes, inputs)
    expected = family_reference(name, attributes, inputs)
    np.testing.assert_allclose(actual, expected, *tolerances.KERNEL["float32"])


@pytest.mark.parametrize("opset", [18, 22])
@pytest.mark.parametrize("name", FAMILY)
def test_float64(name: str, opset: int, rng: np.random.Generator) -> None:
    inputs = family_inputs(name, rng, map_type=np.float64, rois_type=np.float64)
    actual = without_plugin(name, ATTRIBUTES[name], inputs, opset)
    expected = family_reference(name, ATTRIBUTES[name], inputs)
    assert actual.dtype == np.float64
    np.testing.assert_allclose(actual, expected, *tolerances.KERNEL["float64"])


@pytest.mark.parametrize("name", FAMILY)
def test_float16_maps_with_float32_boxes(name: str, rng: np.random.Generator) -> None:
    inputs = family_inputs(name, rng, map_type=np.float16)
    actual = without_plugin(name, ATTRIBUTES[name], inputs)
    expected = family_reference(name, ATTRIBUTES[name], inputs)
    assert actual.dtype == np.float16
    np.testing.assert_allclose(actual, expected, *tolerances.KERNEL["float16"])


@pytest.mark.parametrize("name", FAMILY)
def test_bfloat16_maps_with_float32_boxes(name: str, rng: np.random.Generator) -> None:
    # NumPy and onnxruntime share no bfloat16: the model casts from and to float32.
    inputs = family_inputs(name, rng)
    maps = [number for number, each in enumerate(inputs) if each.ndim == 4]
    model = family_model(name, ATTRIBUTES[name], inputs)
    (node,) = model.graph.node
    for number in maps:
        cast = helper.make_node("Cast", [node.input[number]], [f"half_{number}"])
        cast.attribute.append(helper.make_attribute("to", TensorProto.BFLOAT16))
        model.graph.node.insert(0, cast)
        model.graph.node[-1].input[number] = f"half_{number}"
    model.graph.node[-1].output[0] = "Y_half"
    model.graph.node.append(helper.make_node("Cast", ["Y_half"], ["Y"], to=TensorProto.FLOAT))
    actual = run_without_plugin(add_fallback(model), *inputs)["Y"]
    inputs = [each.astype(ml_dtypes.bfloat16) if each.ndim == 4 else each for each in inputs]
    expected = family_reference(name, ATTRIBUTES[name], inputs)
    np.testing.assert_allclose(actual, expected, *tolerances.KERNEL["bfloat16"])


@pytest.mark.parametrize("opset", [18, 22])
@pytest.mark.parametrize("images", [2, 0])
@pytest.mark.parametrize("name", FAMILY)
def test_no_rois(name: str, images: int, opset: int, run: Run, rng: np.random.Generator) -> None:
    signature, inputs = OPERATORS[name], family_inputs(name, rng, num_rois=0)
    maps = [number for number, each in enumerate(inputs) if each.ndim == 4 and len(each)]
    for number in maps:
        inputs[number] = inputs[number][:images]
    model = add_fallback(family_model(name, ATTRIBUTES[name], inputs, opset=opset))
    actual = run(model, *inputs)["Y"]
    channels = inputs[maps[0]].shape[1] // (PH * PW if signature.channel_per_bin else 1)
    assert actual.shape == (0, channels, PH, PW)


def test_every_operator_has_a_function() -> None:
    assert set(FUNCTIONS) == set(SIGNATURES)
    for name, signature in OPERATORS.items():
        proto = fallback_function(name)
        assert len(proto.input) == len(signature.inputs)
        names = {*proto.attribute, *(attribute.name for attribute in proto.attribute_proto)}
        assert names == set(signature.attributes)
        for attribute in proto.attribute_proto:
            if signature.attributes[attribute.name] is not None:
                value = helper.get_attribute_value(attribute)
                value = value.decode() if isinstance(value, bytes) else value
                default = signature.attributes[attribute.name]
                assert value == (np.float32(default) if isinstance(default, float) else default)


@pytest.mark.parametrize(
    ("name", "num_inputs", "text"),
    [
        ("PsRoiAlign", 4, "PsRoiAlign: inputs must be 3; got 4"),
        ("DeformRoiPool", 2, "DeformRoiPool: inputs must be 3 to 4; got 2"),
        ("MultiScaleRoiAlign", 2, "MultiScaleRoiAlign: inputs must be at least 3; got 2"),
    ],
)
def test_wrong_number_of_inputs(name: str, num_inputs: int, text: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"^{text}$"):
        fallback_function(name, num_inputs=num_inputs)


@pytest.mark.parametrize("name", FAMILY)
def test_bad_attribute_is_refused(name: str, rng: np.random.Generator) -> None:
    inputs = family_inputs(name, rng)
    attributes = {**ATTRIBUTES[name], "output_width": 0}
    with pytest.raises(InvalidArgumentError) as caught:
        add_fallback(family_model(name, attributes, inputs))
    assert str(caught.value) == f"{name}: attribute output_width must be at least 1; got 0"
