"""Every operator and its gradient cell by cell, with each instruction set's own kernels.

RoiAlign's and MultiScaleRoiAlign's forward passes have kernels of their own: test_cpu_isas.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tolerances
from family import CASES, Case
from numpy.testing import assert_allclose, assert_array_equal
from plugin import ELEMENT_TYPES, PYRAMID, Device, forced_kernels, run

import ort_roialign
from ort_roialign import reference

Array = np.ndarray[Any, Any]
WAYS = ["packed", "plain"]

# Blocks of channels: a part of one, and several of which the last one is not full.
CHANNELS = [5, 41]

# Bins with more cells than a portion of a list: these boxes' lists are laid where they are used.
WIDE_MAP = (47, 61)
WIDE_BINS = {"output_height": 1, "output_width": 2}


@pytest.fixture(params=list(CASES))
def case(request) -> Case:
    return CASES[request.param]


@pytest.fixture(params=WAYS)
def way(request) -> str:
    return str(request.param)


def check(
    device: Device, case: Case, isa: str, way: str, type_name: str, inputs: Mapping[str, Array]
) -> None:
    """Run an operator and its gradient, `inputs` with dY in front, and compare both."""
    forward = {name: inputs[name] for name in inputs if name != "dY"}
    with forced_kernels(isa, way):
        found = run(device, case.operator, forward, **case.attributes)
    expected = case.expected(forward)
    tolerance = tolerances.KERNEL[type_name]
    assert_allclose(found[0].astype(np.float64), expected[0], *tolerance)
    for other, other_expected in zip(found[1:], expected[1:], strict=True):
        assert_array_equal(other, other_expected)
    with forced_kernels(isa, way):
        gradients = run(device, f"{case.operator}Grad", inputs, **case.attributes)
    for gradient, wanted in zip(gradients, case.expected_gradients(inputs), strict=True):
        tolerance = tolerances.gradient_of_any_size(type_name, wanted)
        assert_allclose(gradient.astype(np.float64), wanted, *tolerance)
    if not case.maximum:
        check_adjoint(type_name, forward, found[0], inputs["dY"], gradients)


def check_adjoint(
    type_name: str, inputs: Mapping[str, Array], y: Array, dy: Array, gradients: list[Array]
) -> None:
    """Compare <dY, A x> with <A^T dY, x>."""
    maps = [inputs[name].astype(np.float64) for name in inputs if name in ("X", *PYRAMID)]
    left = np.vdot(dy.astype(np.float64), y.astype(np.float64))
    shares = [
        np.vdot(gradient.astype(np.float64), x)
        for gradient, x in zip(gradients[: len(maps)], maps, strict=True)
    ]
    rtol, atol = tolerances.GRADIENT[type_name]
    # Both are sums over as many products of order 1 as Y has numbers.
    assert abs(left - sum(shares)) <= rtol * abs(left) + atol * np.sqrt(y.size)


@pytest.mark.parametrize("type_name", list(ELEMENT_TYPES))
@pytest.mark.parametrize("channels", CHANNELS)
def test_every_operator_on_every_instruction_set(
    cpu_device, rng, case, isa, way, channels, type_name
):
    case = replace(case, channels=channels)
    if case.operator in ("RoiAlign", "MultiScaleRoiAlign") and way == "packed" and channels < 16:
        pytest.skip("test_cpu_isas.py has it: few channels of these take the direct path")
    inputs = case.with_gradient(rng, case.draw(rng, type_name, num_rois=20))
    check(cpu_device, case, isa, way, type_name, inputs)


def on_a_wide_map(rng: np.random.Generator, case: Case, type_name: str) -> dict[str, Array]:
    """Inputs with boxes as large as the map, in no order among small ones."""
    dtype = ELEMENT_TYPES[type_name]
    inputs = case.draw(rng, type_name)
    channels = case.channels * (2 if case.operator.startswith("Ps") else 1)
    for name in inputs:
        if name in ("X", *PYRAMID):
            inputs[name] = rng.standard_normal((2, channels, *WIDE_MAP)).astype(dtype)
    height, width = WIDE_MAP
    if case.columns == 5:
        inputs["rois"][1::3] = np.array(
            [width / 0.6, height / 0.6, 1.1 * width / 0.3, height / 0.3, 0.4]
        ).astype(dtype)
    else:
        inputs["rois"][1::3] = np.array([-9, 3, width / 0.3 + 5, height / 0.3]).astype(dtype)
    if "offset" in inputs:
        inputs["offset"] = rng.standard_normal((len(inputs["rois"]), 2, 1, 2)).astype(dtype)
    dy = rng.standard_normal((len(inputs["rois"]), case.channels, 1, 2)).astype(dtype)
    return {"dY": dy, **inputs}


@pytest.mark.parametrize("type_name", ["float32", "float16"])
@pytest.mark.parametrize("name", [name for name in CASES if not name.startswith("Multi")])
def test_bins_of_many_cells_come_in_portions(cpu_device, rng, isa, way, name, type_name):
    if name == "RoiAlign" and way == "packed":
        pytest.skip("test_cpu_isas.py has it: its forward pass takes some of these by another path")
    case = CASES[name]
    attributes = {**case.attributes, **WIDE_BINS}
    if "sampling_ratio" in attributes:
        attributes["sampling_ratio"] = 40
    case = replace(case, attributes=attributes, channels=19)
    check(cpu_device, case, isa, way, type_name, on_a_wide_map(rng, case, type_name))


@pytest.mark.parametrize("values", ["normal", "ties", "nan"])
@pytest.mark.parametrize("name", ["RoiAlignRotated-max", "RoiPool", "RoiAlign-max"])
@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
def test_the_first_of_equal_samples_gets_the_gradient(
    cpu_device, rng, isa, way, name, values, large
):
    """Where many bins have 0 for a maximum, which no rounding changes, and where a NaN wins."""
    if name == "RoiAlign-max":
        attributes = {**CASES["RoiAlign"].attributes, "mode": "max"}
        case = Case("RoiAlign", attributes, reference.roi_align, reference.roi_align_grad)
    else:
        case = CASES[name]
    case = replace(case, channels=37)
    inputs = case.with_gradient(rng, case.draw(rng, "float32", num_rois=12))
    if large:
        attributes = {**case.attributes, **WIDE_BINS}
        if "sampling_ratio" in attributes:
            attributes["sampling_ratio"] = 37
        case = replace(case, attributes=attributes)
        inputs = on_a_wide_map(rng, case, "float32")
    if values == "ties":
        inputs["X"] = np.minimum(inputs["X"] - 0.3, 0)  # and no other number twice
    if values == "nan":
        inputs["X"][rng.random(inputs["X"].shape) < 0.02] = np.nan
    with forced_kernels(isa, way):
        (dx, *_) = run(cpu_device, f"{case.operator}Grad", inputs, **case.attributes)
    (expected, *_) = case.expected_gradients(inputs)
    assert_allclose(dx, expected, *tolerances.GRADIENT["float32"])


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_change_no_bit(cpu_device, rng, case, way, threads):
    case = replace(case, channels=70)
    inputs = case.draw(rng, "float32", num_rois=150)
    with_gradient = case.with_gradient(rng, inputs)
    isa = ort_roialign.cpu_state()["isa"]
    for operator, given in ((case.operator, inputs), (f"{case.operator}Grad", with_gradient)):
        with forced_kernels(isa, way):
            one = run(cpu_device, operator, given, threads=1, **case.attributes)
            more = run(cpu_device, operator, given, threads=threads, **case.attributes)
        for first, second in zip(one, more, strict=True):
            assert_array_equal(first, second)
