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
from family import CASES, Case, on_a_wide_map, with_wide_bins
from numpy.testing import assert_allclose, assert_array_equal
from plugin import (
    ELEMENT_TYPES,
    INPUTS,
    OUTPUTS,
    PYRAMID,
    Device,
    forced_kernels,
    make_model,
    make_session,
    run,
)

import ort_roialign
from ort_roialign import reference

Array = np.ndarray[Any, Any]
WAYS = ["packed", "plain"]

# Blocks of channels: a part of one, and several of which the last one is not full.
CHANNELS = [5, 41]


@pytest.fixture(params=list(CASES))
def case(request) -> Case:
    return CASES[request.param]


@pytest.fixture(params=WAYS)
def way(request) -> str:
    return str(request.param)


def check(
    device: Device,
    case: Case,
    isa: str,
    way: str,
    type_name: str,
    inputs: Mapping[str, Array],
    forward_way: str | None = None,
) -> None:
    """Run an operator and its gradient, `inputs` with dY in front, and compare both."""
    forward = {name: inputs[name] for name in inputs if name != "dY"}
    with forced_kernels(isa, forward_way or way):
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
    inputs = case.with_gradient(rng, case.draw(rng, type_name, num_rois=20))
    # Few channels of these take the direct path instead: test_cpu_isas.py has it.
    strips = case.operator in ("RoiAlign", "MultiScaleRoiAlign") and channels < 16
    check(cpu_device, case, isa, way, type_name, inputs, "plain" if strips else way)


@pytest.mark.parametrize("type_name", ["float32", "float16"])
@pytest.mark.parametrize("name", [name for name in CASES if not name.startswith("Multi")])
def test_bins_of_many_cells_come_in_portions(cpu_device, rng, isa, way, name, type_name):
    """The lists of these bins are laid where they are used."""
    case = replace(with_wide_bins(CASES[name], sampling_ratio=40), channels=19)
    inputs = on_a_wide_map(rng, case, type_name)
    # test_cpu_isas.py has RoiAlign's forward pass, which takes some of these by another path.
    check(cpu_device, case, isa, way, type_name, inputs, "plain" if name == "RoiAlign" else way)


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
        case = with_wide_bins(case, sampling_ratio=37)
        inputs = on_a_wide_map(rng, case, "float32")
    if values == "ties":
        inputs["X"] = np.minimum(inputs["X"] - 0.3, 0)  # and no other number twice
    if values == "nan":
        inputs["X"][rng.random(inputs["X"].shape) < 0.02] = np.nan
    with forced_kernels(isa, way):
        (dx, *_) = run(cpu_device, f"{case.operator}Grad", inputs, **case.attributes)
    (expected, *_) = case.expected_gradients(inputs)
    assert_allclose(dx, expected, *tolerances.GRADIENT["float32"])


@pytest.mark.parametrize("type_name", ["float32", "float16"])
@pytest.mark.parametrize("threads", [2, 5])
def test_threads_change_no_bit(cpu_device, rng, case, way, threads, type_name):
    case = replace(case, channels=70)
    inputs = case.draw(rng, type_name, num_rois=150)
    with_gradient = case.with_gradient(rng, inputs)
    isa = ort_roialign.cpu_state()["isa"]
    for operator, given in ((case.operator, inputs), (f"{case.operator}Grad", with_gradient)):
        with forced_kernels(isa, way):
            one = run(cpu_device, operator, given, threads=1, **case.attributes)
            more = run(cpu_device, operator, given, threads=threads, **case.attributes)
        for first, second in zip(one, more, strict=True):
            assert_array_equal(first, second)


@pytest.mark.parametrize("type_name", ["float32", "float16"])
def test_threads_change_no_bit_of_many_short_tasks(cpu_device, rng, way, type_name):
    """Tasks so short that threads always meet; a race shows in some of the runs."""
    case = replace(CASES["RoiAlign"], channels=4)
    inputs = case.draw(rng, type_name, num_rois=80)
    inputs["X"] = rng.standard_normal((40, 4, 8, 8)).astype(inputs["X"].dtype)
    inputs["batch_indices"] = rng.integers(0, 40, 80)
    inputs = case.with_gradient(rng, inputs)
    types = {name: array.dtype for name, array in inputs.items()}
    model = make_model("RoiAlignGrad", case.attributes, types)
    with forced_kernels(ort_roialign.cpu_state()["isa"], way):
        (expected,) = make_session(model, cpu_device, threads=1).run(None, inputs)
        session = make_session(model, cpu_device, threads=4)
        for _ in range(2000):
            (found,) = session.run(None, inputs)
            assert_array_equal(found, expected)


@pytest.mark.parametrize("name", ["PrRoiPool", "DeformRoiPool"])
def test_gradients_of_boxes_and_offsets_in_parts(cpu_device, rng, monkeypatch, name):
    """Of a map so large that its channels are repacked in parts, and of bins in several steps."""
    attributes = {**CASES[name].attributes, "output_height": 24, "output_width": 25}
    inputs = {
        "X": rng.standard_normal((2, 99, 230, 290), np.float32),
        "rois": np.array([[90, 70, 160, 150], [300, 200, 420, 260], [0, 9, 70, 80]], np.float32),
        "batch_indices": np.array([1, 0, 1]),
        "offset": rng.standard_normal((3, 2, 24, 25), np.float32),
    }
    inputs = {each: inputs[each] for each in INPUTS[name]}
    inputs = {"dY": rng.standard_normal((3, 99, 24, 25), np.float32), **inputs}
    operator = f"{name}Grad"
    found = {}
    for way in WAYS:
        monkeypatch.setenv("ORT_ROIALIGN_FORCE_PATH", way)
        output = list(OUTPUTS[operator])[1]
        (found[way],) = run(cpu_device, operator, inputs, outputs=(output,), **attributes)
    tolerance = tolerances.gradient_of_any_size("float32", found["plain"])
    assert np.abs(found["plain"]).max() > 1
    assert_allclose(found["packed"], found["plain"], *tolerance)
    # The two ways add in other orders; the same bits would mean that one of them did not run.
    assert (found["packed"] != found["plain"]).any()
