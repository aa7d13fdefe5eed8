"""`ort-roialign compare`: outputs, nodes and time of a model before and after its conversion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from typer.testing import CliRunner

from ort_roialign.cli.app import app

WIDE = {"COLUMNS": "200"}
BOXES = np.array([[2, 3, 40, 50], [10, 0, 30, 20], [0, 0, 63, 40]], np.float32)


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["compare", *map(str, arguments)], env=WIDE)


def save_detector(
    path: Path, *, opset: int = 16, operator: str = "RoiAlign", shape: Sequence[Any] = (3, "h", "w")
) -> Path:
    """Save a model of an image whose boxes are constants: Conv, Relu, and one operator of RoIs."""
    rng = np.random.default_rng(5)
    constants: dict[str, Any] = {
        "weights": rng.standard_normal((4, 3, 3, 3)).astype(np.float32),
        "rois": BOXES,
        "images": np.zeros(3, np.int64),
        "axis": np.array([0]),
    }
    size: dict[str, Any] = {"output_height": 3, "output_width": 4}
    given, domain, inputs = size, "", ["features", "rois", "images"]
    if operator == "MMCVRoiAlign":
        constants["rois"] = np.concatenate([np.zeros((3, 1), np.float32), BOXES], axis=1)
        given, domain, inputs = {**size, "aligned": 1}, "mmcv", ["features", "rois"]
    batch = ["image"] if len(shape) == 4 else ["batch"]
    nodes = [
        helper.make_node("Conv", [*batch, "weights"], ["raw"], name="conv", pads=[1] * 4),
        helper.make_node("Relu", ["raw"], ["features"], name="relu"),
        helper.make_node(operator, inputs, ["pooled"], name="pool", domain=domain, **given),
    ]
    if len(shape) == 3:
        nodes.insert(0, helper.make_node("Unsqueeze", ["image", "axis"], ["batch"], name="first"))
    graph = helper.make_graph(
        nodes,
        "detector",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("pooled", TensorProto.FLOAT, None)],
        initializer=[numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    imports = [
        helper.make_opsetid("", opset),
        *([helper.make_opsetid(domain, 1)] if domain else []),
    ]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=9), path)
    return path


@pytest.fixture
def photograph(tmp_path: Path, rng: np.random.Generator) -> Path:
    path = tmp_path / "photograph.png"
    Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(path)
    return path


def assert_picture(path: Path) -> None:
    with Image.open(path) as picture:
        assert picture.size[0] == 1500
        colours = np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)
    assert len(colours) > 4


def rows(output: str) -> dict[str, list[str]]:
    """Return the tables' rows by their first cell."""
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in output.splitlines()]
    return {row[0]: row[1:] for row in cells if row}


@pytest.mark.parametrize("inputs", ["random", "image", "npz"])
def test_a_model_before_and_after(
    tmp_path: Path, photograph: Path, rng: np.random.Generator, inputs: str
) -> None:
    model, picture = save_detector(tmp_path / "model.onnx"), tmp_path / "time.png"
    before = model.read_bytes()
    np.savez(tmp_path / "inputs.npz", image=rng.random((3, 50, 70), dtype=np.float32))
    given = {"image": ["--image", photograph], "npz": ["--npz", tmp_path / "inputs.npz"]}
    result = invoke(model, "--picture", picture, *given.get(inputs, []))
    assert result.exit_code == 0, result.output
    found = rows(result.output)
    assert found["RoiAlign"][0] == "1"
    assert found["RoiAlign"][2:] == ["-", "-"]
    assert found["ort_roialign::RoiAlign"][:2] == ["-", "-"]
    assert found["ort_roialign::RoiAlign"][2] == "1"
    assert float(found["ort_roialign::RoiAlign"][3]) >= 0
    assert found["Whole run; nodes of the file"][::2] == ["4", "4"]
    assert found["pooled"][0] == "[3, 4, 3, 4]"
    assert found["pooled"][2] == "same"
    assert "PASSED" in result.output
    assert_picture(picture)
    assert model.read_bytes() == before


def test_nodes_without_names(tmp_path: Path) -> None:
    """Onnxruntime's profile names them by their operators; those of an If count as the If."""
    path = save_detector(tmp_path / "model.onnx")
    model = onnx.load(path)
    for node in model.graph.node:
        node.name = ""
    last = model.graph.node[-1]
    pooled = helper.make_tensor_value_info("branch", onnx.TensorProto.FLOAT, None)
    branch = helper.make_graph(
        [helper.make_node("Relu", [last.output[0]], ["branch"])], "b", [], [pooled]
    )
    # Not a constant for onnxruntime to choose a branch by.
    model.graph.node.extend([
        helper.make_node("ReduceMax", [last.output[0]], ["largest"], keepdims=0),
        helper.make_node("IsNaN", ["largest"], ["is_nan"]),
        helper.make_node(
            "If", ["is_nan"], ["chosen"], then_branch=branch, else_branch=branch
        ),
    ])  # fmt: skip
    model.graph.output.append(helper.make_tensor_value_info("chosen", onnx.TensorProto.FLOAT, None))
    onnx.save(model, path)
    result = invoke(path, "--picture", tmp_path / "time.png")
    assert result.exit_code == 0, result.output
    found = rows(result.output)
    assert found["RoiAlign"][0] == found["ort_roialign::RoiAlign"][2] == "1"
    assert found["If"][::2] == ["1", "1"]
    assert "Relu" not in found
    assert_picture(tmp_path / "time.png")


@pytest.mark.parametrize(("opset", "operator"), [(22, "RoiAlign"), (16, "MMCVRoiAlign")])
def test_a_model_that_onnxruntime_cannot_run(tmp_path: Path, opset: int, operator: str) -> None:
    model = save_detector(tmp_path / "model.onnx", opset=opset, operator=operator)
    result = invoke(model, "--picture", tmp_path / "time.png")
    assert result.exit_code == 0, result.output
    assert "onnxruntime cannot run it" in " ".join(result.output.split())
    assert rows(result.output)["pooled"][2] == "same"


def test_the_picture_is_named_after_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = save_detector(tmp_path / "some.onnx")
    monkeypatch.chdir(tmp_path)
    assert invoke(model).exit_code == 0
    assert_picture(tmp_path / "some_time.png")


def test_nothing_to_convert(tmp_path: Path) -> None:
    model = save_detector(tmp_path / "model.onnx")
    proto = onnx.load(model)
    del proto.graph.node[-1]
    proto.graph.output[0].name = "features"
    onnx.save(proto, model)
    result = invoke(model, "--picture", tmp_path / "time.png")
    assert result.exit_code == 1
    assert "Nothing to convert" in result.output
    assert not (tmp_path / "time.png").exists()


def test_an_output_that_differs_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ort_roialign.cli import compare

    run = compare.run_model

    def wrong(*arguments: Any, plugin: bool, **options: Any) -> Any:
        result = run(*arguments, plugin=plugin, **options)
        if plugin:
            result.outputs["pooled"] = result.outputs["pooled"] + 1
        return result

    monkeypatch.setattr(compare, "run_model", wrong)
    result = invoke(save_detector(tmp_path / "model.onnx"), "--picture", tmp_path / "time.png")
    assert result.exit_code == 1
    assert "FAILED Not the same: pooled." in result.output


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (("n", "c", "h", "w"), "--image must go with a model of one input, float [3, H, W] or [N,"),
        (("h", "w", 3), "--image must go with a model of one input, float [3, H, W] or [N,"),
    ],
)
def test_models_that_take_no_image(
    tmp_path: Path, photograph: Path, shape: Sequence[Any], message: str
) -> None:
    model = save_detector(tmp_path / "model.onnx", shape=shape)
    result = invoke(model, "--image", photograph, "--picture", tmp_path / "time.png")
    assert result.exit_code == 1
    assert message in " ".join(result.output.split())


def test_images_fit_the_models_size(tmp_path: Path, photograph: Path) -> None:
    model = save_detector(tmp_path / "model.onnx", shape=(2, 3, 48, 64))
    result = invoke(model, "--image", photograph, "--picture", tmp_path / "time.png")
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--image", "PHOTO", "--npz", "PHOTO"], "inputs must be --image or --npz; got both"),
        (["--image", "TEXT"], "cannot read the image"),
        (["--npz", "TEXT"], "--npz must be a file of arrays that numpy.savez wrote; got"),
        (["--npz", "OTHER"], "the given inputs must be the model's, ['image']; got ['x']"),
        (["--picture", "nowhere/time.png"], "compare: --picture must be a file in a directory"),
        (["--picture", "time.onnx"], "compare: --picture must end in .png"),
        (["--library", "TEXT"], "libraries must be such that onnxruntime can load"),
    ],
)
def test_bad_options(tmp_path: Path, photograph: Path, options: list[str], message: str) -> None:
    (tmp_path / "text").write_text("no image")
    np.savez(tmp_path / "other.npz", x=np.ones(3))
    places: Mapping[str, object] = {
        "PHOTO": photograph,
        "TEXT": tmp_path / "text",
        "OTHER": tmp_path / "other.npz",
    }
    model = save_detector(tmp_path / "model.onnx")
    result = invoke(model, *(places.get(option, option) for option in options))
    assert result.exit_code == 1
    assert message in " ".join(result.output.split())
