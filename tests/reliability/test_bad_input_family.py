"""Bad input to the family: errors that name operator, argument, required and given."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from plugin import INPUTS, PYRAMID, Device, make_model, make_session, run

LEVELS = {"spatial_scales": [0.5, 0.25, 0.125]}
SIZE = {"output_height": 2, "output_width": 3}


def good_inputs(operator: str, rng: np.random.Generator) -> dict[str, Any]:
    """Inputs of two boxes that the operator takes, with the attributes of `good_attributes`."""
    channels = 12 if operator.startswith("Ps") else 4
    columns = 5 if "Rotated" in operator else 4
    values = {
        name: rng.standard_normal((2, channels, 6, 7), np.float32) for name in ("X", *PYRAMID)
    }
    values["rois"] = rng.uniform(1, 5, (2, columns)).astype(np.float32)
    values["batch_indices"] = np.array([0, 1])
    values["offset"] = rng.standard_normal((2, 2, 2, 3), np.float32)
    values["dY"] = rng.standard_normal(
        (2, channels // (6 if channels == 12 else 1), 2, 3), np.float32
    )
    return {name: values[name] for name in INPUTS[operator]}


def good_attributes(operator: str) -> dict[str, Any]:
    return SIZE | (LEVELS if operator.startswith("Multi") else {})


def error_of(device: Device, operator: str, inputs: Any, attributes: Any) -> str:
    types = {name: array.dtype for name, array in inputs.items()}
    with pytest.raises(Exception, match=operator) as raised:
        make_session(make_model(operator, attributes, types), device).run(None, inputs)
    return str(raised.value)


@pytest.mark.parametrize("operator", list(INPUTS))
def test_good_input_is_taken(device, rng, operator):
    run(device, operator, good_inputs(operator, rng), **good_attributes(operator))


@pytest.mark.parametrize("operator", list(INPUTS))
def test_shapes_of_rois(device, rng, operator):
    inputs = good_inputs(operator, rng)
    columns = inputs["rois"].shape[1]
    wrong = np.ones((2, 9 - columns), np.float32)
    text = error_of(device, operator, inputs | {"rois": wrong}, good_attributes(operator))
    required = f"{operator}: rois must have shape [num_rois, {columns}]"
    assert f"{required}; got [2, {9 - columns}]" in text
    text = error_of(
        device, operator, inputs | {"batch_indices": np.array([0])}, good_attributes(operator)
    )
    assert f"{operator}: batch_indices must have shape [num_rois] = [2]; got [1]" in text


@pytest.mark.parametrize(
    ("operator", "name", "array", "text"),
    [
        (
            "PsRoiAlign",
            "X",
            np.ones((2, 13, 6, 7), np.float32),
            "X must have a multiple of output_height * output_width = 6 channels; "
            "got [2, 13, 6, 7]",
        ),
        (
            "PsRoiPoolGrad",
            "dY",
            np.ones((2, 12, 2, 3), np.float32),
            "= [2, 2, 2, 3]; got [2, 12, 2, 3]",
        ),
        (
            "MultiScaleRoiAlign",
            "X1",
            np.ones((2, 5, 6, 7), np.float32),
            "X[1] must have as many images and channels as X[0], which has shape [2, 4, 6, 7]; "
            "got [2, 5, 6, 7]",
        ),
        (
            "MultiScaleRoiAlignRotatedGrad",
            "X2",
            np.ones((1, 4, 6, 7), np.float32),
            "X[2] must have as many images and channels as X[0], which has shape [2, 4, 6, 7]; "
            "got [1, 4, 6, 7]",
        ),
        (
            "MultiScaleRoiAlign",
            "X2",
            np.ones((2, 4, 6), np.float32),
            "X[2] must have shape [num_images, channels, height, width]; got [2, 4, 6]",
        ),
        (
            "DeformRoiPool",
            "offset",
            np.ones((2, 2, 3, 2), np.float32),
            "offset must have shape [num_rois, 2, output_height, output_width] = [2, 2, 2, 3]; "
            "got [2, 2, 3, 2]",
        ),
        (
            "DeformRoiPool",
            "offset",
            np.array(1, np.float32),
            "offset must have shape [num_rois, 2, output_height, output_width] = [2, 2, 2, 3]; "
            "got []",
        ),
    ],
)
def test_shapes(device, rng, operator, name, array, text):
    inputs = good_inputs(operator, rng) | {name: array}
    assert text in error_of(device, operator, inputs, good_attributes(operator))


@pytest.mark.parametrize(
    ("operator", "attributes", "text"),
    [
        (
            "MultiScaleRoiAlign",
            {"spatial_scales": [0.5, 0.25]},
            "X must be as many maps as attribute spatial_scales has numbers, 2; got 3",
        ),
        (
            "MultiScaleRoiAlign",
            {"spatial_scales": [0.5] * 17},
            "attribute spatial_scales must have one number for each map, 1 to 16 in all; got 17",
        ),
        (
            "MultiScaleRoiAlignRotated",
            {"spatial_scales": [0.5, -1.0, 0.1]},
            "attribute spatial_scales must be finite and greater than 0; got -1",
        ),
        (
            "MultiScaleRoiAlign",
            {"min_level": 2, "max_level": 5},
            "attribute max_level must be in [min_level, min_level + 3 maps - 1] = [2, 4]; got 5",
        ),
        (
            "MultiScaleRoiAlign",
            {"spatial_scales": [0.0625, 0.125, 0.25]},
            "= [4, 6]; got 2 from the scales, which must be those of maps, finest first",
        ),
        (
            "MultiScaleRoiAlign",
            {"spatial_scales": [1, 1, 1]},
            "attribute spatial_scales must be a list of floats; got a list",
        ),
        (
            "MultiScaleRoiAlign",
            {"spatial_scales": 0.5},
            "attribute spatial_scales must be a list of floats; got the float 0.5",
        ),
        (
            "MultiScaleRoiAlign",
            {"canonical_scale": 0.0},
            "attribute canonical_scale must be greater than 0; got 0",
        ),
        (
            "MultiScaleRoiAlignGrad",
            {"log_epsilon": float("nan")},
            "attribute log_epsilon must be finite; got nan",
        ),
        (
            "RoiAlignRotated",
            {"angle_unit": "turns"},
            'attribute angle_unit must be "radians" or "degrees"; got "turns"',
        ),
        ("RoiAlignRotated", {"clockwise": 2}, "attribute clockwise must be at most 1; got 2"),
        ("DeformRoiPool", {"gamma": float("inf")}, "attribute gamma must be finite; got inf"),
        ("PrRoiPool", {"spatial_scale": -1.0}, "attribute spatial_scale must be finite and"),
        ("PsRoiAlign", {"sampling_ratio": -1}, "attribute sampling_ratio must be at least 0"),
    ],
)
def test_attributes(device, rng, operator, attributes, text):
    given = good_attributes(operator) | attributes
    assert text in error_of(device, operator, good_inputs(operator, rng), given)


@pytest.mark.parametrize("operator", ["MultiScaleRoiAlign", "MultiScaleRoiAlignRotatedGrad"])
def test_scales_are_required(device, rng, operator):
    text = error_of(device, operator, good_inputs(operator, rng), SIZE)
    assert (
        "attribute spatial_scales must have one number for each map, 1 to 16 in all; got 0" in text
    )


def test_an_offset_that_is_not_finite_moves_its_bin_off_the_map(device, rng):
    inputs = good_inputs("DeformRoiPool", rng)
    inputs["offset"][:] = 0
    inputs["rois"][:] = [1, 1, 5, 5]
    inputs["offset"][1, 0, 1, 2] = np.nan
    (y,) = run(device, "DeformRoiPool", inputs, **SIZE)
    assert (y[1, :, 1, 2] == 0).all()
    assert (y[1, :, 0] != 0).all()
    assert np.isfinite(y).all()


@pytest.mark.parametrize("num_outputs", [1, 2])
def test_gradients_of_some_maps_alone(device, rng, num_outputs):
    inputs = good_inputs("MultiScaleRoiAlignGrad", rng)
    attributes = good_attributes("MultiScaleRoiAlignGrad")
    every = run(device, "MultiScaleRoiAlignGrad", inputs, **attributes)
    some = run(device, "MultiScaleRoiAlignGrad", inputs, outputs=num_outputs, **attributes)
    assert len(some) == num_outputs
    for found, expected in zip(some, every, strict=False):
        np.testing.assert_array_equal(found, expected)


def test_more_gradients_than_maps(device, rng):
    inputs = good_inputs("MultiScaleRoiAlignGrad", rng)
    types = {name: array.dtype for name, array in inputs.items()}
    model = make_model("MultiScaleRoiAlignGrad", good_attributes("MultiScaleRoiAlignGrad"), types)
    (node,) = model.graph.node
    del node.input[-1], model.graph.input[-1]
    node.attribute[-1].floats[:] = [0.5, 0.25]
    del inputs["X2"]
    with pytest.raises(Exception, match="there must be 1 to 2 outputs; got 3"):
        make_session(model, device).run(None, inputs)
