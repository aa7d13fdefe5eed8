"""All contestants compute the same; one that does not, or a path that did not run, is an error."""

from __future__ import annotations

import os
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import tolerances

import ort_roialign
from ort_roialign.benchmarks import timed_point
from ort_roialign.benchmarks.agreement import require_agreement
from ort_roialign.benchmarks.element_types import ELEMENT_TYPES
from ort_roialign.benchmarks.kernel_paths import (
    DIRECT,
    FORCE_VARIABLE,
    PACKED,
    PLAIN,
    forced_path,
    paths_taken,
    refuse_forced_path,
    require_path,
)
from ort_roialign.benchmarks.measure import Effort, Timing
from ort_roialign.benchmarks.problems import Single
from ort_roialign.benchmarks.runners import (
    PLUGIN_DOMAIN,
    STANDARD_DOMAIN,
    SessionRunner,
    SessionSettings,
    TorchvisionRunner,
    bindable_types,
)
from ort_roialign.benchmarks.timed_point import PointSettings, measure_point
from ort_roialign.benchmarks.workloads import Point
from ort_roialign.errors import OrtRoiAlignError
from ort_roialign.reference import roi_align

TINY = Single(channels=5, height=9, width=11, rois=6, bins=3, images=2, longest_cells=6)
SETTINGS = PointSettings(threads=2, effort=Effort(2, 0))
ROUNDING = tolerances.KERNEL["float32"].atol
OURS = SessionSettings(PLUGIN_DOMAIN, threads=2)


@pytest.fixture
def calls(rng):
    """Two calls that differ in shape and attributes."""
    return [*TINY.calls(rng), *replace(TINY, images=1, bins=2, sampling_ratio=0).calls(rng)]


def reference_outputs(calls, mode="avg"):
    return [
        roi_align(
            call.x,
            call.rois,
            call.batch_indices,
            mode=mode,
            output_height=call.bins,
            output_width=call.bins,
            sampling_ratio=call.sampling_ratio,
            spatial_scale=1 / call.stride,
        )
        for call in calls
    ]


@pytest.mark.parametrize(
    "make",
    [
        lambda calls: SessionRunner(calls, OURS),
        lambda calls: SessionRunner(calls, replace(OURS, domain=STANDARD_DOMAIN)),
        lambda calls: TorchvisionRunner(calls, threads=2),
    ],
    ids=["ours", "onnxruntime", "torchvision"],
)
def test_every_contestant_computes_the_average(calls, make):
    runner = make(calls)
    require_agreement("here", "it", calls, reference_outputs(calls), runner.outputs(), ROUNDING)


def test_onnxruntimes_own_operator_is_not_ours(calls):
    assert not paths_taken(SessionRunner(calls, replace(OURS, domain=STANDARD_DOMAIN)))
    assert sum(paths_taken(SessionRunner(calls, OURS)).values()) == 2


@pytest.mark.parametrize("name", ELEMENT_TYPES)
def test_every_type_computes_the_average(calls, name):
    element_type = ELEMENT_TYPES[name]
    outputs = SessionRunner(calls, replace(OURS, element_type=element_type)).outputs()
    expected = reference_outputs(calls)
    require_agreement("here", name, calls, expected, outputs, element_type.tolerance)
    narrow = name in ("float16", "bfloat16")
    difference = max(abs(e - o).max() for e, o in zip(expected, outputs, strict=True))
    assert (difference > ROUNDING) == narrow, "the type that ran is another one"


def test_maxima_are_maxima(calls):
    outputs = SessionRunner(calls, replace(OURS, mode="max")).outputs()
    require_agreement("here", "max", calls, reference_outputs(calls, "max"), outputs, ROUNDING)


def test_bfloat16_is_rounded_to_nearest_even():
    encode = ELEMENT_TYPES["bfloat16"].encode
    # 1, half a step above it (a tie, to even), a bit more than that, and a tie next to an odd one.
    values = np.array([1, 1 + 2**-8, 1 + 2**-8 + 2**-20, 1 + 3 * 2**-8, -2], np.float32)
    stored = encode(values)
    assert stored.tolist() == [0x3F80, 0x3F80, 0x3F81, 0x3F82, 0xC000]
    decoded = ELEMENT_TYPES["bfloat16"].decode(stored)
    assert decoded.tolist() == [1, 1, 1 + 2**-7, 1 + 2**-6, -2]


def test_bfloat16_is_left_out_where_python_cannot_bind_it(monkeypatch):
    assert list(bindable_types()) == list(ELEMENT_TYPES)
    monkeypatch.setattr(onnxruntime, "__version__", "1.19.2")
    assert list(bindable_types()) == ["float32", "float64", "float16"]


def test_a_run_writes_into_the_bound_output_and_leaves_nothing_out(calls, monkeypatch):
    runner = SessionRunner(calls, OURS)
    first = runner.outputs()
    assert all(np.isfinite(output).all() for output in first)
    monkeypatch.setattr(SessionRunner, "__call__", lambda _: None)
    assert all(np.isnan(output).all() for output in runner.outputs())


def test_sessions_have_the_threads_asked_for(calls, monkeypatch):
    made = []
    real = onnxruntime.InferenceSession
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda model, options, **rest: made.append(options) or real(model, options, **rest),
    )
    SessionRunner([*calls, *calls], replace(OURS, threads=3))
    assert [options.intra_op_num_threads for options in made] == [3], "one for all calls"


def test_outputs_that_differ_are_an_error(calls):
    right = reference_outputs(calls)
    largest = abs(calls[1].x).max()
    for change in (2e-4 * largest, np.nan, np.inf):
        wrong = [right[0], right[1].copy()]
        wrong[1][0, 0, 0, 0] += change
        with pytest.raises(OrtRoiAlignError, match="here, call 1: outputs of it differ by"):
            require_agreement("here", "it", calls, right, wrong, 1e-4)
    with pytest.raises(OrtRoiAlignError, match="call 0: it gives shape"):
        require_agreement("here", "it", calls, right, [right[0][:1], right[1]], 1e-4)
    near = [output + 0.5e-4 for output in right]
    require_agreement("here", "it", calls, right, near, 1e-4)


@pytest.mark.parametrize("path", [DIRECT, PACKED, PLAIN])
def test_a_forced_path_runs_and_is_seen(calls, path, monkeypatch):
    monkeypatch.delenv(FORCE_VARIABLE, raising=False)
    with forced_path(path):
        runner = SessionRunner(calls, OURS)
    assert FORCE_VARIABLE not in os.environ
    assert paths_taken(runner) == {path: 2}
    require_path(runner, path, "here")
    other = DIRECT if path == PACKED else PACKED
    with pytest.raises(OrtRoiAlignError, match=f"here: path {other} was forced, but {path} ran"):
        require_path(runner, other, "here")
    with pytest.raises(OrtRoiAlignError, match="none ran"):
        require_path(lambda: None, path, "here")


def test_kernels_of_another_instruction_set_are_an_error(calls, monkeypatch):
    if len(ort_roialign.build_info()["cpu_isas"]) < 2:
        pytest.skip("this processor and library have only one instruction set")
    monkeypatch.setenv("ORT_ROIALIGN_FORCE_ISA", "baseline")
    runner = SessionRunner(calls, OURS)
    paths_taken(runner)
    monkeypatch.delenv("ORT_ROIALIGN_FORCE_ISA")
    with pytest.raises(OrtRoiAlignError, match="kernels of baseline ran"):
        paths_taken(runner)


def test_a_path_forced_from_outside_is_refused(monkeypatch):
    monkeypatch.setenv(FORCE_VARIABLE, DIRECT)
    with pytest.raises(OrtRoiAlignError, match=f"{FORCE_VARIABLE} must not be set; got direct"):
        refuse_forced_path()


def test_a_point_has_all_its_measurements():
    point = Point("tiny", "Tiny.", TINY, variants=True, large=True)
    result = measure_point(point, replace(SETTINGS, scaling=True))
    assert list(result.times) == ["ort_roialign", "onnxruntime", "torchvision"]
    assert list(result.path_times) == ["chosen", "direct", "packed"]
    assert set(result.variant_times) == {"float32", "float64", "float16", "bfloat16", "max"}
    assert set(result.variant_paths.values()) <= {"direct", "packed"}
    assert result.scaling.threads == 2
    assert list(result.scaling.times) == list(result.scaling.machine_times) == [1, 2]
    assert result.path in ("direct", "packed")
    assert result.calls == [
        {"x": [2, 5, 9, 11], "rois": 6, "bins": 3, "sampling_ratio": 2, "stride": 8}
    ]
    plain = measure_point(Point("tiny", "Tiny.", TINY), replace(SETTINGS, torchvision=False))
    assert list(plain.times) == ["ort_roialign", "onnxruntime"]
    assert plain.speedup("torchvision") is None
    assert not plain.variant_times
    assert plain.scaling is None


@pytest.mark.parametrize("wrong", ["onnxruntime", "torchvision"])
def test_a_point_fails_when_a_contestant_is_wrong(monkeypatch, wrong):
    cls = TorchvisionRunner if wrong == "torchvision" else SessionRunner
    real = cls.outputs

    def outputs(self):
        outputs = real(self)
        if wrong == "torchvision" or self.settings.domain == STANDARD_DOMAIN:
            outputs[0][-1, -1, -1, -1] += 0.1
        return outputs

    monkeypatch.setattr(cls, "outputs", outputs)
    with pytest.raises(OrtRoiAlignError, match=f"tiny, call 0: outputs of {wrong} differ"):
        measure_point(Point("tiny", "Tiny.", TINY), SETTINGS)


def test_only_the_paths_that_take_a_point_are_forced():
    result = measure_point(Point("tiny", "Tiny.", TINY, paths=(DIRECT,)), SETTINGS)
    assert list(result.path_times) == ["chosen", "direct"]
    assert result.better_path == "direct"


def test_a_forced_path_that_does_not_run_is_an_error(monkeypatch):
    monkeypatch.setattr(timed_point, "forced_path", lambda _: nullcontext())
    with pytest.raises(OrtRoiAlignError, match=r"tiny: path \w+ was forced, but \w+ ran"):
        measure_point(Point("tiny", "Tiny.", TINY), SETTINGS)


def times_of(**medians):
    return {name: Timing((median,)) for name, median in medians.items()}


def test_a_choice_that_seems_wrong_is_measured_again(monkeypatch):
    measured = []
    answers = [
        times_of(chosen=1.0, direct=1.0, packed=1.0),
        times_of(chosen=1.16, direct=3.0, packed=1.0),
        times_of(chosen=1.02, direct=3.0, packed=1.0),
    ]

    def stopwatch(_, effort):
        measured.append(effort)
        return answers[len(measured) - 1]

    monkeypatch.setattr(timed_point, "measure_interleaved", stopwatch)
    result = measure_point(Point("tiny", "Tiny.", TINY), replace(SETTINGS, effort=Effort(4, 0.5)))
    assert measured == [Effort(4, 0.5), Effort(4, 0.5), Effort(12, 1.5)]
    assert result.path_ratio == pytest.approx(1.02)
    assert result.better_path == "packed"
