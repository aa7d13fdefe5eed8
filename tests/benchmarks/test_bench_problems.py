"""What the benchmark times is what its descriptions say."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from ort_roialign.benchmarks.memory_floor import copy_speed, moved_bytes, touched_cells
from ort_roialign.benchmarks.problems import Call, Pyramid, Single, pyramid_levels, random_boxes
from ort_roialign.benchmarks.sweep import AXES, base_value, sweep
from ort_roialign.benchmarks.workloads import BASE, BOX_HEAD, CASCADE, workloads

POINTS = [*workloads(), *sweep()]


def sides_of(boxes):
    return boxes[:, 2:] - boxes[:, :2]


def test_names_are_unique_and_everything_is_described():
    names = [point.name for point in POINTS]
    assert len(set(names)) == len(names)
    assert all(point.description and "\n" not in point.description for point in POINTS)
    assert any(point.quick for point in POINTS if point.axis)
    assert any(point.quick for point in POINTS if not point.axis)


def test_boxes_lie_in_the_image_with_log_uniform_sides(rng):
    boxes = random_boxes(rng, 4000, (4, 400), (640, 300))
    assert boxes.dtype == np.float32
    assert (boxes >= 0).all()
    assert (boxes <= [640, 300, 640, 300]).all()
    sides = sides_of(boxes.astype(np.float64))
    rounding = np.spacing(np.float32(640))  # of both edges
    assert sides.min() >= 4 - rounding
    assert sides[:, 0].max() <= 400 + rounding
    # Half of the widths are below the geometric mean of 4 and 400, half of the heights below that
    # of 4 and 300; of 4000 the share is within 0.04 of that, five standard deviations.
    for side, middle in zip(sides.T, (40, math.sqrt(4 * 300)), strict=True):
        assert abs((side < middle).mean() - 0.5) < 0.04


def test_boxes_of_one_size_have_it(rng):
    np.testing.assert_array_equal(sides_of(random_boxes(rng, 9, (64, 64), (64, 64))), 64)


def test_levels_follow_fpn():
    # Equation 1: 224 pixels are level 4; half of that is one level finer. Ends are clamped.
    sides = np.array([8, 111, 112, 223, 224, 447, 448, 4000], np.float32)
    boxes = np.stack([0 * sides, 0 * sides, sides, sides], axis=1)
    assert pyramid_levels(boxes, (4, 8, 16, 32)).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    # Without the levels 2 and 4: their boxes go to the next coarser ones, 3 and 5.
    assert pyramid_levels(boxes, (8, 32)).tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert pyramid_levels(np.zeros((1, 4), np.float32), (4, 8)).tolist() == [0]


def test_a_pyramid_pools_every_box_once_and_single_levels_are_parts_of_it():
    small = replace(BOX_HEAD, channels=1)
    calls = small.calls(np.random.default_rng(0))
    assert [call.stride for call in calls] == [4, 8, 16, 32]
    assert [call.x.shape for call in calls] == [
        (1, 1, 800 // stride, 1088 // stride) for stride in (4, 8, 16, 32)
    ]
    assert sum(len(call.rois) for call in calls) == 1000
    for level, call in enumerate(calls):
        (alone,) = replace(small, only_level=level).calls(np.random.default_rng(0))
        np.testing.assert_array_equal(alone.rois, call.rois)


def test_the_cascade_pools_three_times_from_the_same_maps_with_moved_boxes():
    calls = replace(CASCADE, channels=1).calls(np.random.default_rng(0))
    stages = [calls[:4], calls[4:8], calls[8:]]
    assert [sum(len(call.rois) for call in stage) for stage in stages] == [512, 512, 512]
    for first, second in zip(stages[0], stages[1], strict=True):
        assert first.x is second.x
    boxes = [np.concatenate([call.rois for call in stage]) for stage in stages]
    for stage in boxes:
        assert (sides_of(stage) >= 0).all()
        assert (stage >= 0).all()
        assert (stage <= [1088, 800, 1088, 800]).all()
    assert not set(boxes[0][:, 0]) & set(boxes[1][:, 0])


def test_boxes_are_spread_over_the_images_in_order(rng):
    (call,) = Single(channels=1, height=4, width=4, rois=10, images=4).calls(rng)
    assert call.x.shape == (4, 1, 4, 4)
    assert call.batch_indices.tolist() == [0, 0, 0, 1, 1, 2, 2, 2, 3, 3]
    assert call.batch_indices.dtype == np.int64


def test_inputs_are_random_and_seeded():
    problem = Pyramid(64, 64, (8, 16), rois=5, bins=2, sampling_ratio=0, channels=2, shortest_px=4)
    first, again, other = (problem.calls(np.random.default_rng(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first[0].x, again[0].x)
    np.testing.assert_array_equal(first[0].rois, again[0].rois)
    assert not np.array_equal(first[0].x, other[0].x)
    assert (first[0].x != 0).all()


@pytest.mark.parametrize("axis", AXES)
def test_a_sweep_varies_one_property(axis):
    points = [point for point in sweep() if point.axis == axis]
    values = [point.value for point in points]
    assert sorted([*values, *([] if math.isnan(base_value(axis)) else [base_value(axis)])]) == list(
        AXES[axis]
    )
    varied = {
        name
        for point in points
        for name, value in vars(point.problem).items()
        if value != getattr(BASE, name)
    }
    expected = {
        "rois": {"rois"},
        "channels": {"channels"},
        "bins": {"bins"},
        "sampling": {"sampling_ratio"},
        "size": {"shortest_cells", "longest_cells"},
    }
    assert varied == expected[axis]


def call_with_boxes(rois, batch_indices=None, shape=(1, 3, 10, 12), stride=4):
    rois = np.array(rois, np.float32)
    indices = np.zeros(len(rois), np.int64) if batch_indices is None else np.array(batch_indices)
    return Call(np.ones(shape, np.float32), rois, indices, 2, 1, stride)


def test_touched_cells_by_hand():
    # x from 8 to 16 pixels are 1.5 to 3.5 cells: interpolation reads columns 1 to 4. y from 0 to 4
    # are -0.5 to 0.5: rows 0 and 1.
    assert touched_cells(call_with_boxes([[8, 0, 16, 4]])) == 4 * 2
    # A second box inside the first one adds nothing; on another image it counts for itself.
    twice = [[8, 0, 16, 4], [9, 1, 15, 3]]
    assert touched_cells(call_with_boxes(twice)) == 4 * 2
    assert touched_cells(call_with_boxes(twice, [0, 1], (2, 3, 10, 12))) == 4 * 2 * 2
    # The whole map, and nothing.
    assert touched_cells(call_with_boxes([[0, 0, 48, 40]])) == 120
    assert touched_cells(call_with_boxes(np.zeros((0, 4)))) == 0


def test_moved_bytes_are_cells_of_all_channels_and_the_output():
    call = call_with_boxes([[8, 0, 16, 4]])
    assert moved_bytes([call]) == 4 * (8 * 3 + 3 * 2 * 2)
    assert moved_bytes([call, call]) == 2 * moved_bytes([call])


def test_copying_has_a_speed():
    assert copy_speed(threads=2, copied_bytes=1 << 16) > 0
