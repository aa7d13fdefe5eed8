"""Every operator of the family against the reference, on every device and in every type."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tolerances
from family import (
    BINS,
    CASES,
    HEIGHT,
    NUM_IMAGES,
    SCALE,
    WIDTH,
    Case,
    on_a_wide_map,
    with_wide_bins,
)
from numpy.testing import assert_allclose, assert_array_equal
from plugin import ELEMENT_TYPES, INPUTS, OUTPUTS, PYRAMID, forced_kernels, run

import ort_roialign


@pytest.fixture(params=list(CASES))
def case(request) -> Case:
    return CASES[request.param]


def test_every_operator_has_a_case():
    operators = {case.operator for case in CASES.values()}
    assert operators | {f"{operator}Grad" for operator in operators} == set(INPUTS)


@pytest.mark.parametrize("type_name", list(ELEMENT_TYPES))
def test_equals_the_reference(device, rng, case, type_name):
    inputs = case.draw(rng, type_name)
    found = run(device, case.operator, inputs, **case.attributes)
    expected = case.expected(inputs)
    assert np.abs(expected[0]).max() > 0.5
    assert_allclose(
        found[0].astype(np.float64), expected[0], **tolerances.KERNEL[type_name]._asdict()
    )
    for other, other_expected in zip(found[1:], expected[1:], strict=True):
        assert_array_equal(other, other_expected)


@pytest.mark.parametrize("type_name", list(ELEMENT_TYPES))
def test_gradients_equal_the_reference(device, rng, case, type_name):
    inputs = case.with_gradient(rng, case.draw(rng, type_name))
    operator = f"{case.operator}Grad"
    found = run(device, operator, inputs, **case.attributes)
    expected = case.expected_gradients(inputs)
    assert len(found) == len(expected) == len(OUTPUTS[operator])
    assert sum(np.abs(wanted).max() > 0.1 for wanted in expected) >= min(2, len(expected))
    for gradient, wanted in zip(found, expected, strict=True):
        tolerance = tolerances.gradient_of_any_size(type_name, wanted)
        assert_allclose(gradient.astype(np.float64), wanted, *tolerance)


@pytest.mark.parametrize("sampling_ratio", [0, 30])
def test_gradients_of_bins_of_many_cells(device, rng, case, sampling_ratio):
    case = with_wide_bins(case, sampling_ratio)
    inputs = on_a_wide_map(rng, case, "float32")
    found = run(device, f"{case.operator}Grad", inputs, **case.attributes)
    for gradient, wanted in zip(found, case.expected_gradients(inputs), strict=True):
        tolerance = tolerances.gradient_of_any_size("float32", wanted)
        assert_allclose(gradient, wanted, *tolerance)


@pytest.mark.parametrize("name", ["PrRoiPool", "DeformRoiPool"])
def test_either_of_two_gradients_may_be_left_out(device, rng, name):
    case = CASES[name]
    inputs = case.with_gradient(rng, case.draw(rng, "float32"))
    operator = f"{name}Grad"
    both = run(device, operator, inputs, **case.attributes)
    for output, expected in zip(OUTPUTS[operator], both, strict=True):
        (alone,) = run(device, operator, inputs, outputs=(output,), **case.attributes)
        assert_array_equal(alone, expected)


@pytest.mark.parametrize("type_name", ["float32", "float64"])
def test_forward_and_backward_are_adjoint(device, rng, case, type_name):
    if case.maximum:
        pytest.skip("a maximum is not linear in the maps")
    inputs = case.draw(rng, type_name)
    with_gradient = case.with_gradient(rng, inputs)
    (y,) = run(device, case.operator, inputs, **case.attributes)
    gradients = run(device, f"{case.operator}Grad", with_gradient, **case.attributes)
    maps = [inputs[name] for name in inputs if name in ("X", *PYRAMID)]
    left = np.vdot(with_gradient["dY"].astype(np.float64), y)
    right = sum(
        np.vdot(dx.astype(np.float64), x)
        for dx, x in zip(gradients[: len(maps)], maps, strict=True)
    )
    assert abs(left) > 0.1
    assert_allclose(left, right, **tolerances.GRADIENT[type_name]._asdict())


@pytest.mark.parametrize("type_name", list(ELEMENT_TYPES))
@pytest.mark.parametrize("name", ["MultiScaleRoiAlign", "MultiScaleRoiAlign-max"])
def test_pyramids_on_every_instruction_set(cpu_device, rng, isa, path, name, type_name):
    case = CASES[name]
    inputs = case.draw(rng, type_name, num_rois=30)
    with forced_kernels(isa, path):
        (y,) = run(cpu_device, case.operator, inputs, **case.attributes)
    tolerance = tolerances.KERNEL[type_name]
    assert_allclose(y.astype(np.float64), case.expected(inputs)[0], *tolerance)


@pytest.mark.parametrize("path", ["packed", "direct"])
def test_pyramids_in_many_channels(cpu_device, rng, path):
    """Several blocks of channels, on each of which the boxes of several maps are pooled."""
    case = replace(CASES["MultiScaleRoiAlign"], channels=70)
    inputs = case.draw(rng, "float32", num_rois=60)
    with forced_kernels(ort_roialign.cpu_state()["isa"], path):
        (y,) = run(cpu_device, case.operator, inputs, **case.attributes)
    assert_allclose(y, case.expected(inputs)[0], *tolerances.KERNEL["float32"])


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_change_no_bit(cpu_device, rng, case, threads):
    inputs = case.draw(rng, "float32", num_rois=40)
    with_gradient = case.with_gradient(rng, inputs)
    for operator, given in ((case.operator, inputs), (f"{case.operator}Grad", with_gradient)):
        one = run(cpu_device, operator, given, threads=1, **case.attributes)
        more = run(cpu_device, operator, given, threads=threads, **case.attributes)
        for first, second in zip(one, more, strict=True):
            assert_array_equal(first, second)


def test_no_rois(device, rng, case):
    inputs = case.draw(rng, "float32", num_rois=0)
    found = run(device, case.operator, inputs, **case.attributes)
    assert found[0].shape == (0, case.channels, *BINS.values())
    gradients = run(
        device, f"{case.operator}Grad", case.with_gradient(rng, inputs), **case.attributes
    )
    for name, gradient in zip(OUTPUTS[f"{case.operator}Grad"], gradients, strict=True):
        assert gradient.shape == inputs[name[1:]].shape
        assert_array_equal(gradient, 0)


def test_float32_rois_beside_half_maps(device, rng, case):
    inputs = case.draw(rng, "float16")
    inputs["rois"] = inputs["rois"].astype(np.float32) + np.float32(1e-3)
    (y, *_) = run(device, case.operator, inputs, **case.attributes)
    tolerance = tolerances.KERNEL["float16"]
    assert_allclose(y.astype(np.float64), case.expected(inputs)[0], *tolerance)


def test_huge_rois_end_and_equal_the_reference(device, rng, case):
    inputs = case.draw(rng, "float32", num_rois=3)
    far = np.float32(1e9)
    if case.columns == 5:
        inputs["rois"] = np.array(
            [[5, 5, far, far, 0.7], [far, far, far, far, 0.3], [0, 0, far, 2, 1]], np.float32
        )
    else:
        inputs["rois"] = np.array(
            [[-far, -far, far, far], [far, far, 2 * far, 2 * far], [0, 0, far, 2]], np.float32
        )
    (y, *_) = run(device, case.operator, inputs, **case.attributes)
    expected = case.expected(inputs)[0]
    assert_allclose(y, expected, *tolerances.KERNEL["float32"])


def test_an_average_of_a_constant_map_is_the_constant(device, rng, case):
    """However small the boxes are: what cells weigh in a bin adds up to 1."""
    inputs = case.draw(rng, "float32", num_rois=40)
    for name in inputs:
        if name in ("X", *PYRAMID):
            inputs[name][...] = 1.0
    centre = np.array([WIDTH, HEIGHT]) / SCALE * rng.uniform(0.4, 0.6, (40, 2))
    side = np.exp(rng.uniform(np.log(1e-3), np.log(15), (40, 2)))
    box = [centre, side] if case.columns == 5 else [centre - side / 2, centre + side / 2]
    inputs["rois"][:, :4] = np.concatenate(box, axis=1)
    (y, *_) = run(device, case.operator, inputs, **case.attributes)
    # Boxes that round to no size at all have no bins.
    sides = inputs["rois"][:, 2:4] - (0 if case.columns == 5 else inputs["rois"][:, :2])
    assert_allclose(y[(sides > 0).all(axis=1)], 1, *tolerances.KERNEL["float32"])


def test_rois_whose_area_underflows(device, rng, case):
    inputs = case.draw(rng, "float32", num_rois=3)
    inputs["rois"][1, :4] = [0, 0, 1e-20, 1e-21]
    inputs["rois"][2, :4] = [3, 0, 2e-19, 3e-25] if case.columns == 5 else [0, 3, 2e-19, 3 + 1e-6]
    (y, *_) = run(device, case.operator, inputs, **case.attributes)
    assert_allclose(y, case.expected(inputs)[0], *tolerances.KERNEL["float32"])
    with_gradient = case.with_gradient(rng, inputs)
    maps = sum(name in ("X", *PYRAMID) for name in inputs)
    found = run(device, f"{case.operator}Grad", with_gradient, **case.attributes)
    expected = case.expected_gradients(with_gradient)
    for gradient, wanted in zip(found[:maps], expected[:maps], strict=True):
        assert_allclose(gradient, wanted, *tolerances.gradient_of_any_size("float32", wanted))
    # A box of so little size moves its value by 1e20 times any rounding.
    assert all(np.isfinite(gradient).all() for gradient in found[maps:])


def test_a_bad_roi(device, rng, case):
    inputs = case.draw(rng, "float32")
    inputs["rois"][4, 1] = np.nan
    good = np.arange(len(inputs["rois"])) != 4
    if device.fails_on_bad_rois:
        with pytest.raises(Exception, match=rf"{case.operator}: rois\[4\] must have finite coord"):
            run(device, case.operator, inputs, **case.attributes)
        return
    (y, *_) = run(device, case.operator, inputs, **case.attributes)
    assert np.isnan(y[~good]).all()
    assert np.isfinite(y[good]).all()


def test_a_bad_batch_index(device, rng, case):
    inputs = case.draw(rng, "float32")
    inputs["batch_indices"][2] = NUM_IMAGES
    if device.fails_on_bad_rois:
        with pytest.raises(Exception, match=rf"{case.operator}: batch_indices\[2\] must be in"):
            run(device, case.operator, inputs, **case.attributes)
        return
    (y, *_) = run(device, case.operator, inputs, **case.attributes)
    assert np.isnan(y[2]).all()


def test_an_infinite_cell_reaches_only_the_bins_that_read_it(device, rng, case):
    inputs = case.draw(rng, "float32")
    name = "X" if "X" in inputs else PYRAMID[0]
    row, column = HEIGHT // 2, WIDTH // 2
    inputs[name][:, :, row, column] = np.inf
    x, y, side = (column + 0.5) / SCALE, (row + 0.5) / SCALE, 9
    box = [x, y, side, side, 0.5] if case.columns == 5 else [x - 4, y - 4, x + 5, y + 5]
    inputs["rois"][0] = box
    (y, *_) = run(device, case.operator, inputs, **case.attributes)
    expected = case.expected(inputs)[0]
    assert not np.isfinite(expected).all()
    assert np.isfinite(expected).any()
    assert_array_equal(np.isfinite(y), np.isfinite(expected))
