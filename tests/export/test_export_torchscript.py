"""Files of the TorchScript exporter give eager PyTorch's results; its registry is left alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tolerances
import torch
from example_modules import (
    FunctionalRoiAlign,
    ListOfBoxes,
    ResizedImage,
    RoiPoolWithArgmax,
    TwoStage,
    mobilenet_faster_rcnn,
    tiny_mask_rcnn,
)
from exported_files import (
    BOX_HEAD,
    FREE_MAP,
    MASK_HEAD,
    assert_equals_eager,
    assert_same_detections,
    attributes,
    checked_model,
    random_boxes,
    random_maps,
    random_rois,
)
from running import Run, run_on_kernels
from torch.onnx._internal.torchscript_exporter.registration import registry

from ort_roialign.errors import ExportError
from ort_roialign.onnx_export import export, register_symbolics, unregister_symbolics

# PyTorch and torchvision warn of their own code when it is traced.
pytestmark = [
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:torch.*"),
    pytest.mark.filterwarnings("ignore::UserWarning:torchvision.*"),
    pytest.mark.filterwarnings("ignore:You are using the legacy TorchScript:DeprecationWarning"),
]

FLOAT32 = tolerances.KERNEL["float32"]


@pytest.fixture(autouse=True)
def _symbolics_are_restored() -> Any:
    before = _symbolics()
    yield
    assert _symbolics() == before


def _symbolics() -> dict[str, Callable[..., Any] | None]:
    groups = {name: registry.get_function_group(f"torchvision::{name}") for name in OPERATORS}
    return {
        f"{name} {opset}": group.get(opset)
        for name, group in groups.items()
        if group is not None
        for opset in range(9, 24)
    }


OPERATORS = ("roi_align", "roi_pool", "nms")


@pytest.mark.parametrize("opset", [16, 18, 20])
@pytest.mark.parametrize(("sampling_ratio", "aligned"), [(-1, True), (0, False), (2, True)])
def test_roi_align(
    opset: int,
    sampling_ratio: int,
    aligned: bool,
    tmp_path: Path,
    rng: np.random.Generator,
) -> None:
    module = FunctionalRoiAlign(sampling_ratio, aligned).eval()
    path = export(
        module,
        (random_maps(rng, 2, 5, 14, 20), random_rois(rng, 6, 2, 112, 160)),
        tmp_path / "model.onnx",
        opset_version=opset,
        dynamo=False,
        input_names=["x", "rois"],
        output_names=["y"],
        dynamic_axes={"x": FREE_MAP, "rois": {0: "num_rois"}},
    )
    model = checked_model(path, opset=opset, nodes=["RoiAlign"])
    assert attributes(model.graph.node[-1]) == {
        "mode": "avg",
        "output_height": 3,
        "output_width": 4,
        "sampling_ratio": max(sampling_ratio, 0),
        "spatial_scale": 0.125,
        "coordinate_transformation_mode": "half_pixel" if aligned else "output_half_pixel",
    }
    dims = model.graph.output[0].type.tensor_type.shape.dim
    assert [d.dim_value for d in dims[1:]] == [5, 3, 4]
    assert_equals_eager(module, model, rng)


def test_list_of_boxes(tmp_path: Path, run: Run, rng: np.random.Generator) -> None:
    module = ListOfBoxes().eval()
    boxes = [random_boxes(rng, n, 112, 160) for n in (4, 3)]
    path = export(
        module,
        (random_maps(rng, 2, 5, 14, 20), *boxes),
        tmp_path / "model.onnx",
        dynamo=False,
        input_names=["x", "boxes0", "boxes1"],
        dynamic_axes={"x": {2: "h", 3: "w"}, "boxes0": {0: "r0"}, "boxes1": {0: "r1"}},
    )
    checked_model(path, opset=18, nodes=["RoiAlign"])
    for counts in ((5, 8), (0, 2), (0, 0)):
        x = random_maps(rng, 2, 5, 9, 23)
        boxes = [random_boxes(rng, n, 72, 184) for n in counts]
        (actual,) = run(path, x.numpy(), *(b.numpy() for b in boxes)).values()
        np.testing.assert_allclose(actual, module(x, *boxes).numpy(), *FLOAT32)


def test_roi_pool_with_argmax(tmp_path: Path, run: Run, rng: np.random.Generator) -> None:
    module = RoiPoolWithArgmax().eval()
    x, rois = random_maps(rng, 2, 5, 14, 20), random_rois(rng, 6, 2, 112, 160)
    path = export(module, (x, rois), tmp_path / "model.onnx", dynamo=False)
    model = checked_model(path, opset=18, nodes=["RoiPool"])
    assert [o.type.tensor_type.elem_type for o in model.graph.output] == [
        onnx.TensorProto.FLOAT,
        onnx.TensorProto.INT32,
    ]
    for actual, expected in zip(
        run(path, x.numpy(), rois.numpy()).values(), module(x, rois), strict=True
    ):
        np.testing.assert_array_equal(actual, expected.numpy())


def test_half_precision_maps_keep_float32_boxes(
    tmp_path: Path, run: Run, rng: np.random.Generator
) -> None:
    module = FunctionalRoiAlign(2, True).eval()
    x, rois = random_maps(rng, 2, 5, 14, 20).half(), random_rois(rng, 6, 2, 112, 160).half()
    path = export(module, (x, rois), tmp_path / "model.onnx", dynamo=False)
    (actual,) = run(path, x.numpy(), rois.numpy()).values()
    # torchvision adds up in float16 on the CPU, so float32 of the same numbers is the truth.
    expected = module(x.float(), rois.float()).numpy()
    assert actual.dtype == np.float16
    np.testing.assert_allclose(actual, expected, *tolerances.KERNEL["float16"])


def test_multi_scale_with_two_images(tmp_path: Path, run: Run, rng: np.random.Generator) -> None:
    torch.manual_seed(2)
    module = TwoStage().eval()
    images = random_maps(rng, 2, 3, 64, 96)
    boxes = [random_boxes(rng, n, 64, 96) for n in (4, 3)]
    path = export(
        module,
        (images, *boxes),
        tmp_path / "model.onnx",
        dynamo=False,
        input_names=["images", "boxes0", "boxes1"],
        dynamic_axes={"boxes0": {0: "r0"}, "boxes1": {0: "r1"}},
    )
    checked_model(path, opset=18, nodes=BOX_HEAD)
    for counts in ((6, 9), (0, 2)):
        boxes = [random_boxes(rng, n, 64, 96) for n in counts]
        (actual,) = run(path, images.numpy(), *(b.numpy() for b in boxes)).values()
        with torch.no_grad():
            expected = module(images, *boxes).numpy()
        np.testing.assert_allclose(actual, expected, *FLOAT32)


def test_mobilenet_faster_rcnn(tmp_path: Path, rng: np.random.Generator) -> None:
    image = random_maps(rng, 3, 96, 128)
    module = mobilenet_faster_rcnn(image)
    path = export(
        module,
        ([image],),
        tmp_path / "model.onnx",
        dynamo=False,
        input_names=["image"],
        output_names=["boxes", "labels", "scores"],
        dynamic_axes={"image": {1: "height", 2: "width"}},
    )
    model = checked_model(path, opset=18, nodes=BOX_HEAD)
    for size in ((96, 128), (120, 100), (97, 301)):
        assert_same_detections(module, model, random_maps(rng, 3, *size))


def test_resizing_gives_the_size_of_eager_pytorch(
    tmp_path: Path, run: Run, rng: np.random.Generator
) -> None:
    module = ResizedImage().eval()
    path = export(
        module,
        (random_maps(rng, 3, 96, 128),),
        tmp_path / "model.onnx",
        dynamo=False,
        input_names=["image"],
        dynamic_axes={"image": {1: "height", 2: "width"}},
    )
    # The last three come out a pixel smaller where the scale factor is rounded to float32.
    for size in ((96, 128), (128, 96), (50, 200), (100, 200), (64, 200), (97, 301)):
        image = random_maps(rng, 3, *size)
        (actual,) = run(path, image.numpy()).values()
        np.testing.assert_allclose(actual, module(image).numpy(), *tolerances.RESIZED_IMAGE)


def test_mask_rcnn(tmp_path: Path, rng: np.random.Generator) -> None:
    module = tiny_mask_rcnn()
    image = random_maps(rng, 3, 64, 80)
    names = ["boxes", "labels", "scores", "masks"]
    path = export(module, ([image],), tmp_path / "m.onnx", dynamo=False, output_names=names)
    model = checked_model(path, opset=18, nodes=[*BOX_HEAD, *MASK_HEAD])
    assert_same_detections(module, model, image)
    assert run_on_kernels(model, image.numpy())["masks"].shape[1:] == (1, 64, 80)


def test_symbolics_by_hand(tmp_path: Path, rng: np.random.Generator) -> None:
    module = FunctionalRoiAlign(2, True).eval()
    example = (random_maps(rng, 1, 5, 14, 20), random_rois(rng, 3, 1, 112, 160))

    def exported_domain() -> str:
        path = tmp_path / "model.onnx"
        torch.onnx.export(module, example, str(path), dynamo=False, opset_version=16)
        return next(n.domain for n in onnx.load(path).graph.node if n.op_type == "RoiAlign")

    register_symbolics(16)
    register_symbolics(16)  # again: must not remember ours as what to restore
    assert exported_domain() == "ort_roialign"
    unregister_symbolics(16)
    assert exported_domain() == ""
    unregister_symbolics(16)  # again: must not remove torchvision's


def test_symbolics_are_restored_after_a_failure(tmp_path: Path) -> None:
    class Untraceable(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("no graph from here")

    with pytest.raises(ExportError, match=r"dynamo=False: RuntimeError: no graph from here"):
        export(Untraceable(), (torch.ones(1),), tmp_path / "model.onnx", dynamo=False)
    assert not list(tmp_path.iterdir())


def test_export_inside_registered_symbolics(tmp_path: Path, rng: np.random.Generator) -> None:
    # export() must not take away what its caller registered.
    register_symbolics(18)
    ours = _symbolics()
    example = (random_maps(rng, 1, 5, 14, 20), random_rois(rng, 3, 1, 112, 160))
    export(FunctionalRoiAlign(2, True).eval(), example, tmp_path / "model.onnx", dynamo=False)
    assert _symbolics() == ours
    unregister_symbolics(18)
