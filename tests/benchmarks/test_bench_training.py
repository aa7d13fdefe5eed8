"""Training: what its workloads are, and that both directions are checked, then timed."""

from __future__ import annotations

import os
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision import ops

import ort_roialign.torch
from ort_roialign.benchmarks import training
from ort_roialign.benchmarks.kernel_paths import FORCE_VARIABLE
from ort_roialign.benchmarks.measure import Effort, Timing
from ort_roialign.benchmarks.problems import Several, Single, pyramid_levels
from ort_roialign.benchmarks.timed_point import PointSettings
from ort_roialign.benchmarks.torch_contestants import IN_TORCHVISION, TorchRunner, invocations
from ort_roialign.benchmarks.training import measure_training
from ort_roialign.benchmarks.training_workloads import (
    BOX_LEVELS,
    FPN_STRIDES,
    TrainingPoint,
    training_workloads,
)
from ort_roialign.errors import OrtRoiAlignError

POINTS = training_workloads()
OPERATORS = list(dict.fromkeys(point.operator for point in POINTS))
ALONE = [name for name in OPERATORS if name not in IN_TORCHVISION]
SETTINGS = PointSettings(threads=2, effort=Effort(2, 0))
# Boxes on two maps, as a pyramid has them; the channels suit position-sensitive pooling.
TINY = Single(channels=18, height=9, width=11, rois=6, bins=3, longest_cells=6, spare_cells=1)
TINY_LEVELS = Several((TINY, replace(TINY, height=5, width=6, stride=16)))


def point_of(operator):
    return TrainingPoint(f"training/{operator}", "Tiny.", operator, TINY_LEVELS)


def runner_of(operator):
    rng = np.random.default_rng(0)
    prepared = invocations(operator, TINY_LEVELS.calls(rng), rng)
    return TorchRunner(getattr(ort_roialign.torch, operator), prepared)


def test_names_are_unique_and_everything_is_described():
    names = [point.name for point in POINTS]
    assert len(set(names)) == len(names)
    assert all(name.startswith("training/") for name in names)
    assert all(point.description and "\n" not in point.description for point in POINTS)
    assert any(point.quick for point in POINTS)


def test_all_of_torchvisions_operators_are_timed_and_further_ones():
    assert set(OPERATORS) > IN_TORCHVISION
    assert ALONE
    for name in IN_TORCHVISION:
        assert hasattr(ops, name)
    for name in ALONE:
        assert hasattr(ort_roialign.torch, name)
        assert not hasattr(ops, name), "it has a peer now"


def test_boxes_of_a_level_are_those_that_fpn_sends_there(rng):
    calls = Several(tuple(replace(level, channels=1) for level in BOX_LEVELS)).calls(rng)
    assert [call.x.shape for call in calls] == [(1, 1, side, side) for side in (200, 100, 50, 25)]
    for number, call in enumerate(calls):
        assert call.stride == FPN_STRIDES[number]
        assert len(call.rois) == 512
        assert (pyramid_levels(call.rois, FPN_STRIDES) == number).all()


def test_spare_cells_are_reached_by_no_box(rng):
    (call,) = replace(TINY, rois=200, spare_cells=2, longest_cells=99).calls(rng)
    ends = call.rois[:, 2:].max(axis=0)
    assert (ends <= [9 * 8, 7 * 8]).all()
    assert (ends > [8 * 8, 6 * 8]).all()


def test_boxes_carry_their_images_number(rng):
    (call,) = replace(TINY, images=2).calls(rng)
    assert call.numbered_rois.dtype == np.float32
    assert call.numbered_rois[:, 0].tolist() == [0, 0, 0, 1, 1, 1]
    np.testing.assert_array_equal(call.numbered_rois[:, 1:], call.rois)


@pytest.mark.parametrize("operator", OPERATORS)
def test_gradients_are_those_of_all_that_is_trained(operator):
    outputs = runner_of(operator).outputs()
    channels = 2 if operator.startswith("ps_") else 18
    maps = [(1, 18, 9, 11), (1, 18, 5, 6)]
    further = {"prroi_pool": (6, 5), "deform_roi_pool": (6, 2, 3, 3)}.get(operator)
    gradients = [shape for x in maps for shape in (x, further) if shape]
    results = 2 * [(6, channels, 3, 3)]
    if operator == "multiscale_roi_align":  # one call, and all these boxes are of the first map
        results = [(12, channels, 3, 3)]
    assert [each.shape for each in outputs["forward"]] == results
    assert [each.shape for each in outputs["backward"]] == gradients
    for each in outputs["backward"][: None if len(results) == 2 else 1]:
        assert np.abs(each).max() > 0
    again = runner_of(operator).outputs()
    for direction, arrays in outputs.items():
        for array, other in zip(arrays, again[direction], strict=True):
            np.testing.assert_array_equal(array, other)


def test_an_unknown_operator_is_an_error():
    with pytest.raises(ValueError, match="nms"):
        invocations("nms", TINY.calls(np.random.default_rng(0)), np.random.default_rng(0))


@pytest.mark.parametrize("operator", OPERATORS)
def test_a_point_has_the_times_of_both_directions(operator, monkeypatch):
    monkeypatch.setattr("ort_roialign.benchmarks.measure.SHORTEST_SAMPLE_SECONDS", 0.0)
    contestants = ["ort_roialign", *(["torchvision"] if operator in IN_TORCHVISION else [])]
    result = measure_training(point_of(operator), SETTINGS)
    assert list(result.directions) == ["forward", "backward"]
    for comparison in result.directions.values():
        assert list(comparison.times) == contestants
        assert (comparison.speedup("torchvision") is None) == (operator in ALONE)
    assert [facts["x"] for facts in result.calls] == [[1, 18, 9, 11], [1, 18, 5, 6]]
    assert torch.get_num_threads() == 2


def test_times_are_those_of_their_direction_and_contestant(monkeypatch):
    measured = []

    def stopwatch(contestants, effort):
        measured.append(effort)
        return {
            name: Timing((len(name) + 100.0 * (call.__name__ == "backward"),))
            for name, call in contestants.items()
        }

    monkeypatch.setattr(training, "measure_interleaved", stopwatch)
    settings = replace(SETTINGS, effort=Effort(15, 3.0))
    result = measure_training(point_of("roi_align"), settings)
    medians = {
        f"{direction} {name}": timing.median
        for direction, comparison in result.directions.items()
        for name, timing in comparison.times.items()
    }
    assert medians == {
        name: len(name) + 100.0 * name.startswith("backward")
        for name in (
            "forward ort_roialign",
            "forward torchvision",
            "backward ort_roialign",
            "backward torchvision",
        )
    }
    assert measured == [Effort(8, 3.0)], "fewer rounds than in the other parts"


def test_torchvision_can_be_left_out(monkeypatch):
    monkeypatch.setattr(training, "measure_interleaved", lambda calls, _: dict.fromkeys(calls))
    result = measure_training(point_of("roi_pool"), replace(SETTINGS, torchvision=False))
    assert all(list(each.times) == ["ort_roialign"] for each in result.directions.values())


class Doubled(torch.autograd.Function):
    """The identity, with twice its gradient."""

    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, dy):
        return 2 * dy


@pytest.mark.parametrize(
    ("direction", "break_it"), [("forward", lambda y: y + 0.1), ("backward", Doubled.apply)]
)
@pytest.mark.parametrize("operator", sorted(IN_TORCHVISION))
def test_a_point_fails_when_torchvision_computes_something_else(
    operator, direction, break_it, monkeypatch
):
    real = getattr(ops, operator)
    monkeypatch.setattr(ops, operator, lambda *arguments: break_it(real(*arguments)))
    text = f"training/{operator}, {direction}, result 0: outputs of torchvision differ by"
    with pytest.raises(OrtRoiAlignError, match=text):
        measure_training(point_of(operator), SETTINGS)


@pytest.mark.parametrize("operator", ALONE)
def test_an_operator_without_a_peer_is_compared_with_its_plain_path(operator, monkeypatch):
    forced = []
    real = TorchRunner.outputs

    def outputs(self):
        arrays = real(self)
        forced.append(os.environ.get(FORCE_VARIABLE))
        if len(forced) == 2:
            arrays["backward"][0][0, 0, 0, 0] += 1e3
        return arrays

    monkeypatch.setattr(TorchRunner, "outputs", outputs)
    text = f"training/{operator}, backward, result 0: outputs of ort_roialign differ by"
    with pytest.raises(OrtRoiAlignError, match=text):
        measure_training(point_of(operator), SETTINGS)
    assert forced == ["plain", None]


def test_a_plain_path_that_does_not_run_is_an_error(monkeypatch):
    monkeypatch.setattr(training, "forced_path", lambda _: nullcontext())
    big = replace(point_of("roi_align_rotated"), problem=replace(TINY, channels=256, rois=300))
    with pytest.raises(OrtRoiAlignError, match="path plain was forced, but packed ran"):
        measure_training(big, SETTINGS)
