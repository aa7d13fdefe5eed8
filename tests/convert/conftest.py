"""Models as PyTorch's exporters write them, without this package; exported once a run."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from stock_export import stock_export

EXPORTERS = ("torchscript", "dynamo")


def _free_rows(exporter: str, names: list[str], num_rows: int) -> dict[str, Any]:
    """Return the options that let the first inputs have any number of rows."""
    import torch

    if exporter == "torchscript":
        return {"dynamic_axes": {name: {0: f"rows_{name}"} for name in names[:num_rows]}}
    free = [{0: torch.export.Dim.DYNAMIC}] * num_rows
    return {"dynamic_shapes": (tuple(free + [None] * (len(names) - num_rows)),)}


def _free_everything(names: list[str]) -> dict[str, Any]:
    """Return TorchScript's options that let maps be of any number and size, too."""
    maps = {0: "images", 2: "height", 3: "width"}
    axes = {name: maps if name.startswith("x") else {0: "rows"} for name in names}
    named = {n: {axis: f"{what}_{n}" for axis, what in each.items()} for n, each in axes.items()}
    return {"dynamic_axes": named}


@pytest.fixture(scope="session")
def pooler_file(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function that exports a pooler of `pyramid_modules`."""
    pyramid_modules = pytest.importorskip("pyramid_modules", exc_type=ImportError)
    import torch

    directory = tmp_path_factory.mktemp("poolers")

    @cache
    def export(
        kind: str,
        exporter: str,
        num_maps: int = 2,
        free: bool = True,
        *,
        free_maps: bool = False,
        folded: bool = True,
    ) -> Path:
        rng = torch.Generator().manual_seed(3)
        # Of a level with a single box the TorchScript exporter writes down that it is one.
        boxes = [pyramid_modules.random_boxes(rng, 60), pyramid_modules.random_boxes(rng, 14)]
        if kind == "torchvision":
            module: Any = pyramid_modules.TorchvisionPooler(num_maps, 2)
        elif kind == "torchvision_one_image":
            module, boxes = pyramid_modules.TorchvisionPooler(num_maps, 1), boxes[:1]
        elif kind.startswith("detectron2"):
            repeats = kind == "detectron2_repeat"
            module = pyramid_modules.Detectron2Pooler(num_maps, repeat_images=repeats)
        else:
            module = pyramid_modules.MmdetPooler(
                num_maps, masked=kind == "mmdet_masked", in_front=kind == "mmdeploy"
            )
            boxes = [pyramid_modules.with_images(rng, boxes[0], 2)]
        images = 1 if kind == "torchvision_one_image" else 2
        maps = pyramid_modules.random_maps(rng, num_maps, images)
        names = [f"boxes{n}" for n in range(len(boxes))] + [f"x{n}" for n in range(num_maps)]
        options: dict[str, Any] = {"input_names": names, "output_names": ["y"]}
        if free:
            options |= _free_rows(exporter, names, len(boxes))
        if kind.startswith("detectron2") and exporter == "dynamo" and free:
            free_row = {0: torch.export.Dim.DYNAMIC}
            options["dynamic_shapes"] = (free_row, free_row, (None,) * num_maps)
        elif kind.startswith("mmd") and exporter == "dynamo" and free:
            options["dynamic_shapes"] = ({0: torch.export.Dim.DYNAMIC}, (None,) * num_maps)
        if free_maps:
            options |= _free_everything(names)
        if not folded:
            options["do_constant_folding"] = False
        path = directory / f"{kind}_{exporter}_{num_maps}_{free}_{free_maps}_{folded}.onnx"
        return stock_export(module, (*boxes, *maps), path, exporter, **options)

    return export


@pytest.fixture(scope="session")
def detector_file(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function that exports a small detector of torchvision."""
    pytest.importorskip("torchvision")
    import torch

    from export import example_modules

    directory = tmp_path_factory.mktemp("detectors")

    class Named(torch.nn.Module):
        """A detector of one image with its outputs in a fixed order."""

        def __init__(self, detector: torch.nn.Module, names: tuple[str, ...]) -> None:
            super().__init__()
            self.detector, self.names = detector, names

        def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
            result = self.detector([image])[0]
            return tuple(result[name] for name in self.names)

    @cache
    def export(name: str, exporter: str, free: bool = True, *, folded: bool = True) -> Path:
        image = torch.rand((3, 96, 128), generator=torch.Generator().manual_seed(4))
        builders = {
            "mobilenet": lambda: example_modules.mobilenet_faster_rcnn(image),
            "faster_rcnn": example_modules.tiny_faster_rcnn,
            "mask_rcnn": example_modules.tiny_mask_rcnn,
            "keypoint_rcnn": example_modules.tiny_keypoint_rcnn,
        }
        more = {"mask_rcnn": ("masks",), "keypoint_rcnn": ("keypoints", "keypoints_scores")}
        names = ("boxes", "labels", "scores", *more.get(name, ()))
        module = Named(builders[name](), names).eval()
        options: dict[str, Any] = {"input_names": ["image"], "output_names": list(names)}
        if exporter == "torchscript" and free:
            options["dynamic_axes"] = {"image": {1: "height", 2: "width"}}
        if not folded:
            options["do_constant_folding"] = False
        path = directory / f"{name}_{exporter}_{free}_{folded}.onnx"
        return stock_export(module, (image,), path, exporter, **options)

    return export
