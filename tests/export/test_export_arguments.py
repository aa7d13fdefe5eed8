"""export() rejects what cannot work, leaves nothing half-done, and passes options on."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from example_modules import FunctionalRoiAlign, TwoStage
from exported_files import checked_model, random_maps, random_rois
from running import run_without_plugin

from ort_roialign.errors import ExportError, InvalidArgumentError, MissingDependencyError
from ort_roialign.onnx_export import _dependencies, export, translation_table

MODULE = FunctionalRoiAlign(2, True).eval()


@pytest.fixture
def example(rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    return random_maps(rng, 1, 5, 14, 20), random_rois(rng, 3, 1, 112, 160)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"opset_version": 17}, "opset_version must be at least 18 with dynamo=True; got 17"),
        ({"opset_version": 15, "dynamo": False}, "at least 16 with dynamo=False; got 15"),
        ({"dynamic_axes": {}}, "dynamic_axes needs dynamo=False"),
        ({"dynamic_shapes": {}, "dynamo": False}, "dynamic_shapes needs dynamo=True"),
    ],
)
def test_options_that_do_not_fit(
    options: dict[str, Any], message: str, tmp_path: Path, example: Any
) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        export(MODULE, example, tmp_path / "model.onnx", **options)


def test_an_opset_that_the_exporter_cannot_write(tmp_path: Path, example: Any) -> None:
    # The dynamo exporter only warns, and writes what it has.
    with pytest.raises(ExportError, match="can write this module in; got 99, and it wrote 18"):
        export(MODULE, example, tmp_path / "model.onnx", opset_version=99, verbose=False)
    assert not list(tmp_path.iterdir())


def test_folder_must_exist(tmp_path: Path, example: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="directory that exists"):
        export(MODULE, example, tmp_path / "missing" / "model.onnx")


@pytest.mark.parametrize("dynamo", [True, False])
def test_an_older_file_survives_a_failure(dynamo: bool, tmp_path: Path) -> None:
    class Untraceable(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("no graph from here")

    path = tmp_path / "model.onnx"
    path.write_bytes(b"older")
    with pytest.raises(ExportError, match=f"Untraceable .* dynamo={dynamo}"):
        export(Untraceable().eval(), torch.ones(1), path, dynamo=dynamo)
    assert path.read_bytes() == b"older"
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]


def test_external_weights_move_with_the_file(tmp_path: Path, rng: np.random.Generator) -> None:
    class Heavy(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = torch.nn.Parameter(random_maps(rng, 1, 5, 14, 20))
            self.pool = MODULE

        def forward(self, x: torch.Tensor, rois: torch.Tensor) -> torch.Tensor:
            return self.pool(x + self.bias, rois)

    module, x = Heavy().eval(), random_maps(rng, 1, 5, 14, 20)
    rois = random_rois(rng, 3, 1, 112, 160)
    path = export(module, (x, rois), tmp_path / "m.onnx", external_data=True, verbose=False)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["m.onnx", "m.onnx.data"]
    checked_model(path, opset=18, nodes=["RoiAlign"])
    (actual,) = run_without_plugin(path, x.numpy(), rois.numpy()).values()
    with torch.no_grad():
        np.testing.assert_array_equal(actual, module(x, rois).numpy())


@pytest.mark.parametrize("dynamo", [True, False])
def test_module_is_left_as_it_was(dynamo: bool, tmp_path: Path, rng: np.random.Generator) -> None:
    module = TwoStage().eval()
    module.pool.train()  # one part of it, to see that each part gets its own mode back
    boxes = random_rois(rng, 6, 1, 64, 96)[:, 1:]
    args = (random_maps(rng, 2, 3, 64, 96), boxes[:4], boxes[4:])
    weights = {name: value.clone() for name, value in module.state_dict().items()}
    export(module, args, tmp_path / "model.onnx", dynamo=dynamo)
    assert module.pool.scales is None
    assert [m.training for m in module.modules()] == [m is module.pool for m in module.modules()]
    assert all(torch.equal(weights[name], value) for name, value in module.state_dict().items())


def test_the_users_translation_goes_first(tmp_path: Path, example: Any) -> None:
    calls = []
    target = torch.ops.torchvision.roi_align.default
    ours = translation_table()[target]

    def theirs(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        return ours(*args, **kwargs)

    export(MODULE, example, tmp_path / "m.onnx", custom_translation_table={target: theirs})
    assert len(calls) == 1


def test_keyword_inputs(tmp_path: Path, example: Any) -> None:
    x, rois = example
    path = export(MODULE, (x,), tmp_path / "m.onnx", kwargs={"rois": rois}, verbose=False)
    assert [i.name for i in onnx.load(path).graph.input] == ["x", "rois"]


def test_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_torchvision(name: str) -> Any:
        if name == "torchvision":
            raise ModuleNotFoundError("No module named 'torchvision'", name=name)
        return importlib.__import__(name)

    monkeypatch.setattr(importlib, "import_module", without_torchvision)
    with pytest.raises(MissingDependencyError, match=r"torchvision is not .*'\.\[export\]'"):
        _dependencies.require_export_dependencies()


def test_importing_the_package_imports_no_exporter() -> None:
    code = "import ort_roialign, sys; assert not {'torch', 'onnx', 'onnxscript'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
