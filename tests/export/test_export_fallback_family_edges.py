"""The family's functions where they are easily wrong: NaN, bad input, huge boxes, levels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tolerances
from family_models import (
    ATTRIBUTES,
    SIZE,
    family_inputs,
    family_model,
    family_reference,
)
from running import Run, run_without_plugin
from test_export_fallback_family import FAMILY, without_plugin

from ort_roialign.errors import InvalidArgumentError
from ort_roialign.onnx_export import add_fallback

FLOAT32 = tolerances.KERNEL["float32"]


@pytest.mark.parametrize("name", [*FAMILY, "RoiAlign"])
def test_nan_and_infinity_stay_where_they_belong(name: str, rng: np.random.Generator) -> None:
    # Boxes that miss a cell, or have it in one bin only, must not see its value. Whether 0
    # times infinity comes in, and makes it NaN, depends on what merges the weights of samples.
    inputs = family_inputs(name, rng)
    for each in inputs:
        if each.ndim == 4 and each.shape[1] > 2:
            each[:, ::2, 1, 1:3] = np.nan
            each[:, 1::2, 2, 2:4] = np.inf
    attributes = {**ATTRIBUTES[name]}
    attributes.pop("sampling_ratio", None)  # an adaptive grid meets more cells
    actual = without_plugin(name, attributes, inputs)
    expected = family_reference(name, attributes, inputs)
    assert not np.isfinite(expected).all()
    assert np.isfinite(expected).sum() > expected.size / 3
    for values in (actual, expected):
        values[np.isinf(values)] = np.nan
    np.testing.assert_allclose(actual, expected, *FLOAT32)


@pytest.mark.parametrize("index", [-1, 2])
@pytest.mark.parametrize("name", FAMILY)
def test_batch_index_out_of_range_fails(name: str, index: int, rng: np.random.Generator) -> None:
    inputs = family_inputs(name, rng, num_rois=1)
    inputs = [np.array([index]) if each.ndim == 1 else each for each in inputs]
    # The function of RoiAlign leaves this check to the standard operator of that name.
    with pytest.raises(Exception, match=r"out of data bounds|batch_ind"):
        without_plugin(name, ATTRIBUTES[name], inputs)


@pytest.mark.parametrize("far", [1e6, 1e9, 1e20, 3e38])
@pytest.mark.parametrize(
    "name", ["PsRoiPool", "PrRoiPool", "PsRoiAlign", "RoiAlignRotated", "DeformRoiPool"]
)
def test_huge_boxes(name: str, far: float, rng: np.random.Generator) -> None:
    inputs = family_inputs(name, rng, num_rois=3)
    boxes = [[-far, -far, far, far], [0, 0, far, 30], [-far, 1, 20, 30]]
    if name == "RoiAlignRotated":
        boxes = [[20, 30, far, far, 30], [20, 30, far, 50, 90], [far, 30, 20, 20, 0]]
    inputs[1] = np.array(boxes, np.float32)
    actual = without_plugin(name, ATTRIBUTES[name], inputs)
    expected = family_reference(name, ATTRIBUTES[name], inputs)
    np.testing.assert_allclose(actual, expected, *FLOAT32)


def test_offset_that_is_not_finite(run: Run, rng: np.random.Generator) -> None:
    name = "DeformRoiPool"
    inputs = family_inputs(name, rng)
    inputs[3][:, 0, 0, 0] = np.nan
    inputs[3][:, 1, 1, 1] = np.inf
    model = add_fallback(family_model(name, ATTRIBUTES[name], inputs))
    actual = run(model, *inputs)["Y"]
    assert not actual[:, :, 0, 0].any()
    expected = family_reference(name, ATTRIBUTES[name], inputs)
    np.testing.assert_allclose(actual, expected, *FLOAT32)


@pytest.mark.parametrize("names", [None, ["input_0", "input_1", "input_2", ""]])
def test_offset_left_out(names: list[str] | None, run: Run, rng: np.random.Generator) -> None:
    name = "DeformRoiPool"
    inputs = family_inputs(name, rng, with_offset=False)
    model = add_fallback(family_model(name, ATTRIBUTES[name], inputs, input_names=names))
    expected = family_reference(name, ATTRIBUTES[name], inputs)
    np.testing.assert_allclose(run(model, *inputs)["Y"], expected, *FLOAT32)


@pytest.mark.parametrize("num_maps", [1, 2, 5])
@pytest.mark.parametrize("name", ["MultiScaleRoiAlign", "MultiScaleRoiAlignRotated"])
def test_number_of_maps(name: str, num_maps: int, run: Run, rng: np.random.Generator) -> None:
    inputs = family_inputs(name, rng, num_maps=min(num_maps, 3))
    inputs += [inputs[-1]] * (num_maps - 3)
    scales = [2.0 ** -(3 + level) for level in range(num_maps)]
    attributes = {**ATTRIBUTES[name], "spatial_scales": scales}
    model = add_fallback(family_model(name, attributes, inputs))
    expected = family_reference(name, attributes, inputs)
    np.testing.assert_allclose(run(model, *inputs)["Y"], expected, *FLOAT32)


@pytest.mark.parametrize(
    "rule",
    [
        {"canonical_scale": 32.0, "canonical_level": 4},
        {"canonical_scale": 32.0, "canonical_level": 4, "log_epsilon": 1e-8, "level_epsilon": 0.0},
        {
            "canonical_scale": 8.0,
            "canonical_level": 0,
            "min_level": 0,
            "max_level": 2,
            "log_epsilon": 1e-6,
            "level_epsilon": 0.0,
        },
        {"canonical_scale": 32.0, "canonical_level": 4, "log_epsilon": -0.5},
        {"min_level": -1, "max_level": 0, "canonical_level": -1, "canonical_scale": 20.0},
    ],
    ids=["torchvision", "detectron2", "mmdet", "negative", "below_zero"],
)
def test_levels(rule: dict[str, Any], rng: np.random.Generator) -> None:
    attributes = {"min_level": 3, "max_level": 5, **rule, "spatial_scales": [1e-3] * 3}
    actual, expected = numbers_of_maps(attributes, rng)
    assert len(np.unique(expected)) >= attributes["max_level"] - attributes["min_level"] + 1
    np.testing.assert_array_equal(actual, expected.astype(np.float32))


@pytest.mark.parametrize(
    "given",
    [{}, {"min_level": 0}, {"min_level": -3}, {"max_level": 3}, {"min_level": 2, "max_level": 3}],
)
def test_levels_that_are_not_given_are_those_of_the_scales(
    given: dict[str, Any], rng: np.random.Generator
) -> None:
    rule = {"canonical_scale": 32.0, "canonical_level": given.get("min_level", 2) + 1}
    attributes = {**rule, **given, "spatial_scales": [0.25, 0.12, 0.07]}
    actual, expected = numbers_of_maps(attributes, rng)
    np.testing.assert_allclose(actual, expected, *FLOAT32)
    on_the_map = np.unique(np.round(expected[expected > 0.5]))
    assert list(on_the_map) == ([1, 2] if "max_level" in given else [1, 2, 3])


def numbers_of_maps(rule: dict[str, Any], rng: np.random.Generator) -> tuple[Any, Any]:
    """The function's results and the reference's: each map is one number, 1 and more, the box's."""
    name = "MultiScaleRoiAlign"
    around = np.concatenate([np.nextafter(np.float32(side), [0, side, 999], dtype=np.float32)
                             for side in (8, 16, 32, 64, 128, 256, 20, 40, 80)])  # fmt: skip
    sides = np.concatenate([around, rng.uniform(1, 300, 300).astype(np.float32), [0, -5]])
    widths = np.concatenate([sides, [1e30, 1e-30, -9]])
    heights = np.concatenate([sides, [1e30, 1e-30, 9]])
    rois = np.zeros((len(widths), 4), np.float32)
    rois[:, 2], rois[:, 3] = widths, heights
    maps = [np.full((1, 1, 4, 4), 1 + level, np.float32) for level in range(3)]
    attributes = {"sampling_ratio": 1, "coordinate_transformation_mode": "half_pixel"}
    attributes |= {"output_height": 1, "output_width": 1, **rule}
    inputs = [rois, np.zeros(len(rois), np.int64), *maps]
    actual = without_plugin(name, attributes, inputs)
    return actual, family_reference(name, attributes, inputs)


def test_channels_that_do_not_go_with_the_bins_fail(rng: np.random.Generator) -> None:
    for name in ("PsRoiAlign", "PsRoiPool"):
        inputs = family_inputs(name, rng)
        inputs[0] = inputs[0][:, :-1]
        model = add_fallback(family_model(name, {**SIZE}, inputs))
        with pytest.raises(Exception, match="Reshape"):
            run_without_plugin(model, *inputs)


@pytest.mark.parametrize(
    ("attributes", "text"),
    [
        ({"output_height": 2.0}, "attribute output_height must be an integer; got 2.0"),
        ({"spatial_scale": 1}, "attribute spatial_scale must be a float; got 1"),
        ({"mode": 1}, "attribute mode must be a string; got 1"),
    ],
)
def test_attributes_of_another_type_are_refused(
    attributes: dict[str, Any], text: str, rng: np.random.Generator
) -> None:
    model = family_model("RoiAlign", attributes, family_inputs("RoiAlign", rng))
    with pytest.raises(InvalidArgumentError, match=f"RoiAlign: {text}"):
        add_fallback(model)


def test_attributes_that_the_operator_lacks_are_left_alone(rng: np.random.Generator) -> None:
    inputs = family_inputs("RoiAlign", rng)
    model = add_fallback(family_model("RoiAlign", {**SIZE, "oversampling": 3}, inputs))
    actual = run_without_plugin(model, *inputs)["Y"]
    expected = family_reference("RoiAlign", {**SIZE}, inputs)
    np.testing.assert_allclose(actual, expected, *tolerances.KERNEL["float32"])
