"""Wrong arguments of the functions: each error says what is required and what was given."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

import ort_roialign.torch as ops
from ort_roialign._kernels import Call, Tensor
from ort_roialign.errors import InvalidArgumentError, OrtRoiAlignError

MAP = torch.rand(2, 4, 8, 8)
BOXES = torch.tensor([[0.0, 1, 1, 6, 6], [1, 0, 2, 5, 4]])
TURNED = torch.tensor([[0.0, 4, 4, 3, 2, 0.5]])


@pytest.mark.parametrize(
    ("function", "arguments", "text"),
    [
        (ops.roi_align, (MAP, BOXES.numpy(), 2), "roi_align: boxes must be a .*; got ndarray"),
        (ops.roi_align, (MAP, [], 2), "boxes must be a tensor .*; got an empty list"),
        (ops.roi_align, (MAP, (), 2), "boxes must be a tensor .*; got an empty list"),
        (
            ops.roi_align,
            (MAP, [BOXES[:, 1:]] * 3, 2),
            "roi_align: boxes must have one tensor an image, 2; got 3",
        ),
        (
            ops.multiscale_roi_align,
            ([MAP], [BOXES[:, 1:]] * 3, 2, [1.0]),
            "multiscale_roi_align: boxes must have one tensor an image, 2; got 3",
        ),
        (ops.roi_align, (MAP.numpy(), BOXES, 2), r"input must be a tensor \[N.*; got ndarray"),
        (ops.prroi_pool, ([MAP], BOXES, 2), "prroi_pool: features must be a tensor .*; got list"),
        (ops.roi_align, (MAP.byte(), BOXES, 2), "input must be of type float32, .*; got uint8"),
        (ops.ps_roi_pool, (MAP.long(), BOXES, 2), "ps_roi_pool: input must be .*; got int64"),
        (ops.roi_pool, (MAP.bool(), BOXES, 2), "bfloat16; got bool"),
        (ops.roi_align_rotated, (MAP, [TURNED], 2), r"rois must be a tensor \[K, 6\]; got list"),
        (ops.prroi_pool, (MAP, None, 2), r"rois must be a tensor \[K, 5\]; got NoneType"),
        (ops.deform_roi_pool, (MAP, [BOXES], None, 2), r"rois must be a tensor .*; got list"),
        (ops.deform_roi_pool, (MAP, BOXES, [0.0], 2), "offset must be a tensor .*; got list"),
        (
            ops.multiscale_roi_align_rotated,
            ([MAP], [TURNED], 2, [1.0]),
            "multiscale_roi_align_rotated: rois must be a tensor .*; got list",
        ),
        (
            ops.multiscale_roi_align,
            ({"0": MAP}, BOXES, 2, [1.0]),
            "features must be a list of maps, the finest first; got dict",
        ),
        (ops.multiscale_roi_align, (MAP, BOXES, 2, [1.0]), "features must be .*; got Tensor"),
        (ops.multiscale_roi_align, (3, BOXES, 2, [1.0]), "features must be .*; got int"),
        (
            ops.multiscale_roi_align,
            ([MAP, None], BOXES, 2, [1.0, 0.5]),
            r"features\[1\] must be a tensor .*; got NoneType",
        ),
        (
            ops.multiscale_roi_align,
            ([MAP], BOXES, 2, 0.5),
            "spatial_scales must be a list of numbers, one of each map; got 0.5",
        ),
        (
            ops.multiscale_roi_align_rotated,
            ([MAP], TURNED, 2, ["a"]),
            r"spatial_scales must be a list of numbers, one of each map; got \['a'\]",
        ),
        (ops.roi_align, (MAP, BOXES, 2, 1.0, None), "sampling_ratio must be an int.*; got None"),
        (ops.ps_roi_align, (MAP, BOXES, 2, 1.0, 2.0), "sampling_ratio must be an int.*; got 2.0"),
    ],
)
def test_errors_say_what_is_required(function: Any, arguments: Any, text: str) -> None:
    with pytest.raises(InvalidArgumentError, match=text):
        function(*arguments)


@pytest.mark.parametrize(
    "size", [np.array([2, 2]), torch.tensor([2, 2]), (2.0, 2.0), 2.0, "22", None, (2,), {2: 2}]
)
def test_output_sizes_are_integers(size: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="roi_align: output_size must be one integer or"):
        ops.roi_align(MAP, BOXES, size)


def test_integers_of_other_types() -> None:
    expected = ops.roi_align(MAP, BOXES, (2, 3), sampling_ratio=2)
    sizes: list[Any] = [torch.Size([2, 3]), [np.int32(2), torch.tensor(3)]]
    for size in sizes:
        ratio: Any = np.int64(2)
        assert torch.equal(ops.roi_align(MAP, BOXES, size, sampling_ratio=ratio), expected)


def test_maps_of_a_dict_s_values() -> None:
    maps: Any = {"0": MAP, "1": MAP[..., ::2, ::2]}.values()
    pooled = ops.multiscale_roi_align(maps, BOXES, 2, [1.0, 0.5])
    assert torch.equal(pooled, ops.multiscale_roi_align(list(maps), BOXES, 2, [1.0, 0.5]))


def test_fewer_lists_of_boxes_than_images_are_those_of_the_first() -> None:
    pooled = ops.roi_align(MAP, [BOXES[:, 1:]], 2)
    assert torch.equal(pooled, ops.roi_align(MAP[:1], [BOXES[:, 1:]], 2))


def test_the_fraction_of_an_image_s_number_is_cut_off() -> None:
    rows = BOXES.clone()
    rows[:, 0] += 0.7
    assert torch.equal(ops.roi_align(MAP, rows, 2), ops.roi_align(MAP, BOXES, 2))


def test_mmcv_s_empty_offset_is_none() -> None:
    pooled = ops.deform_roi_pool(MAP, BOXES, torch.empty(0), 2)
    assert torch.equal(pooled, ops.deform_roi_pool(MAP, BOXES, None, 2))
    with pytest.raises(InvalidArgumentError, match="offset must have shape"):
        ops.deform_roi_pool(MAP, BOXES, torch.empty(3), 2)
    assert ops.deform_roi_pool(MAP, BOXES[:0], torch.empty(0, 2, 2, 2), 2).shape == (0, 4, 2, 2)


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_forward_mode_is_refused() -> None:
    offset = torch.zeros(2, 2, 2, 2)
    for name, function, at in (
        ("roi_align: input", lambda x: ops.roi_align(x, BOXES, 2), MAP),
        (
            r"multiscale_roi_align: features\[0\]",
            lambda x: ops.multiscale_roi_align([x], BOXES, 2, [1.0]),
            MAP,
        ),
        ("prroi_pool: rois", lambda rois: ops.prroi_pool(MAP, rois, 2), BOXES),
        ("deform_roi_pool: offset", lambda o: ops.deform_roi_pool(MAP, BOXES, o, 2), offset),
    ):
        with pytest.raises(OrtRoiAlignError, match=f"{name} has a tangent"):
            torch.func.jvp(function, (at,), (torch.ones_like(at),))
        with (
            torch.autograd.forward_ad.dual_level(),
            pytest.raises(OrtRoiAlignError, match=f"{name} has a tangent"),
        ):
            function(torch.autograd.forward_ad.make_dual(at, torch.ones_like(at)))
    # What is pooled of constants is one.
    pooled, tangent = torch.func.jvp(
        lambda t: t * ops.roi_align(MAP, BOXES, 2), (torch.ones(1),), (torch.ones(1),)
    )
    assert torch.equal(pooled, tangent)


def test_attributes_of_equal_value_and_other_type_are_told_apart() -> None:
    inputs = [Tensor(1, "float32", (1, 1, 4, 4)), Tensor(1, "float32", (3, 4))]
    inputs.append(Tensor(1, "int64", (3,)))
    for _ in range(2):
        (output,) = Call("RoiAlign", {"spatial_scale": 1.0, "output_width": 2}, inputs, 1).infer()
        assert output.shape == (3, 1, 1, 2)
        with pytest.raises(InvalidArgumentError, match="spatial_scale must be a float"):
            Call("RoiAlign", {"spatial_scale": 1, "output_width": 2}, inputs, 1).infer()


def test_threads_that_share_attributes_and_differ_in_others() -> None:
    def pool(number: int) -> torch.Tensor:
        return ops.multiscale_roi_align([MAP * number], BOXES, 1 + number % 3, [1 / (1 + number)])

    expected = [pool(number) for number in range(40)]
    with ThreadPoolExecutor(8) as threads:
        for found, wanted in zip(threads.map(pool, range(40)), expected, strict=True):
            assert torch.equal(found, wanted)
