"""RoiAlign's CPU kernels beyond the sizes that they were made for.

Rows and boxes wider than a kernel's buffers, boxes of more taps than the tables hold, and
coordinates so large that samples jump over cells. A kernel that wrote past a buffer would take
pytest with it, so all of them run in another process.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
import pytest
import tolerances
from numpy.testing import assert_allclose
from plugin import Device, forced_kernels, run

from ort_roialign.reference import roi_align

MODES = ("avg", "max")
Problem = tuple[Any, dict[str, Any]]


def inputs_of(x: Any, boxes: Any) -> dict[str, Any]:
    """Boxes on one image, in float32."""
    rois = np.array(boxes, np.float32)
    return {"X": x, "rois": rois, "batch_indices": np.zeros(len(rois), np.int64)}


def random_map(*shape: int) -> Any:
    return np.random.default_rng(shape).standard_normal(shape).astype(np.float32)


def boxes_of_all_widths() -> Problem:
    boxes = [
        *([5, 0, 60, 4], [0, 0, 5000, 4], [101, 1, 2150, 4]),
        *([-30, -2, 6000, 9], [4900, 1, 5003, 2], [3000, 3, 500, 1]),
    ]
    return inputs_of(random_map(1, 1, 4, 5000), boxes), {"output_height": 2, "output_width": 7}


def boxes_of_one_width(columns: int, channels: int = 19) -> Problem:
    # Samples are at most a cell apart, and the last one reads the last column.
    left = np.array([7, 300, 11])
    boxes = np.stack([left, [0, 1, 0], left + columns - 1, [3, 4, 4]], axis=1)
    return inputs_of(random_map(1, channels, 4, 2500), boxes), {
        "output_height": 2,
        "output_width": 3,
    }


def bins_across(bins: int) -> Problem:
    boxes = [[0, 0, 40, 4], [31.5, 1, 45, 3], [-9, 0, 3, 4]]
    attributes = {"output_height": 2, "output_width": bins, "sampling_ratio": 1}
    return inputs_of(random_map(1, 19, 4, 41), boxes), attributes


def tall_columns_of_bins() -> Problem:
    attributes = {"output_height": 3001, "output_width": 2, "sampling_ratio": 1}
    return inputs_of(random_map(1, 3, 40, 6), [[0, 0, 5, 40]]), attributes


def many_samples_a_bin() -> Problem:
    boxes = [[0, 0, 9, 11], [1.5, 2.25, 1.75, 8], [-20, -30, 40, 50], [6, 7, 2, 1]]
    attributes = {"output_height": 2, "output_width": 3, "sampling_ratio": 40}
    return inputs_of(random_map(1, 5, 11, 9), boxes), attributes


def long_axis_of_many_bins() -> Problem:
    boxes = [[0, 0, 40000, 2], [17, 0, 39000.5, 3], [300, 1, 360, 2]]
    return inputs_of(random_map(1, 1, 2, 40000), boxes), {"output_width": 100}


def more_samples_than_the_tables_hold() -> Problem:
    # Along y one sample or two are on the map, and along x those of a bin, or only some of a box.
    boxes = [[-9e4, -5e4, 9e4, 5e4], [0, -5e4, 10, 5e4], [2, -50030, 7, 49970], [-9e4, 0, 9e4, 1e5]]
    attributes = {"output_width": 300, "sampling_ratio": 1000}
    return inputs_of(random_map(1, 2, 3, 11), boxes), attributes


def more_cells_than_the_tables_hold() -> Problem:
    boxes = [[1, 0, 12, 1], [0, 0, 600000, 1], [599980, 0, 600001, 1]]
    return inputs_of(random_map(1, 1, 2, 600000), boxes), {"output_width": 30}


# Buffers are of a power of two.
PROBLEMS: dict[str, Callable[[], Problem]] = {
    "boxes of all widths": boxes_of_all_widths,
    **{
        f"{columns} columns": partial(boxes_of_one_width, columns)
        for columns in (1024, 1025, 2048, 2049)
    },
    **{
        f"{columns} columns of wide blocks": partial(boxes_of_one_width, columns, 67)
        for columns in (512, 513, 1024)
    },
    **{f"{bins} bins across": partial(bins_across, bins) for bins in (256, 257, 2048, 2049)},
    "tall columns of bins": tall_columns_of_bins,
    "many samples a bin": many_samples_a_bin,
    "long axis of many bins": long_axis_of_many_bins,
    "more samples than the tables hold": more_samples_than_the_tables_hold,
    "more cells than the tables hold": more_cells_than_the_tables_hold,
}


@cache
def reference_of(problem: Callable[[], Problem], mode: str) -> Any:
    inputs, attributes = problem()
    return roi_align(inputs["X"], inputs["rois"], inputs["batch_indices"], mode=mode, **attributes)


def run_problem(
    device: Device, isa: str, path: str, problem: Callable[[], Problem], mode: str
) -> Any:
    """Runs in the other process. A path may leave to another what is too large for it."""
    inputs, attributes = problem()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ORT_ROIALIGN_FORCE_ISA", isa)
        patch.setenv("ORT_ROIALIGN_FORCE_PATH", path)
        (y,) = run(device, "RoiAlign", inputs, mode=mode, **attributes)
    return y


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", list(PROBLEMS))
def test_beyond_the_usual(cpu_device, other_process, isa, path, name, mode):
    y = other_process.call(run_problem, cpu_device, isa, path, PROBLEMS[name], mode)
    assert_allclose(y, reference_of(PROBLEMS[name], mode), *tolerances.KERNEL["float32"])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", list(PROBLEMS))
def test_beyond_the_usual_with_nothing_forced(cpu_device, other_process, name, mode):
    y = other_process.call(run_problem, cpu_device, "", "", PROBLEMS[name], mode)
    assert_allclose(y, reference_of(PROBLEMS[name], mode), *tolerances.KERNEL["float32"])


def samples_that_jump_over_cells() -> Problem:
    # Beyond 2^24, float32 coordinates are even: a bin of less than a cell reads cells two apart.
    begin = 2**24
    x = np.zeros((1, 1, 1, begin + 2048), np.float16)
    x[..., begin:] = random_map(1, 1, 1, 2048)
    rng = np.random.default_rng(24)
    left = begin + 2 * rng.integers(10, 900, 40)
    right = left + 2 * rng.integers(-3, 9, 40)
    boxes = np.stack([left, np.zeros(40), right, np.ones(40)], axis=1)
    return inputs_of(x, boxes), {"output_width": 3, "sampling_ratio": 3}


def test_samples_that_jump_over_cells(cpu_device, other_process, isa, path):
    # The average alone: the reference's maximum would copy the whole map for each bin.
    problem = samples_that_jump_over_cells
    y = other_process.call(run_problem, cpu_device, isa, path, problem, "avg")
    assert_allclose(y, reference_of(problem, "avg"), *tolerances.KERNEL["float16"])


@cache
def problem_of_many_boxes(mode: str) -> tuple[Any, Any, Any]:
    """Inputs, attributes and the reference's result. Few different boxes keep that fast."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 3, 30, 41)).astype(np.float32)
    corner, size = rng.uniform(-1, 28, (200, 2)), rng.uniform(0.2, 9, (200, 2))
    boxes = np.concatenate([corner, corner + size], axis=1).astype(np.float32)
    images = rng.integers(0, 2, 200)
    attributes = {"mode": mode, "output_height": 7, "output_width": 7, "sampling_ratio": 2}
    expected = roi_align(x, boxes, images, **attributes)
    order = rng.permutation(np.repeat(np.arange(200), 100))
    inputs = {"X": x, "rois": boxes[order], "batch_indices": images[order]}
    return inputs, attributes, expected[order]


@pytest.mark.parametrize("mode", MODES)
def test_more_boxes_than_the_tables_hold(cpu_device, isa, path, mode):
    inputs, attributes, expected = problem_of_many_boxes(mode)
    with forced_kernels(isa, path):
        (y,) = run(cpu_device, "RoiAlign", inputs, **attributes)
    assert_allclose(y, expected, *tolerances.KERNEL["float32"])
