"""RoiPool, the maxima and their cells, against torchvision, the reference and hand-made cases."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from peers import torchvision_roi_pool
from plugin import ELEMENT_TYPES, Device, make_model, make_session, random_inputs, run

from ort_roialign.reference import roi_pool

SCALE = 0.3
BINS = {"output_height": 3, "output_width": 4, "spatial_scale": SCALE}


def one_box(x: Any, box: Any) -> Any:
    return {"X": x, "rois": np.array([box], x.dtype), "batch_indices": np.array([0])}


def check_against_reference(device: Device, inputs: Any, **attributes: Any) -> None:
    """A maximum of cells is not rounded, so it is the reference's to the bit in every type."""
    y, argmax = run(device, "RoiPool", inputs, **attributes)
    expected_y, expected_argmax = roi_pool(
        inputs["X"], inputs["rois"], inputs["batch_indices"], **attributes
    )
    assert_array_equal(y, expected_y)
    assert_array_equal(argmax, expected_argmax)


@pytest.mark.parametrize("scale", [1 / 16, SCALE, 1.0])
@pytest.mark.parametrize("type_name", list(ELEMENT_TYPES))
def test_equals_the_reference(device, rng, type_name, scale):
    inputs = random_inputs(rng, type_name, spatial_scale=scale)
    check_against_reference(device, inputs, **(BINS | {"spatial_scale": scale}))


@pytest.mark.parametrize("scale", [1 / 16, SCALE, 1.0])
@pytest.mark.parametrize("type_name", ["float32", "float64"])
def test_equals_torchvision(device, rng, type_name, scale):
    inputs = random_inputs(rng, type_name, num_rois=30, spatial_scale=scale)
    attributes = BINS | {"spatial_scale": scale}
    y, argmax = run(device, "RoiPool", inputs, **attributes)
    expected_y, expected_argmax = torchvision_roi_pool(inputs, **attributes)
    assert_array_equal(y, expected_y)
    assert_array_equal(argmax, expected_argmax)
    assert (argmax == -1).any()  # boxes outside the map were drawn too


@pytest.mark.parametrize("type_name", ["float16", "bfloat16"])
def test_float32_boxes_beside_half_maps(device, rng, type_name):
    inputs = random_inputs(rng, type_name, rois_type="float32", spatial_scale=1 / 256)
    check_against_reference(device, inputs, **(BINS | {"spatial_scale": 1 / 256}))


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 15, 16, 17, 33])
def test_number_of_channels(device, rng, channels):
    inputs = random_inputs(rng, "float32", channels=channels, num_rois=5, spatial_scale=SCALE)
    check_against_reference(device, inputs, **BINS)


@pytest.mark.parametrize(
    ("map_size", "bins"),
    [((1, 1), (1, 1)), ((1, 17), (2, 5)), ((19, 1), (7, 1)), ((5, 31), (9, 2))],
)
def test_shapes_of_maps_and_bins(device, rng, map_size, bins):
    height, width = map_size
    inputs = random_inputs(rng, "float32", height=height, width=width, spatial_scale=SCALE)
    attributes = {"output_height": bins[0], "output_width": bins[1], "spatial_scale": SCALE}
    check_against_reference(device, inputs, **attributes)


@pytest.mark.parametrize("type_name", list(ELEMENT_TYPES))
def test_two_by_two_map_derived_by_hand(device, type_name):
    # The end belongs to the box, which is thus two cells large: a cell a bin.
    x = np.array([[[[1, 2], [3, 4]]]]).astype(ELEMENT_TYPES[type_name])
    y, argmax = run(device, "RoiPool", one_box(x, [0, 0, 1, 1]), output_height=2, output_width=2)
    assert_array_equal(y, [[[[1, 2], [3, 4]]]])
    assert_array_equal(argmax, [[[[0, 1], [2, 3]]]])


def test_bins_overlap_derived_by_hand(device):
    # Five cells in three bins of 5/3: floor and ceil give cells 0-1, 1-3 and 3-4.
    x = np.array([1, 2, 4, 8, 3.0]).reshape(1, 1, 1, 5)
    y, argmax = run(device, "RoiPool", one_box(x, [0, 0, 4, 0]), output_width=3)
    assert_array_equal(y, [[[[2, 8, 8]]]])
    assert_array_equal(argmax, [[[[1, 3, 3]]]])


@pytest.mark.parametrize(
    ("x1", "cell"),
    # Halves are rounded away from zero, as C does, not to even numbers as NumPy does.
    [(0.5, 1), (1.5, 2), (2.5, 3), (2.49, 2), (-0.5, -1), (-0.49, 0)],
)
def test_edges_are_rounded_half_away_from_zero(device, x1, cell):
    x = np.arange(1, 6, dtype=np.float32).reshape(1, 1, 1, 5)
    y, argmax = run(device, "RoiPool", one_box(x, [x1, 0, x1, 0]))
    assert argmax.item() == cell
    assert y.item() == (cell + 1 if cell >= 0 else 0)


@pytest.mark.parametrize("box", [[3, 2, 1, 1], [3, 1, 3, 1], [3, 1, -9, 1]])
def test_malformed_box_is_one_cell(device, rng, box):
    x = rng.standard_normal((1, 2, 5, 6)).astype(np.float32)
    y, argmax = run(device, "RoiPool", one_box(x, box), output_height=2, output_width=2)
    row, column = box[1], box[0]
    assert_array_equal(y, np.broadcast_to(x[:, :, row, column, None, None], (1, 2, 2, 2)))
    assert_array_equal(argmax, row * 6 + column)


def test_box_outside_gives_zero_and_no_cell(device, rng):
    x = rng.standard_normal((1, 2, 5, 6)).astype(np.float32)
    for box in ([10, 1, 14, 3], [1, -9, 4, -3], [-9, -9, -7, -7]):
        y, argmax = run(device, "RoiPool", one_box(x, box), output_height=2, output_width=2)
        assert_array_equal(y, np.zeros((1, 2, 2, 2)))
        assert_array_equal(argmax, np.full((1, 2, 2, 2), -1))


@pytest.mark.parametrize("scale", [1.0, 4.0])
@pytest.mark.parametrize("box", [[-1e9, -1e9, 1e9, 1e9], [0, 0, 1e9, 1e9], [-1e12, -2, 3e9, 2]])
def test_huge_boxes(device, rng, box, scale):
    inputs = one_box(rng.standard_normal((1, 2, 5, 6)).astype(np.float32), box)
    check_against_reference(device, inputs, **(BINS | {"spatial_scale": scale}))


@pytest.mark.parametrize("type_name", list(ELEMENT_TYPES))
def test_first_of_equal_cells_wins(device, type_name):
    x = np.full((1, 1, 4, 5), -3).astype(ELEMENT_TYPES[type_name])
    x[0, 0, 1, 3] = x[0, 0, 2, 0] = x[0, 0, 3, 4] = -1
    y, argmax = run(device, "RoiPool", one_box(x, [0, 0, 4, 3]))
    assert (y.item(), argmax.item()) == (-1, 1 * 5 + 3)


@pytest.mark.parametrize("type_name", list(ELEMENT_TYPES))
def test_not_a_number_wins_and_minus_infinity_is_a_value(device, type_name):
    x = np.full((1, 2, 2, 3), -np.inf).astype(ELEMENT_TYPES[type_name])
    x[0, 1] = np.inf
    x[0, 1, 0, 2] = x[0, 1, 1, 1] = np.nan
    y, argmax = run(device, "RoiPool", one_box(x, [0, 0, 2, 1]))
    assert_array_equal(y[:, :, 0, 0], [[-np.inf, np.nan]])
    assert_array_equal(argmax[:, :, 0, 0], [[0, 2]])


@pytest.mark.parametrize("num_images", [0, 2])
@pytest.mark.parametrize("outputs", [1, 2])
def test_no_rois(device, rng, num_images, outputs):
    inputs = random_inputs(rng, "float32", num_images=2, num_rois=0)
    inputs["X"] = inputs["X"][:num_images]
    for result in run(device, "RoiPool", inputs, outputs=outputs, **BINS):
        assert result.shape == (0, 3, 3, 4)


def test_argmax_is_optional(device, rng):
    inputs = random_inputs(rng, "float32", spatial_scale=SCALE)
    y, _ = run(device, "RoiPool", inputs, **BINS)
    (y_alone,) = run(device, "RoiPool", inputs, outputs=1, **BINS)
    assert_array_equal(y_alone, y)


def test_argmax_may_have_an_empty_name(device, rng):
    inputs = random_inputs(rng, "float32", spatial_scale=SCALE)
    model: onnx.ModelProto = make_model(
        "RoiPool", BINS, {name: array.dtype for name, array in inputs.items()}, outputs=1
    )
    model.graph.node[0].output.append("")
    (y,) = make_session(model, device).run(None, inputs)
    assert_array_equal(y, run(device, "RoiPool", inputs, **BINS)[0])


@settings(
    max_examples=30,
    deadline=None,
    # The device is the same for all examples of a test.
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    box=st.lists(st.floats(-60, 60, width=16), min_size=4, max_size=4),
    bins=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    scale=st.sampled_from([0.0625, 0.1, 0.5, 1.0, 1.7]),
    size=st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_box_equals_the_reference(device, box, bins, scale, size, seed):
    x = np.random.default_rng(seed).integers(-3, 4, (1, *size)).astype(np.float32)  # many ties
    attributes = {"output_height": bins[0], "output_width": bins[1], "spatial_scale": scale}
    check_against_reference(device, one_box(x, box), **attributes)
