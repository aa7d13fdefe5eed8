"""Both exporters write every operator of the family, and the files give eager PyTorch's results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tolerances
import torch
from exported_files import (
    assert_runs_equal_eager,
    attributes,
    export_with_free_sizes,
    random_boxes,
    random_maps,
    random_rois,
    roi_nodes,
)
from family_models import ATTRIBUTES, family_inputs
from family_modules import Operator, PositionSensitive, Pyramid
from running import RUNS, Array, Run

from ort_roialign._signatures import OPERATORS
from ort_roialign.errors import ExportError
from ort_roialign.onnx_export import export

pytestmark = [
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:torch.*"),
]
FLOAT32 = tolerances.KERNEL["float32"]
BOTH_EXPORTERS = pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "torchscript"])
# Levels that the table leaves to the library: PyTorch's operators take numbers only.
LEVELS = {"min_level": 3, "max_level": 5}


def full_attributes(name: str) -> dict[str, Any]:
    """Return all attributes in the table's order."""
    given = {**OPERATORS[name].attributes, **ATTRIBUTES[name]}
    if OPERATORS[name].variadic:
        given |= LEVELS
    return given


def assert_attributes(node: onnx.NodeProto, expected: dict[str, Any]) -> None:
    written = attributes(node)
    assert set(written) == set(expected)
    for name, value in expected.items():
        as_float32 = np.float32(value) if isinstance(value, (float, list)) else value
        np.testing.assert_array_equal(written[name], as_float32, err_msg=name)


def tensors(arrays: list[Array]) -> list[torch.Tensor]:
    return [torch.from_numpy(array) for array in arrays]


def free_sizes(name: str, num_inputs: int) -> dict[str, dict[int, str]]:
    """Return the axes that may vary: the number of RoIs, and sizes and number of the maps."""
    signature = OPERATORS[name]
    kinds = list(signature.inputs)
    if signature.variadic:
        kinds += ["X"] * (num_inputs - len(kinds))
    free = {}
    for number, kind in enumerate(kinds[:num_inputs]):
        axes = {0: "num_rois"}
        if kind == "X":
            axes = {0: "images", 2: f"height_{number}", 3: f"width_{number}"}
        free[f"{kind}_{number}"] = axes
    return free


@BOTH_EXPORTERS
@pytest.mark.parametrize("name", list(OPERATORS))
def test_own_operator(name: str, dynamo: bool, tmp_path: Path, rng: np.random.Generator) -> None:
    module = Operator(name, full_attributes(name))
    example = tensors(family_inputs(name, rng, num_rois=5))
    path = export_with_free_sizes(
        module, tuple(example), free_sizes(name, len(example)), tmp_path / "m.onnx", dynamo
    )
    model = onnx.load(path)
    (node,) = roi_nodes(model)
    assert list(node.input) == [each.name for each in model.graph.input]
    assert_attributes(node, module.attributes)
    for num_rois in (None, 0):
        assert_runs_equal_eager(module, path, tensors(family_inputs(name, rng, num_rois=num_rois)))


@BOTH_EXPORTERS
@pytest.mark.parametrize("num_maps", [1, 2])
def test_number_of_maps(
    num_maps: int, dynamo: bool, tmp_path: Path, rng: np.random.Generator
) -> None:
    name = "MultiScaleRoiAlign"
    scales = {"spatial_scales": [0.125, 0.0625][:num_maps], "max_level": 2 + num_maps}
    module = Operator(name, {**full_attributes(name), **scales})
    example = tensors(family_inputs(name, rng, num_maps=num_maps))
    path = export_with_free_sizes(
        module, tuple(example), free_sizes(name, len(example)), tmp_path / "m.onnx", dynamo
    )
    (node,) = roi_nodes(onnx.load(path))
    assert len(node.input) == 2 + num_maps
    assert_runs_equal_eager(module, path, example)


@BOTH_EXPORTERS
def test_offset_left_out(dynamo: bool, tmp_path: Path, rng: np.random.Generator) -> None:
    name = "DeformRoiPool"
    module = Operator(name, full_attributes(name))
    example = tensors(family_inputs(name, rng, with_offset=False))
    path = export_with_free_sizes(
        module, tuple(example), free_sizes(name, 3), tmp_path / "m.onnx", dynamo
    )
    (node,) = roi_nodes(onnx.load(path))
    assert len(node.input) == 3
    assert_runs_equal_eager(module, path, example)


@BOTH_EXPORTERS
@pytest.mark.parametrize(
    ("name", "sampling_ratio"), [("ps_roi_align", -1), ("ps_roi_align", 2), ("ps_roi_pool", None)]
)
def test_torchvisions_position_sensitive(
    name: str,
    sampling_ratio: int | None,
    dynamo: bool,
    tmp_path: Path,
    rng: np.random.Generator,
) -> None:
    # 12 channels are 2 for each of 3 x 2 bins, and 3 for each of 2 x 2.
    module = PositionSensitive(name, sampling_ratio)

    def inputs(num_rois: int, height: int, width: int) -> list[torch.Tensor]:
        rois = random_rois(rng, num_rois, 1, 8 * height, 8 * width)
        boxes = random_boxes(rng, num_rois + 1, 4 * height, 4 * width)
        return [random_maps(rng, 1, 12, height, width), rois, boxes]

    free = {
        "x": {2: "height", 3: "width"},
        "rois": {0: "num_rois"},
        "boxes": {0: "num_boxes"},
    }
    example = tuple(inputs(6, 14, 20))
    path = export_with_free_sizes(module, example, free, tmp_path / "m.onnx", dynamo)
    nodes = roi_nodes(onnx.load(path))
    operator = {"ps_roi_align": "PsRoiAlign", "ps_roi_pool": "PsRoiPool"}[name]
    assert [node.op_type for node in nodes] == [operator] * 3
    for node in nodes:
        assert set(attributes(node)) == set(OPERATORS[operator].attributes)
    for sizes in ((6, 14, 20), (9, 11, 17), (0, 11, 17)):
        assert_runs_equal_eager(module, path, inputs(*sizes))


@BOTH_EXPORTERS
def test_channels_are_not_written_unasked(
    dynamo: bool, tmp_path: Path, rng: np.random.Generator
) -> None:
    class Pool(PositionSensitive):
        def forward(self, x: torch.Tensor, rois: torch.Tensor) -> Any:  # type: ignore[override]
            return self.pool(x, rois)

    example = (random_maps(rng, 1, 12, 14, 20), random_rois(rng, 6, 1, 112, 160))
    module = Pool("ps_roi_pool", None)
    path = export_with_free_sizes(
        module, example, {"x": {}, "rois": {0: "num_rois"}}, tmp_path / "m.onnx", dynamo
    )
    assert "Range" not in {node.op_type for node in onnx.load(path).graph.node}


@BOTH_EXPORTERS
def test_pyramid_with_a_list_of_boxes(
    dynamo: bool, tmp_path: Path, rng: np.random.Generator
) -> None:
    def inputs(*counts: int) -> list[torch.Tensor]:
        maps = [random_maps(rng, 2, 3, 14, 20), random_maps(rng, 2, 3, 7, 10)]
        return [*maps, *(random_boxes(rng, count, 112, 160) for count in counts)]

    free = {"fine": {}, "coarse": {}, "boxes0": {0: "n0"}, "boxes1": {0: "n1"}}
    path = export_with_free_sizes(Pyramid(), tuple(inputs(4, 3)), free, tmp_path / "m.onnx", dynamo)
    model = onnx.load(path)
    (node,) = roi_nodes(model)
    assert len(node.input) == 4
    assert sorted(function.name for function in model.functions) == [
        "MultiScaleRoiAlign",
        "RoiAlign",
    ]
    for counts in ((6, 9), (0, 2), (0, 0)):
        assert_runs_equal_eager(Pyramid(), path, inputs(*counts))


@BOTH_EXPORTERS
def test_half_precision_boxes_become_float32(
    dynamo: bool, run: Run, tmp_path: Path, rng: np.random.Generator
) -> None:
    name = "RoiAlignRotated"
    module = Operator(name, full_attributes(name))
    arrays = family_inputs(name, rng, map_type=np.float16, rois_type=np.float16)
    path = export_with_free_sizes(
        module, tuple(tensors(arrays)), free_sizes(name, 3), tmp_path / "m.onnx", dynamo
    )
    (actual,) = run(path, *arrays).values()
    expected = module(*tensors(arrays)).numpy()
    assert actual.dtype == np.float16
    np.testing.assert_allclose(actual, expected, *tolerances.KERNEL["float16"])


def test_output_size_known_only_at_run_time(tmp_path: Path, rng: np.random.Generator) -> None:
    class SizeFromData(torch.nn.Module):
        def forward(self, x: torch.Tensor, rois: torch.Tensor) -> Any:
            return torch.ops.torchvision.ps_roi_pool(x, rois, 0.125, x.shape[2], 3)[0]

    example = (random_maps(rng, 1, 42, 14, 20), random_rois(rng, 3, 1, 112, 160))
    with pytest.raises(ExportError, match="PsRoiPool: output_height must be a Python integer"):
        export(
            SizeFromData(),
            example,
            tmp_path / "m.onnx",
            dynamic_shapes=({2: torch.export.Dim.DYNAMIC}, None),
            verbose=False,
        )


def test_two_numbers_of_maps_need_the_plugin(tmp_path: Path, rng: np.random.Generator) -> None:
    name = "MultiScaleRoiAlign"
    given = full_attributes(name)

    class TwoPyramids(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.long = Operator(name, given)
            scales = {"spatial_scales": [0.125, 0.0625], "max_level": 4}
            self.short = Operator(name, {**given, **scales})

        def forward(self, rois: Any, images: Any, x0: Any, x1: Any, x2: Any) -> Any:
            return self.long(rois, images, x0, x1, x2), self.short(rois, images, x0, x1)

    example, path = tuple(tensors(family_inputs(name, rng))), tmp_path / "m.onnx"
    with pytest.raises(ExportError, match=r"MultiScaleRoiAlign .* 5 and 4; .* \(fallback=False\)"):
        export(TwoPyramids().eval(), example, path, dynamo=False)
    assert not list(tmp_path.iterdir())
    export(TwoPyramids().eval(), example, path, dynamo=False, fallback=False)
    actual = RUNS["kernels"](path, *(each.numpy() for each in example)).values()
    for one, other in zip(actual, TwoPyramids()(*example), strict=True):
        np.testing.assert_allclose(one, other.numpy(), *FLOAT32)
