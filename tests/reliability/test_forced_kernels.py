"""The variables that force CPU kernels: who reads them, when, and what they allow."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import tolerances
from numpy.testing import assert_allclose
from plugin import (
    INPUTS,
    Device,
    forced_kernels,
    forward_calls,
    make_model,
    make_session,
    random_inputs,
    run,
)

import ort_roialign
from ort_roialign.errors import InvalidArgumentError
from ort_roialign.reference import roi_align

ISA, PATH = "ORT_ROIALIGN_FORCE_ISA", "ORT_ROIALIGN_FORCE_PATH"
ALL_ISAS = ("baseline", "avx2", "avx512")
FLOAT32, INT64 = np.dtype(np.float32), np.dtype(np.int64)
SIZE = {"output_height": 3, "output_width": 4}


@pytest.fixture(autouse=True)
def _nothing_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ISA, raising=False)
    monkeypatch.delenv(PATH, raising=False)


def session_of(device: Device, operator: str = "RoiAlign", **attributes: Any) -> Any:
    types = dict.fromkeys(INPUTS[operator], FLOAT32) | {"batch_indices": INT64}
    return make_session(make_model(operator, SIZE | attributes, types), device, threads=2)


def error_of(variable: str, value: str) -> str:
    if variable == PATH:
        return (
            f"ort_roialign: environment variable {PATH} must be one of plain, direct, packed; "
            f"got {value}"
        )
    isas = ", ".join(ort_roialign.build_info()["cpu_isas"])
    return (
        f"ort_roialign: environment variable {ISA} must be one of {isas}, which this build and "
        f"this processor have; got {value}"
    )


@pytest.mark.parametrize("operator", ["RoiAlign", "RoiPoolGrad", "DeformRoiPool"])
@pytest.mark.parametrize("variable", [ISA, PATH])
@pytest.mark.parametrize("value", ["sse9", "AVX2", "avx2 ", "baseline,avx2", "Packed", "0"])
def test_unknown_value_fails_the_session(cpu_device, monkeypatch, operator, variable, value):
    monkeypatch.setenv(variable, value)
    with pytest.raises(Exception, match=re.escape(error_of(variable, value))):
        session_of(cpu_device, operator)


@pytest.mark.parametrize("variable", [ISA, PATH])
def test_state_refuses_an_unknown_value(monkeypatch, variable):
    monkeypatch.setenv(variable, "sse9")
    with pytest.raises(InvalidArgumentError) as caught:
        ort_roialign.cpu_state()
    assert str(caught.value) == error_of(variable, "sse9")


def test_an_instruction_set_that_the_processor_lacks_is_refused(cpu_device, monkeypatch):
    lacking = sorted(set(ALL_ISAS) - set(ort_roialign.build_info()["cpu_isas"]))
    if not lacking:
        pytest.skip("this processor lacks none")
    for name in lacking:
        monkeypatch.setenv(ISA, name)
        with pytest.raises(Exception, match=re.escape(error_of(ISA, name))):
            session_of(cpu_device)
        with pytest.raises(InvalidArgumentError):
            ort_roialign.cpu_state()


@pytest.mark.parametrize("value", [None, ""])
def test_nothing_forced_is_the_best(monkeypatch, value):
    if value is not None:
        monkeypatch.setenv(ISA, value)
        monkeypatch.setenv(PATH, value)
    state = ort_roialign.cpu_state()
    assert state["isa"] == ort_roialign.build_info()["cpu_isas"][-1]
    assert state["path"] is None


@pytest.mark.parametrize("path", ["packed", "direct", "plain"])
def test_state_says_what_is_forced(monkeypatch, isa, path):
    monkeypatch.setenv(ISA, isa)
    monkeypatch.setenv(PATH, path)
    state = ort_roialign.cpu_state()
    assert (state["isa"], state["path"]) == (isa, path)


def test_variables_are_read_when_a_session_is_made(cpu_device, monkeypatch, rng):
    inputs = random_inputs(rng, "float32")
    other, best = ort_roialign.build_info()["cpu_isas"][0], ort_roialign.cpu_state()["isa"]
    monkeypatch.setenv(ISA, other)
    monkeypatch.setenv(PATH, "direct")
    forced = session_of(cpu_device)
    monkeypatch.delenv(ISA)
    monkeypatch.setenv(PATH, "packed")
    usual = session_of(cpu_device)
    before = forward_calls()
    monkeypatch.setenv(ISA, "sse9")
    monkeypatch.setenv(PATH, "sse9")
    forced.run(None, inputs)
    usual.run(None, inputs)
    usual.run(None, inputs)
    monkeypatch.delenv(ISA)
    monkeypatch.delenv(PATH)
    after = forward_calls()
    ran = {kernels: after[kernels] - before[kernels] for kernels in after}
    assert ran.pop((other, "direct")) == 1
    assert ran.pop((best, "packed")) == 2
    assert not any(ran.values())


def test_sessions_of_all_kernels_live_and_run_side_by_side(cpu_device, rng):
    kernels = [
        (isa, path, mode)
        for isa in ort_roialign.build_info()["cpu_isas"]
        for path in ("packed", "direct", "plain")
        for mode in ("avg", "max")
    ]
    inputs = random_inputs(rng, "float32", channels=37, height=30, width=41, num_rois=40)
    boxes = (inputs["rois"], inputs["batch_indices"])
    expected = {
        mode: roi_align(inputs["X"], *boxes, mode=mode, spatial_scale=0.25, **SIZE)
        for mode in ("avg", "max")
    }
    sessions, bits = [], []
    for isa, path, mode in kernels:
        with forced_kernels(isa, path):
            sessions.append(session_of(cpu_device, mode=mode, spatial_scale=0.25))
            (y,) = sessions[-1].run(None, inputs)
        assert_allclose(y, expected[mode], *tolerances.KERNEL["float32"])
        bits.append(y.tobytes())

    rounds = 12
    order = rng.permutation(np.repeat(np.arange(len(kernels)), rounds))
    before = forward_calls()
    with ThreadPoolExecutor(6) as threads:
        results = list(threads.map(lambda number: sessions[number].run(None, inputs), order))
    for number, (y,) in zip(order, results, strict=True):
        assert y.tobytes() == bits[number], kernels[number]
    after = forward_calls()
    ran = {(isa, path): after[isa, path] - before[isa, path] for isa, path, _ in kernels}
    assert set(ran.values()) == {2 * rounds}  # in both modes


def test_a_call_in_portions_counts_once(cpu_device, rng):
    """So many boxes need several tables of taps."""
    inputs = random_inputs(rng, "float32", channels=1, num_rois=20000)
    before = forward_calls()
    bins = {"output_height": 7, "output_width": 7, "sampling_ratio": 2}
    run(cpu_device, "RoiAlign", inputs, **bins)  # runs it twice
    after = forward_calls()
    assert sum(after.values()) - sum(before.values()) == 2


@pytest.mark.parametrize("forced", ["", "packed"])
@pytest.mark.parametrize(
    ("channels", "paths"),
    [(1, {"direct", "plain"}), (4, {"direct", "plain"}), (16, {"packed"})],
    ids=["1", "4", "16"],
)
def test_one_box_too_wide_leaves_the_others_to_the_kernels(
    cpu_device, monkeypatch, rng, channels, paths, forced
):
    """One box is too wide for the direct kernel, and reads too much for a block.

    Of a single channel nothing is repacked unless that is forced. Otherwise a block has 64 bytes
    for each cell that a box reads: more than 8 MB here, and more than the map's own of up to 15
    channels. With 16 it is not, and all boxes are pooled out of blocks: none of them reads more
    columns than the kernels take.
    """
    monkeypatch.setenv(PATH, forced)
    inputs = random_inputs(rng, "float32", num_images=1, channels=channels, height=300, width=1200)
    inputs["rois"][3] = [10, 20, 4700, 1180]
    attributes = {
        "output_height": 3,
        "output_width": 5,
        "spatial_scale": 0.25,
        "sampling_ratio": 40,  # 200 of 1170 columns, and their neighbours; 120 rows, likewise
    }
    before = forward_calls()
    (y,) = run(cpu_device, "RoiAlign", inputs, **attributes)
    after = forward_calls()
    isa = ort_roialign.cpu_state()["isa"]
    ran = {kernels for kernels, calls in after.items() if calls != before[kernels]}
    assert ran == {(isa, path) for path in paths}
    expected = roi_align(inputs["X"], inputs["rois"], inputs["batch_indices"], **attributes)
    assert_allclose(y, expected, *tolerances.KERNEL["float32"])


def test_a_box_of_too_many_columns_counts_for_the_plain_path_too(
    cpu_device, monkeypatch, rng, isa, path
):
    """No kernel takes a box that reads more than 1024 columns of the map."""
    monkeypatch.setenv(ISA, isa)
    monkeypatch.setenv(PATH, path)
    inputs = random_inputs(rng, "float32", num_images=1, channels=5, height=6, width=1300)
    inputs["rois"][:2] = [[40, 4, 200, 20], [30, 2, 5000, 22]]  # the second one reads 1244
    before = forward_calls()
    (y,) = run(cpu_device, "RoiAlign", inputs, spatial_scale=0.25, **SIZE)  # runs it twice
    after = forward_calls()
    ran = {kernels: after[kernels] - before[kernels] for kernels in after}
    assert ran.pop((isa, path)) == 2
    assert ran.pop((isa, "plain")) == 2
    assert not any(ran.values())
    expected = roi_align(*inputs.values(), spatial_scale=0.25, **SIZE)
    assert_allclose(y, expected, *tolerances.KERNEL["float32"])
