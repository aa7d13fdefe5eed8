"""`reference.multi_scale_roi_align`, `..._rotated` and their gradients against peers' rules."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest
import tolerances
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torchvision.ops import MultiScaleRoIAlign

from ort_roialign.reference._multi_scale import (
    multi_scale_roi_align,
    multi_scale_roi_align_grad,
    multi_scale_roi_align_rotated,
    multi_scale_roi_align_rotated_grad,
)
from ort_roialign.reference._roi_align import roi_align
from ort_roialign.reference._roi_align_rotated import roi_align_rotated

SCALES = (1 / 4, 1 / 8, 1 / 16, 1 / 32)
# Sides of squares at each border between two levels, one float32 to either side of it, and others.
BORDERS = np.array([14, 28, 56, 112, 224, 448, 896, 1792], np.float32)
SIDES = np.concatenate(
    [
        BORDERS,
        np.nextafter(BORDERS, np.float32(0)),
        np.nextafter(BORDERS, np.float32(1e4)),
        BORDERS * np.float32(1 - 1e-6),
        np.geomspace(0.01, 1e4, 97).astype(np.float32),
    ]
)
TORCHVISION = {"coordinate_transformation_mode": "output_half_pixel"}
DETECTRON2 = {"log_epsilon": 1e-8, "level_epsilon": 0.0}
MMDET = {
    "canonical_scale": 56.0,
    "canonical_level": 0,
    "min_level": 0,
    "max_level": 3,
    "log_epsilon": 1e-6,
    "level_epsilon": 0.0,
}


def random_case(seed, dtype=np.float64):
    """Maps of two images of 256 by 320 pixels, and boxes of all sizes; some reach outside."""
    rng = np.random.default_rng(seed)
    maps = [rng.standard_normal((2, 3, 64 // n, 80 // n)).astype(dtype) for n in (1, 2, 4, 8)]
    size_image = np.exp(rng.uniform(np.log(8), np.log(900), (24, 2)))
    corner_image = rng.uniform(-50, 300, (24, 2))
    rois = np.concatenate([corner_image, corner_image + size_image], axis=1).astype(dtype)
    return maps, rois, rng.integers(0, 2, 24)


def around_the_origin(widths, heights):
    """Boxes of any size, whose one sample with sampling_ratio 1 is on every map."""
    half = np.stack([np.asarray(widths), np.asarray(heights)], axis=1) / 2
    return np.concatenate([-half, half], axis=1)


def squares(sides):
    return around_the_origin(sides, sides)


def map_numbers(rois, dtype=np.float32, num_maps=4, **attributes):
    """Which map each box is pooled from: every map holds its own number plus one."""
    maps = [np.full((1, 1, 3, 3), number + 1, dtype) for number in range(num_maps)]
    attributes = {"spatial_scales": SCALES[:num_maps], "sampling_ratio": 1, **attributes}
    operator = multi_scale_roi_align if np.shape(rois)[1] == 4 else multi_scale_roi_align_rotated
    pooled = operator(rois, np.zeros(len(rois), int), *maps, **attributes)[:, 0, 0, 0]
    assert (pooled >= 1).all()
    return pooled.astype(int) - 1


@pytest.mark.parametrize("sampling_ratio", [0, 2])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_equals_torchvision(dtype, sampling_ratio):
    maps, rois, batch_indices = random_case(sampling_ratio, dtype)
    # Torchvision takes the boxes image by image.
    order = np.argsort(batch_indices, kind="stable")
    rois, batch_indices = rois[order], batch_indices[order]
    module = MultiScaleRoIAlign(["0", "1", "2", "3"], (3, 4), sampling_ratio)
    features = OrderedDict((str(number), torch.from_numpy(x)) for number, x in enumerate(maps))
    boxes = [torch.from_numpy(rois[batch_indices == image]) for image in (0, 1)]
    theirs = module(features, boxes, [(256, 320), (256, 320)])
    ours = multi_scale_roi_align(
        rois,
        batch_indices,
        *maps,
        output_height=3,
        output_width=4,
        sampling_ratio=sampling_ratio,
        spatial_scales=SCALES,
        **TORCHVISION,
    )
    assert ours.dtype == np.float64
    assert_allclose(ours, theirs.numpy(), *tolerances.KERNEL[dtype])


def test_level_rule_equals_torchvision():
    module = MultiScaleRoIAlign(["0", "1", "2", "3"], 1, 1)
    features = OrderedDict(
        (str(number), torch.full((1, 1, 2048 >> number, 2048 >> number), float(number)))
        for number in range(4)
    )
    rois = squares(SIDES)
    theirs = module(features, [torch.from_numpy(rois)], [(8192, 8192)])[:, 0, 0, 0].numpy()
    assert set(theirs) == {0, 1, 2, 3}
    assert_array_equal(map_numbers(rois), theirs)


def test_level_rule_equals_detectron2():
    # detectron2.modeling.poolers.assign_boxes_to_levels, with its defaults.
    side = torch.from_numpy(SIDES)
    level = torch.floor(4 + torch.log2(torch.sqrt(side * side) / 224 + 1e-8))
    theirs = torch.clamp(level, min=2, max=5).to(torch.int64) - 2
    assert_array_equal(map_numbers(squares(SIDES), **DETECTRON2), theirs.numpy())
    turned = np.zeros((len(SIDES), 5), np.float32)
    turned[:, 2:4] = SIDES[:, np.newaxis]
    assert_array_equal(map_numbers(turned, **DETECTRON2), theirs.numpy())


def test_level_rule_equals_mmdet():
    # mmdet.models.roi_heads.roi_extractors.SingleRoIExtractor.map_roi_levels.
    scale = torch.sqrt(torch.from_numpy(SIDES) * torch.from_numpy(SIDES))
    level = torch.floor(torch.log2(scale / 56 + 1e-6))
    theirs = level.clamp(min=0, max=3).long()
    assert_array_equal(map_numbers(squares(SIDES), **MMDET), theirs.numpy())


@pytest.mark.parametrize(
    ("attributes", "numbers"),
    [
        # Level 4 is from 224 on: floor(4 + log2(s / 224) + 1e-6), and map 0 is level 2. A side of
        # 112 * (1 - 2e-7) is 2.9e-7 of a level below 3, which the 1e-6 makes up for.
        ({}, [0, 1, 1, 2, 3, 3]),
        ({"level_epsilon": 0.0}, [0, 0, 1, 2, 3, 3]),
        # Two levels less: 112 * (1 - 2e-7) is of level floor(1 + 2e-7 * ...) below 1.
        ({"canonical_level": 5}, [0, 2, 2, 3, 3, 3]),
        ({"canonical_scale": 448.0}, [0, 0, 0, 1, 2, 3]),
        ({"min_level": 3, "max_level": 6}, [0, 0, 0, 1, 2, 3]),
        ({"max_level": 3}, [0, 1, 1, 1, 1, 1]),
        ({"min_level": 4, "max_level": 4}, [0, 0, 0, 0, 0, 0]),
        ({"log_epsilon": 1.0}, [2, 2, 2, 3, 3, 3]),  # log2(s / 224 + 1) is above 0
    ],
)
def test_levels_derived_by_hand(attributes, numbers):
    sides = np.array([50, 112 * (1 - 2e-7), 112, 224, 448, 5000], np.float32)
    assert sides[1] < 112
    assert_array_equal(map_numbers(squares(sides), **attributes), numbers)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("size_image", "number"),
    [
        ((0, 500), 0),
        ((500, 0), 0),
        ((-500, 500), 0),
        ((500, -500), 0),
        ((1e-30, 1e-30), 0),  # the area is 0 in float32
        ((-500, -500), 3),  # mirrored on both axes: the area counts
        ((1, 50176), 2),  # 224 * 224
        ((1e30, 1e30), 3),  # the area is infinite in float32
    ],
)
def test_boxes_without_area_and_with_too_much(size_image, number, dtype):
    width, height = size_image
    corners = around_the_origin([width], [height]).astype(dtype)
    assert_array_equal(map_numbers(corners, dtype), [number])
    turned = np.array([[0, 0, width, height, 0]], dtype)
    assert_array_equal(map_numbers(turned, dtype), [number])
    # Also where the formula gives an empty box a level, 4.
    if number == 0 and width * height <= 0:
        assert_array_equal(map_numbers(corners, dtype, log_epsilon=1.0), [0])


def test_negative_logarithms_argument_is_the_first_map():
    sides = np.array([100, 224, 448], np.float32)
    attributes = {"min_level": -3, "max_level": 0, "canonical_level": 0}
    assert_array_equal(map_numbers(squares(sides), **attributes, log_epsilon=-1.0), [0, 0, 3])
    assert_array_equal(map_numbers(squares(sides), **attributes), [1, 3, 3])


def test_level_is_computed_in_float32_for_float64_maps_too():
    # The side is 4.3e-8 of a level below level 0, but 224 in float32.
    rois = squares(np.array([224 * (1 - 3e-8)]))
    attributes = {"canonical_level": 0, "min_level": -2, "max_level": 1, "level_epsilon": 0.0}
    for dtype in (np.float32, np.float64):
        assert map_numbers(rois, dtype, **attributes) == 2


@pytest.mark.parametrize("min_level", [0, 3])
def test_the_default_of_the_last_level_follows_a_given_first_one(min_level):
    levels = np.arange(-5, 9)
    rois = squares((224 * 2.0 ** (levels - 4) * 1.01).astype(np.float32))
    scales = (0.25, 0.125, 0.0625)
    numbers = map_numbers(rois, num_maps=3, spatial_scales=scales, min_level=min_level)
    assert_array_equal(numbers, np.clip(levels, min_level, min_level + 2) - min_level)


@pytest.mark.parametrize(
    ("scales", "min_level", "max_level"),
    # -log2 of the scales, halves away from zero.
    [
        ((0.25, 0.125), 2, 3),
        ((2**-2.5, 2**-3.5), 3, 4),
        ((0.3, 0.2), 2, 2),  # 1.7 and 2.3
        ((2.0, 1.0), -1, 0),
        ((2**1.5, 2.0), -2, -1),
    ],
)
def test_default_levels_are_those_of_the_scales(scales, min_level, max_level):
    # A square box of level n has a side of at least 224 * 2^(n - 4).
    levels = np.arange(-5, 7)
    rois = squares((224 * 2.0 ** (levels - 4) * 1.01).astype(np.float32))
    numbers = map_numbers(rois, num_maps=2, spatial_scales=scales)
    assert_array_equal(numbers, np.clip(levels, min_level, max_level) - min_level)


def rotated_case(seed, dtype=np.float64):
    maps, rois, batch_indices = random_case(seed, dtype)
    centre, size = (rois[:, :2] + rois[:, 2:]) / 2, rois[:, 2:] - rois[:, :2]
    angle = np.random.default_rng(seed).uniform(-200, 200, (len(rois), 1))
    return maps, np.concatenate([centre, size, angle], axis=1).astype(dtype), batch_indices


OPERATORS = {
    "MultiScaleRoiAlign": (
        multi_scale_roi_align,
        multi_scale_roi_align_grad,
        roi_align,
        random_case,
        {},
    ),
    "MultiScaleRoiAlignRotated": (
        multi_scale_roi_align_rotated,
        multi_scale_roi_align_rotated_grad,
        roi_align_rotated,
        rotated_case,
        {"angle_unit": "degrees", "clockwise": 1},
    ),
}


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("transformation", ["half_pixel", "output_half_pixel"])
@pytest.mark.parametrize("name", OPERATORS)
def test_each_region_is_pooled_from_the_map_of_its_level(name, transformation, mode):
    forward, _, single, make_case, extra = OPERATORS[name]
    maps, rois, batch_indices = make_case(10)
    attributes = {
        "mode": mode,
        "output_height": 2,
        "output_width": 3,
        "sampling_ratio": 2,
        "coordinate_transformation_mode": transformation,
        **extra,
    }
    y = forward(rois, batch_indices, *maps, spatial_scales=SCALES, **attributes)
    size = rois[:, 2:4] - (rois[:, :2] if rois.shape[1] == 4 else 0)
    levels = np.clip(np.floor(4 + np.log2(np.sqrt(size.prod(axis=1)) / 224)), 2, 5).astype(int)
    assert set(levels) == {2, 3, 4, 5}
    for roi, level in enumerate(levels):
        expected = single(
            maps[level - 2],
            rois[roi : roi + 1],
            batch_indices[roi : roi + 1],
            spatial_scale=SCALES[level - 2],
            **attributes,
        )
        assert_array_equal(y[roi : roi + 1], expected)


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("name", OPERATORS)
def test_gradient_is_the_transpose(name, mode):
    forward, backward, _, make_case, extra = OPERATORS[name]
    maps, rois, batch_indices = make_case(20)
    attributes = {"mode": mode, "output_height": 2, "output_width": 3, **extra}
    attributes["spatial_scales"] = SCALES
    y = forward(rois, batch_indices, *maps, **attributes)
    dy = np.random.default_rng(21).standard_normal(y.shape)
    gradients = backward(dy, rois, batch_indices, *maps, **attributes)
    assert [dx.shape for dx in gradients] == [x.shape for x in maps]
    sums = [(dx * x).sum() for dx, x in zip(gradients, maps, strict=True)]
    assert min(abs(total) for total in sums) > 0.01
    assert_allclose(sum(sums), (dy * y).sum(), *tolerances.GRADIENT["float64"])


@pytest.mark.parametrize("name", OPERATORS)
def test_gradient_equals_finite_differences(name):
    forward, backward, _, make_case, extra = OPERATORS[name]
    maps, rois, batch_indices = make_case(20)
    attributes = {"output_height": 2, "spatial_scales": SCALES, "sampling_ratio": 2, **extra}
    dy = np.random.default_rng(31).standard_normal((len(rois), 3, 2, 1))
    gradients = backward(dy, rois, batch_indices, *maps, **attributes)
    step = 2.0**-14
    for number, dx in enumerate(gradients):
        # The cell with the largest gradient, and some others.
        rng = np.random.default_rng(number)
        cells = [np.unravel_index(np.abs(dx).argmax(), dx.shape)]
        cells += [tuple(rng.integers(0, extent) for extent in dx.shape) for _ in range(5)]
        assert abs(dx[cells[0]]) > 0.01
        for cell in cells:
            losses = []
            for nudge in (step, -step):
                nudged = [x.copy() for x in maps]
                nudged[number][cell] += nudge
                losses.append((dy * forward(rois, batch_indices, *nudged, **attributes)).sum())
            expected = (losses[0] - losses[1]) / (2 * step)
            assert_allclose(dx[cell], expected, *tolerances.FINITE_DIFFERENCE)


@pytest.mark.parametrize("name", OPERATORS)
def test_maps_without_regions_get_no_gradient(name):
    _, backward, _, make_case, _ = OPERATORS[name]
    maps, rois, _ = make_case(40)
    small = np.array([[9, 9, 20, 20, 0][: rois.shape[1]]], np.float64)
    gradients = backward(np.ones((1, 3, 1, 1)), small, [1], *maps, spatial_scales=SCALES)
    assert [bool(dx.any()) for dx in gradients] == [True, False, False, False]


@pytest.mark.parametrize("num_images", [0, 2])
@pytest.mark.parametrize("name", OPERATORS)
def test_no_regions(name, num_images):
    forward, backward, _, make_case, _ = OPERATORS[name]
    maps, rois, _ = make_case(50)
    maps = [x[:num_images] for x in maps]
    attributes = {"output_height": 2, "output_width": 3, "spatial_scales": SCALES}
    y = forward(rois[:0], [], *maps, **attributes)
    assert y.shape == (0, 3, 2, 3)
    gradients = backward(y, rois[:0], [], *maps, **attributes)
    for dx, x in zip(gradients, maps, strict=True):
        assert_array_equal(dx, np.zeros_like(x))
