"""MultiScaleRoIAlign in the place of torchvision's: values, gradients, scales and detections."""

from __future__ import annotations

import copy
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from tolerances import DETECTOR_OUTPUT, GRADIENT, KERNEL, Tolerance
from torch import Tensor
from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn

import ort_roialign.torch as ops
from ort_roialign.errors import InvalidArgumentError, MissingDependencyError
from ort_roialign.torch import _dependencies

IMAGE = (128, 192)
STEPS = {"0": 4, "1": 8, "2": 16, "pool": 32}


def _poolers(names: list[str], **options: Any) -> tuple[Any, Any]:
    """This package's pooler and torchvision's."""
    return (
        ops.MultiScaleRoIAlign(names, (3, 2), 2, **options),
        torchvision.ops.MultiScaleRoIAlign(names, (3, 2), 2, **options),
    )


def _pyramid(rng: np.random.Generator, steps: dict[str, int] = STEPS) -> dict[str, Tensor]:
    return {
        name: torch.tensor(
            rng.standard_normal((2, 3, IMAGE[0] // step, IMAGE[1] // step)), requires_grad=True
        )
        for name, step in steps.items()
    }


def _boxes(rng: np.random.Generator, count: int) -> Tensor:
    first, sides = rng.uniform(-20, 100, (count, 2)), np.exp(rng.uniform(1, 7, (count, 2)))
    return torch.tensor(np.concatenate([first, first + sides], axis=1))


def _close(actual: Tensor, expected: Tensor, tolerance: Tolerance) -> None:
    torch.testing.assert_close(actual, expected, **tolerance._asdict())


@pytest.mark.parametrize("counts", [(20, 15), (20, 0), (0, 0)])
@pytest.mark.parametrize(
    ("names", "options"),
    [
        (["0", "1", "2"], {}),
        (["1"], {}),
        (["2", "pool"], {"canonical_scale": 100, "canonical_level": 5}),
        (["0", "absent", "1"], {"canonical_level": 3}),
    ],
)
def test_equals_torchvision(
    names: list[str],
    options: dict[str, int],
    counts: tuple[int, int],
    rng: np.random.Generator,
) -> None:
    maps, boxes = _pyramid(rng), [_boxes(rng, count) for count in counts]
    ours, peer = _poolers(names, **options)
    pooled, expected = (each(maps, boxes, [IMAGE, (100, 50)]) for each in (ours, peer))
    _close(pooled, expected, KERNEL["float64"])
    assert ours.scales == peer.scales
    assert vars(ours.map_levels) == vars(peer.map_levels)
    used = [each for name, each in maps.items() if name in names]
    dy = torch.tensor(rng.standard_normal(pooled.shape))
    gradients = torch.autograd.grad(pooled, used, dy)
    others = torch.autograd.grad(expected, used, dy)
    for gradient, other in zip(gradients, others, strict=True):
        assert (other.abs().max() > 0) == (counts[0] > 0), "each level should have a box"
        _close(gradient, other, GRADIENT["float64"])


def test_two_maps_of_one_scale(rng: np.random.Generator) -> None:
    maps = _pyramid(rng, {"0": 16, "1": 16})
    boxes = [_boxes(rng, 10), _boxes(rng, 10)]
    ours, peer = _poolers(["0", "1"])
    _close(ours(maps, boxes, [IMAGE]), peer(maps, boxes, [IMAGE]), KERNEL["float64"])
    assert ours.map_levels.k_min == ours.map_levels.k_max == 4


def test_scales_are_kept(rng: np.random.Generator) -> None:
    maps, boxes = _pyramid(rng), [_boxes(rng, 10), _boxes(rng, 10)]
    ours, peer = _poolers(["0", "1", "2"])
    for each in (ours, peer):
        each(maps, boxes, [IMAGE])
    halved = [(IMAGE[0] // 2, IMAGE[1] // 2)]
    _close(ours(maps, boxes, halved), peer(maps, boxes, halved), KERNEL["float64"])
    assert ours.scales == [1 / 4, 1 / 8, 1 / 16]


@pytest.mark.parametrize("height", [37, 90, 91, 181, 1023])
def test_scales_of_heights_that_are_no_multiples(height: int) -> None:
    maps = {name: torch.zeros(1, 1, -(-height // step), 9) for name, step in STEPS.items()}
    boxes = [torch.tensor([[0.0, 0, 9, 9]])]
    ours, peer = _poolers(list(STEPS))
    for each in (ours, peer):
        each(maps, boxes, [(height, 20)])
    assert ours.scales == peer.scales


def test_half_maps_and_float32_boxes(rng: np.random.Generator) -> None:
    maps = {name: each.detach().half() for name, each in _pyramid(rng).items()}
    boxes = [_boxes(rng, 9).float(), _boxes(rng, 9).float()]
    ours, peer = _poolers(["0", "1", "2"])
    expected = peer({name: each.float() for name, each in maps.items()}, boxes, [IMAGE])
    pooled = ours(maps, boxes, [IMAGE])
    assert pooled.dtype == torch.float16
    _close(pooled.float(), expected, KERNEL["float16"])


def test_maxima(rng: np.random.Generator) -> None:
    maps, boxes = _pyramid(rng), [_boxes(rng, 9), _boxes(rng, 9)]
    pooler = ops.MultiScaleRoIAlign(["0", "1"], 3, 2, mode="max")
    expected = ops.multiscale_roi_align(
        [maps["0"], maps["1"]], boxes, 3, [1 / 4, 1 / 8], 2, mode="max"
    )
    assert torch.equal(pooler(maps, boxes, [IMAGE]), expected)
    peer = torchvision.ops.MultiScaleRoIAlign(["0", "1"], 3, 2)
    assert repr(pooler) == repr(peer)[:-1] + ", mode='max')"


def test_detections_are_those_of_torchvision(rng: np.random.Generator) -> None:
    torch.manual_seed(5)
    detector = fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None, weights_backbone=None, box_score_thresh=0.0
    ).eval()
    replaced = copy.deepcopy(detector)
    pooler = detector.roi_heads.box_roi_pool
    replaced.roi_heads.box_roi_pool = ops.MultiScaleRoIAlign(
        pooler.featmap_names, pooler.output_size, pooler.sampling_ratio
    )
    images = [torch.tensor(rng.random((3, 200, side))).float() for side in (260, 180)]
    with torch.no_grad():
        for found, expected in zip(replaced(images), detector(images), strict=True):
            assert len(expected["scores"]) > 5
            assert torch.equal(found["labels"], expected["labels"])
            for name in ("boxes", "scores"):
                _close(found[name], expected[name], DETECTOR_OUTPUT)


def test_a_compiled_pooler_infers_its_scales(rng: np.random.Generator) -> None:
    maps, boxes = _pyramid(rng), [_boxes(rng, 9), _boxes(rng, 9)]
    pooler = ops.MultiScaleRoIAlign(["0", "1"], 3, 2)
    expected = ops.MultiScaleRoIAlign(["0", "1"], 3, 2)(maps, boxes, [IMAGE])
    torch._dynamo.reset()
    compiled = torch.compile(pooler, fullgraph=True, backend="aot_eager")
    for _ in range(2):
        assert torch.equal(compiled(maps, boxes, [IMAGE]), expected)
    assert pooler.scales == [1 / 4, 1 / 8]


def test_a_trace_without_known_scales_fixes_no_size(rng: np.random.Generator) -> None:
    class Pool(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pool = ops.MultiScaleRoIAlign(["0", "1"], 2, 2)

        def forward(self, fine: Tensor, coarse: Tensor, boxes: Tensor) -> Any:
            sizes = (fine.shape[2] * 4, fine.shape[3] * 4)
            return self.pool({"0": fine, "1": coarse}, [boxes, boxes], [sizes])

    maps, boxes = _pyramid(rng), _boxes(rng, 9)
    height, width = torch.export.Dim("height", min=2), torch.export.Dim("width", min=2)
    module = Pool()
    program = torch.export.export(
        module,
        (maps["0"], maps["1"], boxes),
        dynamic_shapes={
            "fine": {2: 2 * height, 3: 2 * width},
            "coarse": {2: height, 3: width},
            "boxes": {0: torch.export.Dim("num_boxes")},
        },
    )
    others = (maps["0"][:, :, :20, :26], maps["1"][:, :, :10, :13], _boxes(rng, 4))
    assert torch.equal(program.module()(*others), module(*others))


def test_errors(rng: np.random.Generator) -> None:
    pooler = ops.MultiScaleRoIAlign(["a"], 2, 2)
    maps, boxes = _pyramid(rng), [_boxes(rng, 3)]
    with pytest.raises(InvalidArgumentError, match=r"x must have maps named \['a'\].*got 0 maps"):
        pooler(maps, boxes, [IMAGE])
    pooler = ops.MultiScaleRoIAlign(["0"], 2, 2)
    with pytest.raises(InvalidArgumentError, match="image_shapes an image; got 1 maps and 0 im"):
        pooler(maps, boxes, [])
    pooler = ops.MultiScaleRoIAlign(["0", "pool"], 2, 2)
    with pytest.raises(InvalidArgumentError, match="max_level must be in"):  # 3 and 4 have no map
        pooler(maps, boxes, [IMAGE])


def test_everything_else_does_without_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    check = (
        "import sys; sys.modules['torchvision'] = None; import ort_roialign.torch as t;"
        "t.RoIAlign(2, 1.0, 2)\n"
        "try: t.MultiScaleRoIAlign\n"
        "except ImportError as error: sys.exit('torchvision is not installed' not in str(error))"
    )
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(MissingDependencyError, match="MultiScaleRoIAlign: requires torchvision"):
        _dependencies.require_torchvision()


def test_the_turned_module_is_the_function(rng: np.random.Generator) -> None:
    maps = list(_pyramid(rng).values())[:2]
    rois = torch.tensor(rng.uniform(20, 90, (6, 6)))
    rois[:, 0], rois[:, 5] = 1, torch.linspace(-3, 3, 6)
    scales = [1 / 4, 1 / 8]
    options: dict[str, Any] = {
        "mode": "max",
        "angle_unit": "degrees",
        "canonical_scale": 60,
        "canonical_level": 7,
        "min_level": 6,
        "max_level": 7,
        "log_epsilon": 0.1,
        "level_epsilon": 0.2,
    }
    expected = ops.multiscale_roi_align_rotated(maps, rois, 2, scales, 2, False, True, **options)
    module = ops.MultiScaleRoIAlignRotated(2, scales, 2, False, True, **options)
    assert torch.equal(module(maps, rois), expected)
    # Each argument counts: with another one's default, the result is another.
    defaults: dict[str, Any] = {"mode": "avg", "angle_unit": "radians", "canonical_scale": 224}
    for name, value in defaults.items():
        other = ops.MultiScaleRoIAlignRotated(2, scales, 2, False, True, **{**options, name: value})
        assert not torch.equal(other(maps, rois), expected), name
    assert "canonical_level=7" in repr(module)
