"""Files of the torch.export-based exporter give eager PyTorch's results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tolerances
import torch
import torchvision
from example_modules import (
    FunctionalRoiAlign,
    ListOfBoxes,
    ResizedImage,
    RoiPoolWithArgmax,
    ScoredBoxes,
    TwoStage,
    mobilenet_faster_rcnn,
)
from exported_files import (
    BOX_HEAD,
    FREE_SHAPES,
    assert_equals_eager,
    assert_same_detections,
    attributes,
    checked_model,
    random_boxes,
    random_maps,
    random_rois,
)
from running import Run, run_without_plugin
from torch.export import Dim

from ort_roialign.errors import ExportError
from ort_roialign.onnx_export import add_fallback, export, translation_table

FLOAT32 = tolerances.KERNEL["float32"]


def quiet_export(module: torch.nn.Module, args: Any, path: Path, **options: Any) -> Path:
    return export(module.eval(), args, path, verbose=False, **options)


@pytest.mark.parametrize("opset", [18, 20, 22])
@pytest.mark.parametrize(("sampling_ratio", "aligned"), [(-1, True), (0, False), (2, True)])
def test_roi_align(
    opset: int,
    sampling_ratio: int,
    aligned: bool,
    tmp_path: Path,
    rng: np.random.Generator,
) -> None:
    module = FunctionalRoiAlign(sampling_ratio, aligned)
    example = (random_maps(rng, 2, 5, 14, 20), random_rois(rng, 6, 2, 112, 160))
    path = quiet_export(
        module,
        example,
        tmp_path / "model.onnx",
        opset_version=opset,
        input_names=["x", "rois"],
        output_names=["y"],
        dynamic_shapes=FREE_SHAPES,
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
    assert_equals_eager(module, model, rng)


def test_list_of_boxes(tmp_path: Path, run: Run, rng: np.random.Generator) -> None:
    module = ListOfBoxes()
    boxes = [random_boxes(rng, n, 112, 160) for n in (4, 3)]
    path = quiet_export(
        module,
        (random_maps(rng, 2, 5, 14, 20), *boxes),
        tmp_path / "model.onnx",
        dynamic_shapes=({2: Dim.DYNAMIC, 3: Dim.DYNAMIC}, {0: Dim.DYNAMIC}, {0: Dim.DYNAMIC}),
    )
    checked_model(path, opset=18, nodes=["RoiAlign"])
    for counts in ((5, 8), (0, 2), (0, 0)):
        x = random_maps(rng, 2, 5, 9, 23)
        boxes = [random_boxes(rng, n, 72, 184) for n in counts]
        (actual,) = run(path, x.numpy(), *(b.numpy() for b in boxes)).values()
        np.testing.assert_allclose(actual, module(x, *boxes).numpy(), *FLOAT32)


def test_roi_pool_with_argmax(tmp_path: Path, run: Run, rng: np.random.Generator) -> None:
    module = RoiPoolWithArgmax()
    example = (random_maps(rng, 2, 5, 14, 20), random_rois(rng, 6, 2, 112, 160))
    path = quiet_export(module, example, tmp_path / "m.onnx", dynamic_shapes=FREE_SHAPES)
    model = checked_model(path, opset=18, nodes=["RoiPool"])
    assert [o.type.tensor_type.elem_type for o in model.graph.output] == [
        onnx.TensorProto.FLOAT,
        onnx.TensorProto.INT32,
    ]
    x, rois = random_maps(rng, 1, 5, 10, 12), random_rois(rng, 7, 1, 80, 96)
    for actual, expected in zip(
        run(path, x.numpy(), rois.numpy()).values(), module(x, rois), strict=True
    ):
        np.testing.assert_array_equal(actual, expected.numpy())


def test_half_precision_maps_keep_float32_boxes(
    tmp_path: Path, run: Run, rng: np.random.Generator
) -> None:
    module = FunctionalRoiAlign(2, True)
    x, rois = random_maps(rng, 2, 5, 14, 20).half(), random_rois(rng, 6, 2, 112, 160).half()
    path = quiet_export(module, (x, rois), tmp_path / "model.onnx")
    model = checked_model(path, opset=18, nodes=["RoiAlign"])
    (node,) = (n for n in model.graph.node if n.domain == "ort_roialign")
    (cast,) = (n for n in model.graph.node if node.input[1] in n.output)
    assert attributes(cast)["to"] == onnx.TensorProto.FLOAT
    (actual,) = run(path, x.numpy(), rois.numpy()).values()
    # torchvision adds up in float16 on the CPU, so float32 of the same numbers is the truth.
    expected = module(x.float(), rois.float()).numpy()
    assert actual.dtype == np.float16
    np.testing.assert_allclose(actual, expected, *tolerances.KERNEL["float16"])


def test_multi_scale_with_two_images(tmp_path: Path, run: Run, rng: np.random.Generator) -> None:
    torch.manual_seed(2)
    module = TwoStage().eval()
    boxes = [random_boxes(rng, n, 64, 96) for n in (4, 3)]
    path = quiet_export(
        module,
        (random_maps(rng, 2, 3, 64, 96), *boxes),
        tmp_path / "model.onnx",
        dynamic_shapes=(None, {0: Dim.DYNAMIC}, {0: Dim.DYNAMIC}),
    )
    checked_model(path, opset=18, nodes=BOX_HEAD)
    assert module.pool.scales is None
    assert module.pool.map_levels is None
    for counts in ((6, 9), (0, 2), (0, 0)):
        images = random_maps(rng, 2, 3, 64, 96)
        boxes = [random_boxes(rng, n, 64, 96) for n in counts]
        (actual,) = run(path, images.numpy(), *(b.numpy() for b in boxes)).values()
        with torch.no_grad():
            expected = module(images, *boxes).numpy()
        module.pool.scales = module.pool.map_levels = None
        np.testing.assert_allclose(actual, expected, *FLOAT32)


def test_number_of_rois_is_not_baked_in(tmp_path: Path, run: Run, rng: np.random.Generator) -> None:
    # The number of boxes depends on values, so the example's number must not become a constant.
    torch.manual_seed(3)
    module = ScoredBoxes().eval()
    images, boxes = random_maps(rng, 2, 3, 64, 96), random_boxes(rng, 10, 64, 96)
    example = (images, boxes, random_maps(rng, 10))
    path = quiet_export(module, example, tmp_path / "model.onnx")
    checked_model(path, opset=18, nodes=BOX_HEAD)
    for scores in (random_maps(rng, 10), torch.ones(10), torch.zeros(10)):
        inputs = (images, boxes, scores)
        (actual,) = run(path, *(i.numpy() for i in inputs)).values()
        with torch.no_grad():
            expected = module(*inputs).numpy()
        np.testing.assert_allclose(actual, expected, *FLOAT32)


def test_resizing_is_not_baked_in(tmp_path: Path, rng: np.random.Generator) -> None:
    # Each size is bound by the other limit, or rounds up to another multiple of 32, than (96, 128);
    # the last two come out a pixel smaller where the scale factor is rounded to float32.
    module = ResizedImage().eval()
    path = quiet_export(
        module,
        (random_maps(rng, 3, 96, 128),),
        tmp_path / "model.onnx",
        dynamic_shapes=({1: "height", 2: "width"},),
    )
    for size in ((96, 128), (128, 96), (80, 140), (200, 100), (50, 200), (64, 200), (97, 301)):
        image = random_maps(rng, 3, *size)
        (actual,) = run_without_plugin(path, image.numpy()).values()
        np.testing.assert_allclose(actual, module(image).numpy(), *tolerances.RESIZED_IMAGE)


def test_mobilenet_faster_rcnn(tmp_path: Path, rng: np.random.Generator) -> None:
    image = random_maps(rng, 3, 96, 128)
    module = mobilenet_faster_rcnn(image)
    path = quiet_export(
        module, ([image],), tmp_path / "m.onnx", output_names=["boxes", "labels", "scores"]
    )
    model = checked_model(path, opset=18, nodes=BOX_HEAD)
    for picture in (image, random_maps(rng, 3, 96, 128)):
        assert_same_detections(module, model, picture)


def test_without_fallback(tmp_path: Path, rng: np.random.Generator) -> None:
    example = (random_maps(rng, 1, 5, 14, 20), random_rois(rng, 3, 1, 112, 160))
    path = quiet_export(FunctionalRoiAlign(2, True), example, tmp_path / "m.onnx", fallback=False)
    checked_model(path, opset=18, nodes=["RoiAlign"], fallback=False)


def test_translation_table_alone(tmp_path: Path, rng: np.random.Generator) -> None:
    module = FunctionalRoiAlign(2, False).eval()
    x, rois = random_maps(rng, 1, 5, 14, 20), random_rois(rng, 3, 1, 112, 160)
    program = torch.onnx.export(
        module, (x, rois), dynamo=True, custom_translation_table=translation_table(), verbose=False
    )
    model = add_fallback(program.model_proto)
    (actual,) = run_without_plugin(model, x.numpy(), rois.numpy()).values()
    np.testing.assert_allclose(actual, module(x, rois).numpy(), *FLOAT32)


def test_output_size_known_only_at_run_time(tmp_path: Path, rng: np.random.Generator) -> None:
    class SizeFromData(torch.nn.Module):
        def forward(self, x: torch.Tensor, rois: torch.Tensor) -> torch.Tensor:
            return torchvision.ops.roi_align(x, rois, (x.shape[2], 3), 0.125)

    example = (random_maps(rng, 1, 5, 14, 20), random_rois(rng, 3, 1, 112, 160))
    with pytest.raises(ExportError) as caught:
        quiet_export(
            SizeFromData(), example, tmp_path / "m.onnx", dynamic_shapes=({2: Dim.DYNAMIC}, None)
        )
    assert "output_height must be a Python integer" in str(caught.value)
