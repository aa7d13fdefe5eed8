"""mmcv's and mmdeploy's operators, which the kernels stand in for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tolerances
from numpy.testing import assert_allclose
from other_domains import SAMPLED, SCALE, SIZE, Array, coordinates, run, with_image
from plugin import ELEMENT_TYPES

from ort_roialign import reference

POOLED = {"pooled_height": 3, "pooled_width": 4}
PYRAMID_RULE = {
    "canonical_scale": 56.0,
    "canonical_level": 0,
    "min_level": 0,
    "log_epsilon": 1e-6,
    "level_epsilon": 0.0,
}


@pytest.fixture
def rotated(rng: np.random.Generator, inputs: dict[str, Array]) -> Array:
    """Boxes with angles; some are smaller than a cell."""
    sides = np.exp(rng.uniform(-2, 4, (30, 2)))
    angles = rng.uniform(-4, 4, (30, 1))
    return np.concatenate([inputs["rois"][:, :2], sides, angles], axis=1).astype(np.float32)


@pytest.fixture
def pyramid(rng: np.random.Generator, inputs: dict[str, Array]) -> dict[str, Array]:
    shapes = [(3, 3, 16, 20), (3, 3, 8, 10), (3, 3, 4, 5)]
    maps = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    return {f"X{number}": each for number, each in enumerate(maps)}


PYRAMID_SCALES = (0.25, 0.125, 0.0625)
STRIDES = [4.0, 8.0, 16.0]


@pytest.mark.parametrize("aligned", [0, 1])
@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
@pytest.mark.parametrize("type_name", ["float32", "float64", "float16"])
def test_mmcv_roi_align(device, inputs, packed, aligned, mode, sampling_ratio, type_name):
    attributes = {**SIZE, "sampling_ratio": sampling_ratio, "spatial_scale": SCALE, "mode": mode}
    cast = {name: array.astype(ELEMENT_TYPES[type_name]) for name, array in packed.items()}
    actual = run(device, "mmcv", "MMCVRoiAlign", "mmcv", cast, aligned=aligned, **attributes)
    x, rois = cast["X"], np.ascontiguousarray(cast["rois"][:, 1:])
    expected = reference.roi_align(
        x, rois, inputs["batch_indices"], **coordinates(aligned), **attributes
    )
    assert_allclose(actual, expected, *tolerances.KERNEL[type_name])


@pytest.mark.parametrize("aligned", [0, 1])
@pytest.mark.parametrize("clockwise", [0, 1])
@pytest.mark.parametrize("domain", ["mmcv", "mmdeploy"])
def test_roi_align_rotated(device, inputs, rotated, aligned, clockwise, domain):
    attributes = {**SAMPLED, "spatial_scale": SCALE, "clockwise": clockwise}
    batch_indices = inputs["batch_indices"]
    given = {"X": inputs["X"], "rois": with_image(rotated, batch_indices)}
    actual = run(
        device, domain, "MMCVRoIAlignRotated", domain, given, aligned=aligned, **attributes
    )
    expected = reference.roi_align_rotated(
        inputs["X"], rotated, batch_indices, **coordinates(aligned), **attributes
    )
    assert_allclose(actual, expected, *tolerances.KERNEL["float32"])


@pytest.mark.parametrize("aligned", [0, 1])
@pytest.mark.parametrize("pool_mode", [0, 1])
def test_mmdeploy_multi_level_roi_align(device, inputs, pyramid, aligned, pool_mode):
    batch_indices = inputs["batch_indices"]
    given = {"rois": with_image(inputs["rois"] * 2, batch_indices), **pyramid}
    actual = run(
        device,
        "mmdeploy",
        "MMCVMultiLevelRoiAlign",
        "mmdeploy",
        given,
        aligned=aligned,
        pool_mode=pool_mode,
        finest_scale=56,
        featmap_strides=STRIDES,
        roi_scale_factor=1.0,
        **SAMPLED,
    )
    expected = reference.multi_scale_roi_align(
        inputs["rois"] * 2,
        batch_indices,
        *pyramid.values(),
        spatial_scales=PYRAMID_SCALES,
        mode="avg" if pool_mode else "max",
        max_level=2,
        **PYRAMID_RULE,
        **coordinates(aligned),
        **SAMPLED,
    )
    assert_allclose(actual, expected, *tolerances.KERNEL["float32"])


@pytest.mark.parametrize("aligned", [0, 1])
def test_mmdeploy_multi_level_rotated_roi_align_counts_a_cell_at_least(
    device, inputs, rotated, pyramid, aligned
):
    batch_indices = inputs["batch_indices"]
    # Level by level, so that boxes smaller than a cell of their level can be enlarged by hand.
    area = rotated[:, 2] * rotated[:, 3]
    levels = np.clip(np.floor(np.log2(np.sqrt(area) / 56 + 1e-6)), 0, 2).astype(int)
    assert (rotated[:, 2:4] * np.array(PYRAMID_SCALES)[levels, None] < 1).any()
    expected = np.empty((30, 3, 3, 4))
    for level, (scale, x) in enumerate(zip(PYRAMID_SCALES, pyramid.values(), strict=True)):
        of_level = levels == level
        boxes = rotated[of_level].astype(np.float64)
        boxes[:, 2:4] = np.maximum(boxes[:, 2:4], 1 / scale)
        expected[of_level] = reference.roi_align_rotated(
            x.astype(np.float64),
            boxes,
            batch_indices[of_level],
            spatial_scale=scale,
            clockwise=1,
            **coordinates(aligned),
            **SAMPLED,
        )
    actual = run(
        device,
        "mmdeploy",
        "MMCVMultiLevelRotatedRoiAlign",
        "mmdeploy",
        {"rois": with_image(rotated, batch_indices), **pyramid},
        aligned=aligned,
        clockwise=1,
        finest_scale=56,
        featmap_strides=STRIDES,
        **SAMPLED,
    )
    assert_allclose(actual, expected, *tolerances.KERNEL["float32"])


def test_mmcv_pr_roi_pool(device, inputs, packed):
    actual = run(device, "mmcv", "PrRoIPool", "mmcv", packed, spatial_scale=SCALE, **POOLED)
    expected = reference.pr_roi_pool(*inputs.values(), spatial_scale=SCALE, **SIZE)
    assert_allclose(actual, expected, *tolerances.KERNEL["float32"])


@pytest.mark.parametrize("has_offset", [False, True])
def test_mmcv_deform_roi_pool(device, rng, inputs, packed, has_offset):
    attributes = {"spatial_scale": SCALE, "gamma": 0.3}
    offset = rng.standard_normal((30, 2, 3, 4)).astype(np.float32) if has_offset else None
    given = {**packed, "offset": offset} if has_offset else packed
    actual = run(
        device,
        "mmcv",
        "MMCVDeformRoIPool",
        "mmcv",
        given,
        sampling_ratio=2.0,
        **POOLED,
        **attributes,
    )
    expected = reference.deform_roi_pool(
        *inputs.values(), offset, sampling_ratio=2, **SIZE, **attributes
    )
    assert_allclose(actual, expected, *tolerances.KERNEL["float32"])


@pytest.mark.parametrize("shape", [(0,), (0, 2, 3, 4)])
def test_mmcv_deform_roi_pool_whose_offset_is_empty(device, inputs, packed, shape):
    """So mmcv says that there is none: it hands over `input.new_zeros(0)`."""
    attributes = {"spatial_scale": SCALE, "gamma": 0.3, "sampling_ratio": 2.0, **POOLED}
    given = {**packed, "offset": np.zeros(shape, np.float32)}
    actual = run(device, "mmcv", "MMCVDeformRoIPool", "mmcv", given, **attributes)
    expected = run(device, "mmcv", "MMCVDeformRoIPool", "mmcv", packed, **attributes)
    np.testing.assert_array_equal(actual, expected)
    by_reference = reference.deform_roi_pool(
        *inputs.values(), sampling_ratio=2, spatial_scale=SCALE, **SIZE
    )
    assert_allclose(actual, by_reference, *tolerances.KERNEL["float32"])


def mmcv_numbers() -> list[Any]:
    """Hand-checked results of mmcv's tests (tests/test_ops): a 2 x 2 map, the box of all of it."""
    x = np.array([[[[1, 2], [3, 4]]]], np.float32)
    box = np.array([[0, 0, 0, 1, 1]], np.float32)
    turned = np.array([[0, 0.5, 0.5, 1, 1, np.pi / 2]], np.float32)
    size = {"output_height": 2, "output_width": 2, "spatial_scale": 1.0}
    aligned = {**size, "sampling_ratio": 2, "aligned": 1}
    pooled = {"pooled_height": 2, "pooled_width": 2, "spatial_scale": 1.0}
    return [
        ("MMCVRoiAlign", "mmcv", x, box, {**aligned, "mode": "avg"}, [[1, 1.25], [1.5, 1.75]]),
        (
            "MMCVRoIAlignRotated",
            "mmdeploy",
            x,
            turned,
            {**aligned, "clockwise": 0},
            [[1.5, 1], [1.75, 1.25]],
        ),
        (
            "MMCVRoIAlignRotated",
            "mmdeploy",
            x,
            turned * [1, 1, 1, 1, 1, -1],
            {**aligned, "clockwise": 1},
            [[1.5, 1], [1.75, 1.25]],
        ),
        ("PrRoIPool", "mmcv", x, box, pooled, [[1.75, 2.25], [2.75, 3.25]]),
        (
            "MMCVDeformRoIPool",
            "mmcv",
            x,
            box,
            {**pooled, "sampling_ratio": 2.0},
            [[1, 1.25], [1.5, 1.75]],
        ),
    ]


@pytest.mark.parametrize(
    ("operator", "domain", "x", "rois", "attributes", "expected"), mmcv_numbers()
)
def test_numbers_of_mmcv(device, operator, domain, x, rois, attributes, expected):
    given = {"X": x, "rois": rois.astype(np.float32)}
    actual = run(device, "mmcv,mmdeploy", operator, domain, given, **attributes)
    assert_allclose(actual[0, 0], expected, *tolerances.KERNEL["float32"])
