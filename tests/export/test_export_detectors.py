"""Whole detectors of torchvision: images as arguments, batches, and what `prepare` undoes."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import tolerances
import torch
import torchvision
from example_modules import (
    tiny_faster_rcnn,
    tiny_keypoint_rcnn,
    tiny_mask_and_keypoint_rcnn,
    tiny_mask_rcnn,
)
from exported_files import BOX_HEAD, random_maps, roi_nodes
from running import RUNS, run_on_kernels
from torch import Tensor
from torchvision.models.detection import _utils, roi_heads, transform
from torchvision.ops import boxes as box_ops
from torchvision.ops import poolers

import ort_roialign.torch
from ort_roialign.cli.matching import match_detections
from ort_roialign.errors import ExportError, InvalidArgumentError
from ort_roialign.onnx_export import (
    add_fallback,
    export,
    prepare,
    register_symbolics,
    unregister_symbolics,
)
from ort_roialign.onnx_export._batched_detector import BatchedDetector, nms_of_groups

pytestmark = [
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:torch.*"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
EXPORTERS = pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "torchscript"])
Array = npt.NDArray[Any]
MASK_NODES = [*BOX_HEAD, *BOX_HEAD, "PasteMasks"]
KEYPOINT_NODES = [*BOX_HEAD, *BOX_HEAD]
NODES_OF_ALL_HEADS = [*MASK_NODES, *BOX_HEAD]
# The last two are a pixel smaller where the scale factor is rounded to float32.
SIZES = ((64, 80), (100, 60), (30, 33), (64, 200), (97, 301))


def operators(path: Path) -> list[str]:
    """The plugin's operators; no other RoI operator, and no loop over detections."""
    model = onnx.load(path)
    onnx.checker.check_model(model)
    assert "RoiAlign" not in {node.op_type for node in model.graph.node if node.domain == ""}
    return [node.op_type for node in roi_nodes(model) if node.op_type != "HeatmapsToKeypoints"]


def quiet_export(
    module: torch.nn.Module, args: Any, path: Path, dynamo: bool, **options: Any
) -> Path:
    if dynamo:
        options["verbose"] = False
    return export(module, args, path, dynamo=dynamo, **options)


def eager(module: torch.nn.Module, images: Sequence[Tensor]) -> list[dict[str, Array]]:
    with torch.no_grad():
        found = module(list(images))
    return [{name: value.numpy() for name, value in each.items()} for each in found]


def assert_same(expected: Mapping[str, Array], actual: Mapping[str, Array]) -> None:
    """Compare the detections of one image, in whatever order near-equal scores have them."""
    assert set(actual) == set(expected)
    matching = match_detections(expected, actual)
    most = max(len(expected["scores"]), len(actual["scores"]))
    assert len(matching.pairs) >= tolerances.SAME_DETECTIONS * most, matching
    for name in set(expected) - {"boxes", "labels", "scores"}:
        assert actual[name].shape[1:] == expected[name].shape[1:]
        close = [
            np.abs(expected[name][i] - actual[name][j]).mean() <= tolerances.SAME_RESULT[name]
            for i, j in matching.pairs
        ]
        assert sum(close) >= tolerances.SAME_DETECTIONS * len(close), name


@pytest.fixture(scope="module")
def mask_rcnn() -> torch.nn.Module:
    return tiny_mask_rcnn()


@pytest.fixture(scope="module")
def keypoint_rcnn() -> torch.nn.Module:
    return tiny_keypoint_rcnn()


@pytest.mark.parametrize(
    ("dynamo", "opset"), [(True, 20), (False, 16)], ids=["dynamo", "torchscript"]
)
def test_batches_of_any_number_and_size(
    tmp_path: Path, rng: np.random.Generator, dynamo: bool, opset: int
) -> None:
    module, example = tiny_mask_and_keypoint_rcnn(), random_maps(rng, 2, 3, 64, 80)
    path = quiet_export(module, example, tmp_path / "m.onnx", dynamo, opset_version=opset)
    assert sorted(operators(path)) == sorted(NODES_OF_ALL_HEADS)
    model = onnx.load(path)
    assert {each.domain: each.version for each in model.opset_import}[""] == opset
    assert [given.name for given in model.graph.input] == ["images"]
    detections = 0
    for number, size in zip((1, 2, 3, 5, 2), SIZES, strict=True):
        images = random_maps(rng, number, 3, *size)
        expected = eager(module, list(images))
        detections += sum(len(each["scores"]) for each in expected)
        for run in RUNS.values():
            found = run(path, images.numpy())
            numbers = found.pop("image_indices")
            assert (np.diff(numbers) >= 0).all()
            for image in range(number):
                of_image = {name: value[numbers == image] for name, value in found.items()}
                assert_same(expected[image], of_image)
                assert (np.diff(of_image["scores"]) <= 0).all()
    assert detections > 5


def test_a_batch_in_pytorch_gives_each_image_its_detections(
    rng: np.random.Generator, mask_rcnn: torch.nn.Module
) -> None:
    images = random_maps(rng, 3, 3, 70, 90)
    with torch.no_grad(), prepare(mask_rcnn):  # torchvision's poolers take lists
        found = BatchedDetector(mask_rcnn)(images)
    for number, expected in enumerate(eager(mask_rcnn, list(images))):
        chosen = found["image_indices"] == number
        for name, value in expected.items():
            np.testing.assert_allclose(
                found[name][chosen].numpy(), value, *tolerances.BATCHED_DETECTION, err_msg=name
            )


@EXPORTERS
def test_one_image_of_any_size(tmp_path: Path, rng: np.random.Generator, dynamo: bool) -> None:
    """Also where a pooler is this package's already, and another torchvision's."""
    module = tiny_mask_and_keypoint_rcnn()
    pooler = module.roi_heads.box_roi_pool
    module.roi_heads.box_roi_pool = ort_roialign.torch.MultiScaleRoIAlign(
        pooler.featmap_names, pooler.output_size, pooler.sampling_ratio
    )
    path = quiet_export(module, [random_maps(rng, 3, 64, 80)], tmp_path / "m.onnx", dynamo)
    assert sorted(operators(path)) == sorted(NODES_OF_ALL_HEADS)
    assert [given.name for given in onnx.load(path).graph.input] == ["image"]
    for size in SIZES:
        image = random_maps(rng, 3, *size)
        for run in RUNS.values():
            assert_same(*eager(module, [image]), run(path, image.numpy()))


def test_two_images_of_sizes_of_their_own(
    tmp_path: Path, rng: np.random.Generator, keypoint_rcnn: torch.nn.Module
) -> None:
    example = [random_maps(rng, 3, 64, 80), random_maps(rng, 3, 70, 60)]
    path = quiet_export(keypoint_rcnn, example, tmp_path / "m.onnx", dynamo=False)
    assert operators(path) == KEYPOINT_NODES
    assert [given.name for given in onnx.load(path).graph.input] == ["image_0", "image_1"]
    for sizes in (((64, 80), (70, 60)), ((33, 90), (97, 101))):
        images = [random_maps(rng, 3, *size) for size in sizes]
        found = run_on_kernels(path, *(image.numpy() for image in images))
        for number, expected in enumerate(eager(keypoint_rcnn, images)):
            assert_same(expected, {name: found[f"{name}_{number}"] for name in expected})


def test_no_detections(tmp_path: Path, rng: np.random.Generator) -> None:
    module = tiny_mask_rcnn()
    module.roi_heads.score_thresh = 2.0
    for name, example in (
        ("list", [random_maps(rng, 3, 64, 80)]),
        ("batch", random_maps(rng, 2, 3, 64, 80)),
    ):
        path = quiet_export(module, example, tmp_path / f"{name}.onnx", dynamo=False)
        image = random_maps(rng, 3, 50, 70)
        for run in RUNS.values():
            found = run(path, (image if name == "list" else image[None]).numpy())
            assert found["boxes"].shape == (0, 4)
            assert found["masks"].shape == (0, 1, 50, 70)


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({}, [3, "height", "width"]),
        ({"dynamic_axes": {"photograph": {2: "width"}}}, [3, 64, "width"]),
        ({"dynamic_axes": {}}, [3, 64, 80]),
    ],
)
def test_given_names_and_sizes_go_first(
    tmp_path: Path, rng: np.random.Generator, options: dict[str, Any], shape: list[Any]
) -> None:
    path = quiet_export(
        tiny_faster_rcnn(),
        [random_maps(rng, 3, 64, 80)],
        tmp_path / "m.onnx",
        dynamo=False,
        input_names=["photograph"],
        output_names=["where", "what", "score"],
        **options,
    )
    graph = onnx.load(path).graph
    dims = graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_param or dim.dim_value for dim in dims] == shape
    assert [given.name for given in graph.input] == ["photograph"]
    assert [output.name for output in graph.output] == ["where", "what", "score"]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "args must be images [3, H, W], at least one; got none"),
        (
            [torch.ones(1, 3, 8, 8)],
            "args must be images [3, H, W] of floating-point numbers; got float32 [1, 3, 8, 8]",
        ),
        (
            [np.ones((3, 8, 8))],
            "args must be images [3, H, W] of floating-point numbers; got ndarray",
        ),
        (
            torch.ones(3, 8, 8),
            "args must be a batch [N, 3, H, W] of floating-point numbers; got float32 [3, 8, 8]",
        ),
        (
            torch.ones(2, 3, 8, 8).byte(),
            "args must be a batch [N, 3, H, W] of floating-point numbers; got uint8",
        ),
        (torch.ones(0, 3, 8, 8), "args must be a batch [N, 3, H, W], at least one; got none"),
    ],
)
def test_bad_images(tmp_path: Path, images: Any, message: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        export(tiny_faster_rcnn(), images, tmp_path / "m.onnx")
    assert str(caught.value).startswith(f"export: {message}")


def test_heads_that_are_not_torchvisions_are_refused(tmp_path: Path) -> None:
    module = tiny_faster_rcnn()
    module.roi_heads = torch.nn.Identity()
    with pytest.raises(InvalidArgumentError, match="RoIHeads where args are images; got Identity"):
        export(module, [torch.ones(3, 64, 80)], tmp_path / "m.onnx")


def test_modes_stay_as_they_are(tmp_path: Path, rng: np.random.Generator) -> None:
    module = tiny_faster_rcnn()
    module.backbone.train()
    modes = {name: each.training for name, each in module.named_modules()}
    quiet_export(module, random_maps(rng, 1, 3, 64, 80), tmp_path / "m.onnx", dynamo=False)
    assert {name: each.training for name, each in module.named_modules()} == modes


def test_suppression_in_large_batches_is_exact(rng: np.random.Generator) -> None:
    """Groups far apart keep enough digits: each gives what it gives alone."""
    count, labels, images = 4000, 91, 64
    low = rng.uniform(0, 1200, (count, 2))
    boxes = torch.from_numpy(
        np.concatenate([low, low + rng.uniform(5, 100, (count, 2))], 1)
    ).float()
    boxes[1::2] = boxes[::2] + torch.from_numpy(rng.uniform(-9, 9, (count // 2, 4))).float()
    numbers = torch.from_numpy(
        rng.integers(0, [labels, images], (count // 2, 2))
    ).repeat_interleave(2, 0)
    scores = torch.from_numpy(rng.permutation(count) / count)
    kept = nms_of_groups(boxes, scores.float(), numbers[:, 0], numbers[:, 1], 0.5)
    expected = []
    for group in torch.unique(numbers, dim=0):
        (rows,) = torch.where((numbers == group).all(dim=1))
        expected.append(rows[torchvision.ops.nms(boxes[rows], scores[rows].float(), 0.5)])
    assert count * 0.4 < len(kept) < count * 0.9
    assert torch.equal(kept.sort().values, torch.cat(expected).sort().values)


def test_a_detector_in_training_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="must be in evaluation mode to detect"):
        export(tiny_faster_rcnn().train(), [torch.ones(3, 64, 80)], tmp_path / "m.onnx")


def state() -> list[Any]:
    """Everything that `prepare` replaces in torchvision."""
    return [
        box_ops.batched_nms,
        torchvision.ops.batched_nms,
        vars(transform).get("min"),
        transform._resize_image_and_masks,
        transform.paste_masks_in_image,
        transform.GeneralizedRCNNTransform.batch_images,
        roi_heads.heatmaps_to_keypoints,
        _utils._topk_min,
    ]


def test_prepare_undoes_what_it_did(rng: np.random.Generator) -> None:
    module = torch.nn.ModuleDict({"first": tiny_mask_rcnn(), "second": tiny_faster_rcnn()})
    module["second"].roi_heads.box_roi_pool = module["first"].roi_heads.box_roi_pool  # shared
    module["first"].train()
    before, modules = state(), dict(module.named_modules())
    modes = {name: each.training for name, each in modules.items()}
    image = [random_maps(rng, 3, 64, 80)]
    expected = eager(module["second"], image)
    module["second"].roi_heads.box_roi_pool.scales = None
    with contextlib.suppress(RuntimeError), prepare(module) as prepared:
        assert prepared is module
        pools = [each for each in module.modules() if isinstance(each, poolers.MultiScaleRoIAlign)]
        assert {type(each).__module__.partition(".")[0] for each in pools} == {"ort_roialign"}
        assert all(old is not new for old, new in zip(state(), before, strict=True))
        heads = module["first"].roi_heads, module["second"].roi_heads
        assert heads[0].box_roi_pool is heads[1].box_roi_pool
        assert_same(expected[0], eager(module["second"], image)[0])
        raise RuntimeError("stop")
    assert all(old is new for old, new in zip(state(), before, strict=True))
    after = dict(module.named_modules())
    assert after.keys() == modules.keys()
    assert all(after[name] is each for name, each in modules.items())
    assert {name: each.training for name, each in after.items()} == modes
    assert module["second"].roi_heads.box_roi_pool.scales is None


def test_prepare_for_a_call_of_ones_own(tmp_path: Path, rng: np.random.Generator) -> None:
    module, path = tiny_mask_rcnn(), tmp_path / "m.onnx"
    image = random_maps(rng, 3, 64, 80)
    register_symbolics(17)
    try:
        with prepare(module):
            torch.onnx.export(
                module,
                ([image],),
                str(path),
                dynamo=False,
                opset_version=17,
                output_names=["boxes", "labels", "scores", "masks"],
            )
    finally:
        unregister_symbolics(17)
    model = add_fallback(onnx.load(path))
    for run in RUNS.values():
        assert_same(*eager(module, [image]), run(model, image.numpy()))


def test_a_failed_export_leaves_everything_as_it_was(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    module, before = tiny_mask_rcnn(), state()
    pool = module.roi_heads.box_roi_pool
    with pytest.raises(ExportError):
        quiet_export(
            module, ([random_maps(rng, 3, 64, 80)], "too much"), tmp_path / "m.onnx", False
        )
    assert all(old is new for old, new in zip(state(), before, strict=True))
    assert module.roi_heads.box_roi_pool is pool
    assert pool.scales is None
    assert not list(tmp_path.iterdir())
