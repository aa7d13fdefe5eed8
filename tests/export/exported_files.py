"""What every exported file must fulfil, and the inputs the export tests share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tolerances
import torch
from family_modules import Operator
from running import RUNS

from ort_roialign._signatures import SIGNATURES
from ort_roialign.cli.matching import match_detections
from ort_roialign.onnx_export import export
from ort_roialign.onnx_export._functions import FUNCTIONS

# Of a detector's heads.
BOX_HEAD = ("MultiScaleRoiAlign",)
MASK_HEAD = ("MultiScaleRoiAlign", "PasteMasks")


def roi_nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.domain == "ort_roialign"]


def attributes(node: onnx.NodeProto) -> dict[str, object]:
    values = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    return {name: v.decode() if isinstance(v, bytes) else v for name, v in values.items()}


def checked_model(
    path: Path, *, opset: int, nodes: Sequence[str], fallback: bool = True
) -> onnx.ModelProto:
    """Load an exported file with these operators and check what holds for all of them."""
    model = onnx.load(path)
    onnx.checker.check_model(model)
    assert {e.domain: e.version for e in model.opset_import} == {"": opset, "ort_roialign": 1}
    found = roi_nodes(model)
    assert sorted(node.op_type for node in found) == sorted(nodes)
    for node in found:
        assert set(attributes(node)) == set(SIGNATURES[node.op_type].attributes) - {"threshold"}
    # No RoI operator of the standard domain may be left beside ours.
    standard = {node.op_type for node in model.graph.node if node.domain == ""}
    assert not standard & {"RoiAlign", "MaxRoiPool"}
    functions = {(f.domain, f.name) for f in model.functions}
    names = set(nodes) | {called for name in nodes for called in FUNCTIONS[name].calls}
    assert functions == ({("ort_roialign", name) for name in names} if fallback else set())
    _assert_topological(model.graph)
    return model


def _assert_topological(graph: onnx.GraphProto) -> None:
    known = {"", *(i.name for i in graph.input), *(i.name for i in graph.initializer)}
    for node in graph.node:
        assert set(node.input) <= known, f"{node.name} comes before its inputs"
        known |= set(node.output)


def random_maps(rng: np.random.Generator, *shape: int) -> torch.Tensor:
    return torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))


def random_boxes(rng: np.random.Generator, count: int, height: int, width: int) -> torch.Tensor:
    """Return boxes [count, 4] in pixels, partly outside an image, with positive sides."""
    corner = rng.uniform(-0.2, 0.8, (count, 2)) * (width, height)
    size = rng.uniform(0.05, 0.6, (count, 2)) * (width, height)
    return torch.from_numpy(np.concatenate([corner, corner + size], 1).astype(np.float32))


def random_rois(
    rng: np.random.Generator, count: int, images: int, height: int, width: int
) -> torch.Tensor:
    """Return torchvision's rois [count, 5], the image first."""
    batch = torch.from_numpy(rng.integers(0, images, (count, 1)).astype(np.float32))
    return torch.cat([batch, random_boxes(rng, count, height, width)], 1)


FREE_MAP = {0: "images", 2: "height", 3: "width"}
FREE_SHAPES = {"x": FREE_MAP, "rois": {0: "num_rois"}}


def assert_equals_eager(
    module: torch.nn.Module, model: onnx.ModelProto, rng: np.random.Generator
) -> None:
    """Run with and without the plugin at sizes and numbers of RoIs other than the example's."""
    for images, height, width, num_rois in ((3, 17, 11, 9), (1, 14, 20, 0)):
        x = random_maps(rng, images, 5, height, width)
        rois = random_rois(rng, num_rois, images, 8 * height, 8 * width)
        with torch.no_grad():
            expected = module(x, rois).numpy()
        for name, run in RUNS.items():
            actual = run(model, x.numpy(), rois.numpy())["y"]
            np.testing.assert_allclose(
                actual, expected, *tolerances.KERNEL["float32"], err_msg=name
            )


def assert_same_detections(
    module: torch.nn.Module, model: onnx.ModelProto, image: torch.Tensor
) -> None:
    """Compare with and without the plugin.

    Near-equal scores may swap rows, so detections are matched, not rows.
    """
    with torch.no_grad():
        expected = {name: value.numpy() for name, value in module([image])[0].items()}
    assert len(expected["scores"]) > 5
    for name, run in RUNS.items():
        actual = run(model, image.numpy())
        matching = match_detections(expected, actual)
        most = max(len(expected["scores"]), len(actual["scores"]))
        assert len(matching.pairs) >= tolerances.SAME_DETECTIONS * most, f"{name}: {matching}"


def export_with_free_sizes(
    module: torch.nn.Module,
    example: tuple[torch.Tensor, ...],
    free: dict[str, dict[int, str]],
    path: Path,
    dynamo: bool,
    **options: Any,
) -> Path:
    """Export with axes that may vary: input name -> axis -> name, all inputs in order."""
    names = list(free)
    if not dynamo:
        options["dynamic_axes"] = free
    elif isinstance(module, Operator):
        options |= {"dynamic_shapes": (tuple(free.values()),), "verbose": False}
    else:
        options |= {"dynamic_shapes": tuple(free.values()), "verbose": False}
    return export(module.eval(), example, path, dynamo=dynamo, input_names=names, **options)


def assert_runs_equal_eager(
    module: torch.nn.Module,
    path: Path,
    inputs: Sequence[torch.Tensor],
    tolerance: tolerances.Tolerance = tolerances.KERNEL["float32"],
) -> None:
    """Run a file with and without the plugin, and compare all its outputs."""
    with torch.no_grad():
        expected = module(*inputs)
    expected = [expected] if isinstance(expected, torch.Tensor) else expected
    for name, run in RUNS.items():
        actual = list(run(path, *(each.numpy() for each in inputs)).values())
        for one, other in zip(actual, expected, strict=True):
            assert one.dtype == other.numpy().dtype
            np.testing.assert_allclose(one, other.numpy(), *tolerance, err_msg=name)
