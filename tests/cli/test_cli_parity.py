"""The demo's comparison of masks, and its reading of onnxruntime's profile."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import helper

from ort_roialign.cli.kernel_profile import read_kernel_profile
from ort_roialign.cli.parity import compare_outputs
from ort_roialign.errors import OrtRoiAlignError

LIMITS = {"max_detections": 100, "score_threshold": 0.05}


def masked_outputs():
    """Two detections with 20 x 20 masks; no edge of the first box is pasted near a whole pixel.

    A box is enlarged by 30/28 around its centre: 2.3 ... 9.4 becomes 2.046 ... 9.654, and
    1.2 ... 8.3 becomes 0.946 ... 8.554.
    """
    rng = np.random.default_rng(0)
    return {
        "boxes": np.array([[2.3, 1.2, 9.4, 8.3], [3, 3, 17, 17]], np.float32),
        "labels": np.array([1, 2]),
        "scores": np.array([0.9, 0.5], np.float32),
        "masks": rng.uniform(size=(2, 1, 20, 20)).astype(np.float32),
    }


def test_equal_masks_pass_in_any_order():
    expected = masked_outputs()
    reversed_rows = {name: value[::-1] for name, value in expected.items()}
    comparison = compare_outputs(expected, reversed_rows, **LIMITS)
    assert comparison.passed
    assert comparison.masks.largest_difference == 0


@pytest.mark.parametrize("change", [0.02, np.nan])
def test_one_wrong_pixel_of_a_mask_fails(change):
    expected, actual = masked_outputs(), masked_outputs()
    actual["masks"][0, 0, 5, 5] += change
    comparison = compare_outputs(expected, actual, **LIMITS)
    assert not comparison.passed
    assert "masks differ" in comparison.problems[0]


def test_a_nan_in_an_earlier_mask_is_not_hidden_by_a_later_one():
    expected, actual = masked_outputs(), masked_outputs()
    actual["masks"][0] = np.nan
    actual["boxes"][1] += 0.3
    expected["boxes"][1] += 0.3
    actual["masks"][1] += 0.001
    assert not compare_outputs(expected, actual, **LIMITS).passed


def test_swapped_masks_fail():
    expected, actual = masked_outputs(), masked_outputs()
    actual["masks"] = actual["masks"][::-1]
    assert not compare_outputs(expected, actual, **LIMITS).passed


def test_a_mask_pasted_a_pixel_further_by_rounding_is_noted():
    # Enlarged around its centre by 30/28, a box from x1 to 17 begins at (29 * x1 - 17) / 28. That
    # is 3 for x1 = 101/29, and rounding decides to which side of 3 it falls.
    expected, actual = masked_outputs(), masked_outputs()
    for outputs in (expected, actual):
        outputs["boxes"][1, 0] = 101 / 29
    actual["masks"][1] = np.roll(actual["masks"][1], 1, axis=-1)
    comparison = compare_outputs(expected, actual, **LIMITS)
    assert comparison.passed
    assert comparison.masks.rounded_otherwise == 1
    assert comparison.masks.largest_difference == 0


def test_missing_and_misshaped_masks_fail():
    expected = masked_outputs()
    for masks in ({}, {"masks": expected["masks"][..., :10]}):
        actual = {k: v for k, v in masked_outputs().items() if k != "masks"} | masks
        assert not compare_outputs(expected, actual, **LIMITS).passed


def write_profile(folder, kernels):
    """Write a model with three RoI nodes and a profile in which `kernels` ran; return both."""
    nodes = [
        helper.make_node("RoiAlign", ["x"], ["a"], name="ours", domain="ort_roialign"),
        helper.make_node("RoiAlign", ["x"], ["b"], name="theirs"),
        helper.make_node("Relu", ["x"], ["c"], name="relu"),
    ]
    model = folder / "optimized.onnx"
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", [], [])), model)
    events = [
        {"cat": "Session", "name": "model_run", "ts": 0, "dur": 900},
        {"cat": "Session", "name": "model_run", "ts": 1000, "dur": 500},
    ] + [
        {
            "cat": "Node",
            "name": f"{name}_kernel_time",
            "ts": ts,
            "dur": duration,
            "args": {"op_name": operator, "provider": "CPUExecutionProvider"},
        }
        for name, operator, ts, duration in kernels
    ]
    profile = folder / "profile.json"
    profile.write_text(json.dumps(events))
    return profile, model


def test_the_profile_tells_our_kernel_from_the_standard_one(tmp_path):
    kernels = [("theirs", "RoiAlign", 10, 800), ("ours", "RoiAlign", 1010, 100)]
    profile = read_kernel_profile(*write_profile(tmp_path, [*kernels, ("relu", "Relu", 1200, 50)]))
    # Only the last run counts: it took 500 us, and our node 100 us of them.
    assert profile.ran("ort_roialign")
    assert not profile.ran("ai.onnx")
    assert [str(kernel) for kernel in profile.kernels] == ["1 x ort_roialign::RoiAlign (CPU)"]
    assert profile.roi_milliseconds == 0.1
    assert profile.run_milliseconds == 0.5
    assert profile.roi_share == 0.2


def test_the_profile_tells_the_standard_kernel_from_ours(tmp_path):
    profile = read_kernel_profile(*write_profile(tmp_path, [("theirs", "RoiAlign", 1010, 800)]))
    assert profile.ran("ai.onnx")
    assert not profile.ran("ort_roialign")


def test_a_roi_node_that_the_model_lacks_is_an_error(tmp_path):
    with pytest.raises(OrtRoiAlignError, match="not in the model: 'other'"):
        read_kernel_profile(*write_profile(tmp_path, [("other", "RoiAlign", 1010, 800)]))
