"""The functions that torchvision does not have: values derived by hand, types, and errors."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from calls import VARIANTS, make_call
from tolerances import GRADIENT, KERNEL

import ort_roialign
import ort_roialign.torch as ops
from ort_roialign._signatures import OPERATORS
from ort_roialign.errors import InvalidArgumentError, MissingDependencyError
from ort_roialign.torch import _dependencies, _library_ops

FOUR_CELLS = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]], dtype=torch.float64)
BOX = torch.tensor([[0.0, 0.0, 0.0, 1.0, 1.0]], dtype=torch.float64)
HALVES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


def _close(actual: torch.Tensor, expected: Any, tolerance: Any = KERNEL["float64"]) -> None:
    expected = torch.as_tensor(expected, dtype=torch.float64).reshape(actual.shape)
    torch.testing.assert_close(actual.double(), expected, **tolerance._asdict())


def test_a_turned_box() -> None:
    # mmcv's own test: a quarter turn of the box 0,0,1,1 about its centre.
    rois = torch.tensor([[0, 0.5, 0.5, 1, 1, math.pi / 2]], dtype=torch.float64)
    _close(ops.roi_align_rotated(FOUR_CELLS, rois, 2, 1.0, 2), [1.5, 1, 1.75, 1.25])
    degrees = torch.tensor([[0, 0.5, 0.5, 1, 1, -90]], dtype=torch.float64)
    module = ops.RoIAlignRotated(2, 1.0, 2, clockwise=True, angle_unit="degrees")
    _close(module(FOUR_CELLS, degrees), [1.5, 1, 1.75, 1.25])
    # Unturned it is the plain crop, as RoIAlign has it.
    rois[0, 5] = 0
    _close(ops.roi_align_rotated(FOUR_CELLS, rois, 2, 1.0, 2), [1, 1.25, 1.5, 1.75])
    _close(ops.roi_align(FOUR_CELLS, BOX, 2, 1.0, 2, True), [1, 1.25, 1.5, 1.75])


def test_the_maximum_is_that_of_the_samples() -> None:
    # Bins of half a cell from -0.5 on, a sample at each quarter: x = -0.375, -0.125, 0.125, 0.375;
    # those below 0 are moved to 0. The last of a bin is the largest: 0 and 0.375 along each axis.
    y = ops.roi_align(FOUR_CELLS, BOX, 2, 1.0, 2, True, mode="max")
    _close(y, [1, 1.375, 1.75, 2.125])
    _close(ops.RoIAlign(2, 1.0, 2, True, "max")(FOUR_CELLS, [BOX[:, 1:]]), [1, 1.375, 1.75, 2.125])


def test_prroi_pool_and_both_gradients() -> None:
    # mmcv's own test. Each bin is the surface at its centre here, because the surface is a plane;
    # moving x1 moves the centres of the columns by 3/4 and 1/4, and the value by as much: in all
    # 2 rows * (3/4 + 1/4) * slope 1 = 2; likewise x2; slope 2 along y.
    x, rois = FOUR_CELLS.clone().requires_grad_(), BOX.clone().requires_grad_()
    y = ops.PrRoIPool(2)(x, rois)
    _close(y, [1.75, 2.25, 2.75, 3.25])
    y.sum().backward()
    assert x.grad is not None
    assert rois.grad is not None
    _close(x.grad, [1, 1, 1, 1])
    _close(rois.grad, [0, 2, 4, 2, 4])


def test_an_offset_moves_a_bin_by_parts_of_the_box() -> None:
    # On X[y, x] = 10 y + x the average of a bin is the value at its centre. The box 2,2,6,4 minus
    # half a cell is 4 by 2 cells from (1.5, 1.5) on; its two bins have the centres x = 2.5, 4.5,
    # y = 2.5. An offset of (1, -2) times gamma 0.125 moves by 0.5 cells along x, -0.5 along y.
    x = (10 * torch.arange(8.0)[:, None] + torch.arange(9.0)).double()[None, None]
    rois = torch.tensor([[0.0, 2, 2, 6, 4]], dtype=torch.float64)
    _close(ops.deform_roi_pool(x, rois, None, (1, 2), 1.0, 2), [27.5, 29.5])
    offset = torch.zeros((1, 2, 1, 2), dtype=torch.float64)
    offset[0, 0, 0, 1], offset[0, 1, 0, 1] = 1, -2
    pool = ops.DeformRoIPool((1, 2), 1.0, 2, gamma=0.125)
    _close(pool(x, rois, offset), [27.5, 25.0])
    _close(pool(x, rois), [27.5, 29.5])


def test_levels_of_a_pyramid() -> None:
    # Level of a side s: floor(4 + log2(s / 224)): 111 -> 2, 112 -> 3, 448 -> 5, held to 3.
    maps = [torch.full((1, 1, 8, 8), float(level), dtype=torch.float64) for level in (2, 3)]
    sides = torch.tensor([111.0, 112.0, 448.0, 20.0], dtype=torch.float64)
    boxes = torch.stack([0 * sides, 0 * sides, sides, sides], 1)
    pooled = ops.multiscale_roi_align(maps, [boxes], 1, [1 / 4, 1 / 8], 1, True)
    # The centre of a box of 111 / 4 cells is outside the map of 8 cells and worth 0.
    _close(pooled, [0, 3, 0, 2])
    # A rule that starts from another level, and any two scales.
    small = ops.multiscale_roi_align(
        maps, [boxes], 1, [1 / 16, 1 / 100], 1, True, canonical_scale=112, canonical_level=0,
        min_level=0, max_level=1,
    )  # fmt: skip
    _close(small, [2, 2, 3, 2])


def test_a_turned_box_on_a_pyramid() -> None:
    # The box of `test_a_turned_box`, of level log2(1) = 0, the first; then one of twice the size,
    # of level 1, where half the scale makes it the same box of cells on a map of tenfold values.
    maps, scales = [FOUR_CELLS, 10 * FOUR_CELLS], [1.0, 0.5]
    levels: dict[str, Any] = {"canonical_scale": 1, "canonical_level": 0}
    rois = torch.tensor([[0, 0.5, 0.5, 1, 1, math.pi / 2]], dtype=torch.float64)
    pooled = ops.multiscale_roi_align_rotated(maps, rois, 2, scales, 2, **levels)
    _close(pooled, [1.5, 1, 1.75, 1.25])
    larger = torch.tensor([[0, 1, 1, 2, 2, -90]], dtype=torch.float64)
    options: dict[str, Any] = {"clockwise": True, "angle_unit": "degrees", **levels}
    pooled = ops.multiscale_roi_align_rotated(maps, larger, 2, scales, 2, **options)
    _close(pooled, [15, 10, 17.5, 12.5])
    # The samples of a single bin lie a quarter of a cell around the origin, and those below 0 are
    # moved to 0. The largest is the one at (0.25, 0.25): 10 + 10 * 0.25 + 20 * 0.25.
    pooled = ops.multiscale_roi_align_rotated(maps, larger, 1, scales, 2, mode="max", **options)
    _close(pooled, [17.5])


@pytest.mark.parametrize(
    "scales",
    [
        *([0.3, 0.15], [4.0, 2.0, 1.0], [0.7, 0.4], [1 / 12, 1 / 24]),
        [2**-0.5, 2**-1.5, 2**-2.5],  # halfway between levels
    ],
)
def test_levels_left_out_are_the_library_s(scales: list[float], rng: np.random.Generator) -> None:
    maps = [rng.standard_normal((1, 1, 12, 12)) for _ in scales]
    first, sides = rng.uniform(0, 9, (2, 40, 2)), np.exp(rng.uniform(-2, 8, (40, 1)))
    boxes = np.concatenate([first[0], first[1] + sides], axis=1)
    expected = ort_roialign.ops.multi_scale_roi_align(
        boxes, np.zeros(40, np.int64), *maps, spatial_scales=scales
    )
    pooled = ops.multiscale_roi_align(
        [torch.tensor(each) for each in maps], [torch.tensor(boxes)], 1, scales, aligned=True
    )
    np.testing.assert_array_equal(pooled.numpy(), expected)


@pytest.mark.parametrize("type_name", list(HALVES))
@pytest.mark.parametrize(("name", "mode"), VARIANTS)
def test_half_maps_and_float32_boxes(
    name: str, mode: str, type_name: str, rng: np.random.Generator
) -> None:
    type_ = HALVES[type_name]
    half = make_call(rng, name, mode=mode, x_type=type_, rois_type=torch.float32)
    full = [
        [each.float() for each in t]
        if isinstance(t, list)
        else t.float()
        if t.dtype == type_
        else t
        for t in half.tensors
    ]
    y = half.operator(*half.arguments)
    assert y.dtype == type_
    expected = half.operator(*full, *half.attributes)
    torch.testing.assert_close(y.float(), expected, **KERNEL[type_name]._asdict())
    variables = [tensor.requires_grad_() for tensor in half.variables()]
    gradients = torch.autograd.grad(half.of_variables()(*variables).sum(), variables)
    assert [g.dtype for g in gradients] == [v.dtype for v in variables]
    others = half.gradient_operator(
        torch.ones_like(expected), *full, *half.attributes, *half.all_wanted
    )
    for gradient, other in zip(gradients, torch.utils._pytree.tree_leaves(others), strict=True):
        torch.testing.assert_close(gradient.float(), other, **GRADIENT[type_name]._asdict())


def test_boxes_of_many_images_in_half_precision() -> None:
    # 2049 has no float16; the numbers of a list do not go through one.
    x = (torch.arange(2050) % 7).half().reshape(2050, 1, 1, 1)
    boxes = [torch.zeros((0, 4), dtype=torch.float16)] * 2049
    boxes.append(torch.tensor([[0.0, 0, 1, 1]], dtype=torch.float16))
    assert ops.roi_align(x, boxes, 1, sampling_ratio=1).item() == 2049 % 7


def test_empty_lists_of_boxes() -> None:
    x = torch.zeros((2, 3, 4, 5))
    assert ops.roi_align(x, [torch.zeros((0, 4))] * 2, 2).shape == (0, 3, 2, 2)
    assert ops.roi_align(x, torch.zeros((0, 5)), (1, 2)).shape == (0, 3, 1, 2)


@pytest.mark.parametrize(
    ("boxes", "options", "text"),
    [
        (BOX[:, 1:], {}, r"boxes must have shape \[K, 5\], .* got \[1, 4\]"),
        ([BOX], {}, r"boxes\[0\] must have shape \[L, 4\]; got \[1, 5\]"),
        ([], {}, "boxes must be a tensor .* got an empty list"),
        (3, {}, "boxes must be a tensor .* got int"),
        (BOX, {"output_size": (1, 2, 3)}, r"output_size must be .* got \[1, 2, 3\]"),
        (BOX, {"output_size": 0}, "attribute output_height must be at least 1; got 0"),
        (BOX, {"spatial_scale": -1.0}, "attribute spatial_scale must be .* got -1"),
        (BOX, {"mode": "sum"}, 'attribute mode must be "avg" or "max"; got "sum"'),
        (BOX.float(), {}, "rois must be of type float64, as X; got float32"),
        (
            BOX + torch.tensor([1.0, 0, 0, 0, 0]),
            {},
            r"batch_indices\[0\] must be in \[0, 1\); got 1",
        ),
        (BOX * math.nan, {}, "RoiAlign: "),
    ],
)
def test_errors(boxes: Any, options: dict[str, Any], text: str) -> None:
    arguments: dict[str, Any] = {"output_size": 2, **options}
    with pytest.raises(InvalidArgumentError, match=text):
        ops.roi_align(FOUR_CELLS, boxes, **arguments)


def test_errors_of_other_functions() -> None:
    with pytest.raises(
        InvalidArgumentError, match=r"rois must have shape \[K, 6\], .* got \[1, 5\]"
    ):
        ops.roi_align_rotated(FOUR_CELLS, BOX, 2)
    with pytest.raises(InvalidArgumentError, match=r"float32, .*; got int32"):
        ops.roi_pool(FOUR_CELLS.int(), BOX, 2)
    with pytest.raises(InvalidArgumentError, match="offset must have shape"):
        ops.deform_roi_pool(FOUR_CELLS, BOX, torch.zeros((1, 2, 1, 1)).double(), 2)
    with pytest.raises(InvalidArgumentError, match="spatial_scales must have one number"):
        ops.multiscale_roi_align([FOUR_CELLS], BOX, 2, [])
    with pytest.raises(InvalidArgumentError, match="spatial_scales must be finite"):
        ops.multiscale_roi_align([FOUR_CELLS], BOX, 2, [0.0])
    with pytest.raises(InvalidArgumentError, match="X must be as many maps"):
        ops.multiscale_roi_align([FOUR_CELLS], BOX, 2, [1.0, 0.5])


def test_tensors_of_two_devices_are_refused(rng: np.random.Generator) -> None:
    call = make_call(rng, "RoiAlign")
    call.tensors[1] = call.tensors[1].to("meta")
    with pytest.raises(InvalidArgumentError, match="rois must be on cpu, as X; got meta"):
        _library_ops._Forward(OPERATORS["RoiAlign"]).compute(*call.arguments)


def test_the_package_does_without_torch_until_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    check = "import sys, ort_roialign; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingDependencyError, match=r"torch is not installed; .*'\.\[export\]'"):
        _dependencies.require_torch()


@pytest.mark.gpu
@pytest.mark.parametrize(("name", "mode"), VARIANTS)
def test_cuda_tensors_on_a_stream_of_their_own(
    name: str, mode: str, rng: np.random.Generator
) -> None:
    if not torch.cuda.is_available():
        pytest.skip("PyTorch finds no GPU")
    if not ort_roialign.build_info()["cuda"]:
        pytest.skip("the library was built without CUDA kernels")
    call = make_call(rng, name, mode=mode)
    with torch.cuda.stream(torch.cuda.Stream()):
        on_gpu = torch.utils._pytree.tree_map_only(
            torch.Tensor, lambda tensor: tensor.cuda(), [call.arguments, call.gradient_arguments]
        )
        got = [call.operator(*on_gpu[0]), call.gradient_operator(*on_gpu[1])]
        got = torch.utils._pytree.tree_map_only(torch.Tensor, lambda tensor: tensor.cpu(), got)
    expected = [call.operator(*call.arguments), call.gradient_operator(*call.gradient_arguments)]
    for actual, other in zip(
        torch.utils._pytree.tree_leaves(got), torch.utils._pytree.tree_leaves(expected), strict=True
    ):
        torch.testing.assert_close(actual, other, **GRADIENT["float64"]._asdict())


@pytest.mark.parametrize("boxes", [[np.zeros((1, 4))], [None]])
def test_lists_of_boxes_are_of_tensors(boxes: Any) -> None:
    given = type(boxes[0]).__name__
    with pytest.raises(
        InvalidArgumentError, match=rf"boxes\[0\] must be a tensor \[L, 4\]; got {given}"
    ):
        ops.roi_align(torch.rand(1, 1, 4, 4), boxes, 2)


def test_output_sizes_of_numpy() -> None:
    x, boxes = torch.rand(1, 1, 4, 4), [torch.tensor([[0.0, 0, 3, 3]])]
    expected = ops.roi_align(x, boxes, 2)
    assert torch.equal(ops.roi_align(x, boxes, np.int64(2)), expected)  # type: ignore[arg-type]
    for size in (2.0, (1, 2, 3)):
        with pytest.raises(InvalidArgumentError, match="output_size must be one integer or two"):
            ops.roi_align(x, boxes, size)  # type: ignore[arg-type]
