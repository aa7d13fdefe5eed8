"""`ort-roialign demo --export` runs a whole detector, and fails when a result is not as said."""

from __future__ import annotations

import dataclasses
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import tolerances
import torch
from PIL import Image, ImageColor
from typer.testing import CliRunner

import ort_roialign
from ort_roialign.cli import export_demo, sessions
from ort_roialign.cli.app import app
from ort_roialign.cli.models import MOBILENET, build_detector
from ort_roialign.cli.photograph import load_photograph
from ort_roialign.cli.picture import COLOURS, save_picture
from ort_roialign.errors import OrtRoiAlignError

# Wide enough that no cell is folded.
WIDE = {"COLUMNS": "250"}
MODEL = "fasterrcnn_mobilenet_v3_large_320_fpn_torchscript.onnx"
PICTURE = "fasterrcnn_mobilenet_v3_large_320_fpn.png"
# The dynamo exporter takes most of a minute for this model; its results are checked elsewhere.
TORCHSCRIPT_ONLY = dataclasses.replace(MOBILENET, exporters=("torchscript",))


@pytest.fixture(scope="module", autouse=True)
def short_timing():
    """Time a single run or few: no test looks at how long they take."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(sessions, "LONGEST_TIMING_SECONDS", 0.2)
        yield


def invoke(output, *arguments):
    return CliRunner().invoke(
        app,
        ["demo", "--export", "--models", "mobilenet", "--output", str(output), *arguments],
        env=WIDE,
    )


def rows_of(text, first_cells):
    """Return the cells of the table rows that begin with one of `first_cells`."""
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines()]
    return [row for row in rows if row and row[0] in first_cells]


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    """One run of the demo: its result, its directory and what its costly steps returned."""
    folder = tmp_path_factory.mktemp("demo")
    recorded = {}

    def recording(step, key):
        def run(*arguments, **options):
            name = options.get("plugin", key)
            recorded[name] = step(*arguments, **options)
            return recorded[name]

        return run

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setitem(export_demo.SPECS, "mobilenet", TORCHSCRIPT_ONLY)
        for step in ("build_detector", "_run_eager", "run_session"):
            monkeypatch.setattr(export_demo, step, recording(getattr(export_demo, step), step))
        result = invoke(folder)
    return result, folder, recorded


@pytest.fixture
def replayed(monkeypatch, finished_run):
    """Let the demo take recorded results in place of its costly steps; a test may change them.

    The keys True and False are the sessions with and without the plugin.
    """
    results = dict(finished_run[2])
    monkeypatch.setitem(export_demo.SPECS, "mobilenet", TORCHSCRIPT_ONLY)
    monkeypatch.setattr(export_demo, "build_detector", lambda *_: results["build_detector"])
    monkeypatch.setattr(export_demo, "_run_eager", lambda *_: results["_run_eager"])
    monkeypatch.setattr(export_demo, "export_detector", lambda *_, **__: None)
    monkeypatch.setattr(export_demo, "run_session", lambda *_, plugin: results[plugin])
    return results


def test_the_demo_passes_and_writes_model_and_picture(finished_run):
    result, folder, _ = finished_run
    assert result.exit_code == 0, result.output
    assert "PASSED" in result.output
    assert "FAILED" not in result.output
    assert sorted(path.name for path in folder.iterdir()) == [PICTURE, MODEL]
    model = onnx.load(folder / MODEL)
    assert {n.op_type for n in model.graph.node if n.domain == "ort_roialign"} == {
        "MultiScaleRoiAlign"
    }
    photograph = load_photograph(None, sides=MOBILENET.exact_sides)
    with Image.open(folder / PICTURE) as picture:
        assert picture.size == (960, 640)
        drawn = np.asarray(picture).transpose(2, 0, 1) != (photograph * 255).numpy().round()
    assert 0.001 < drawn.any(axis=0).mean() < 0.5


def test_the_tables_show_kernels_times_and_differences(finished_run):
    result, _, recorded = finished_run
    ran = rows_of(result.output, ("Faster R-CNN", "torchscript", ""))
    assert ran[0][:3] == ["Faster R-CNN", "plugin", "1 x ort_roialign::MultiScaleRoiAlign (CPU)"]
    assert ran[1][:3] == ["torchscript", "built-in", "2 x ai.onnx::RoiAlign (CPU)"]
    assert ran[2][:3] == ["", "PyTorch", "-"]
    profile = recorded[True].profile
    assert 0 < profile.roi_share < 1
    assert ran[0][3] == f"{recorded[True].seconds * 1000:.0f}"
    assert ran[0][4] == f"{profile.roi_milliseconds:.0f} ({profile.roi_share:.0%})"
    assert ran[3][:4] == ["Faster R-CNN", "PyTorch", "100", "100"]
    assert ran[4][:4] == ["torchscript", "built-in", "100", "100"]
    assert [row[-1] for row in ran[3:]] == ["same", "same"]
    assert "Weights are random: boxes, labels and masks mean nothing." in result.output
    assert "Whole ms: without profiling. RoI ms (share): within a profiled run." in result.output
    assert "Allowed: box 1 px, score 0.002, mask 0.01" in result.output


def test_the_random_detections_are_worth_comparing(finished_run):
    outputs = finished_run[2][True].outputs
    sides = outputs["boxes"][:, 2:] - outputs["boxes"][:, :2]
    assert len(outputs["scores"]) == 100
    assert len(set(outputs["labels"])) >= 10
    assert len(set(outputs["scores"])) >= 95
    assert np.ptp(outputs["scores"]) > 0.3
    assert sides.min() > 1
    lower, upper = np.quantile(np.sqrt(sides.prod(axis=1)), [0.1, 0.9])
    assert upper > 3 * lower


def test_replaying_the_recorded_results_passes(replayed, tmp_path):
    assert invoke(tmp_path).exit_code == 0


def test_the_tables_fit_into_a_plain_terminal(replayed, tmp_path):
    slow = {plugin: dataclasses.replace(replayed[plugin], seconds=12.3) for plugin in (True, False)}
    replayed.update(slow)
    result = CliRunner().invoke(
        app,
        ["demo", "--export", "--models", "mobilenet", "--output", str(tmp_path)],
        env={"COLUMNS": "80"},
    )
    table = [line for line in result.output.splitlines() if "│" in line]
    assert any("12300" in line for line in table)
    assert "…" not in result.output
    assert max(len(line) for line in table) <= 80


@pytest.mark.parametrize(("output", "change"), [("boxes", 1.5), ("labels", 1), ("scores", -0.01)])
@pytest.mark.parametrize("row", [0, 50])
def test_one_wrong_detection_fails_the_demo(replayed, tmp_path, output, change, row):
    outputs = {name: value.copy() for name, value in replayed[True].outputs.items()}
    outputs[output][row] += np.asarray(change, outputs[output].dtype)
    replayed[True] = dataclasses.replace(replayed[True], outputs=outputs)
    result = invoke(tmp_path)
    assert result.exit_code == 1
    assert result.output.count("FAILED") == 2  # against PyTorch and against onnxruntime's own
    assert "PASSED" not in result.output
    assert [row[-1] for row in rows_of(result.output, ("Faster R-CNN",))][1] == "differ"


def test_a_lost_detection_fails_the_demo(replayed, tmp_path):
    outputs = {name: value[:-1] for name, value in replayed[True].outputs.items()}
    replayed[True] = dataclasses.replace(replayed[True], outputs=outputs)
    result = invoke(tmp_path)
    assert result.exit_code == 1
    assert "1 expected detections are missing" in result.output


def test_a_difference_that_is_not_the_plugins_is_told_apart(replayed, tmp_path):
    expected, timing = replayed["_run_eager"]
    moved = {**expected, "boxes": expected["boxes"] + np.float32(2)}
    replayed["_run_eager"] = (moved, timing)
    result = invoke(tmp_path)
    assert result.exit_code == 1
    assert "it is the exported model that differs from PyTorch" in result.output
    assert [row[-1] for row in rows_of(result.output, ("Faster R-CNN", "torchscript"))][2:] == [
        "differ",
        "same",
    ]


def test_too_few_detections_fail_the_demo(replayed, tmp_path):
    few = {name: value[:3] for name, value in replayed[True].outputs.items()}
    for plugin in (True, False):
        replayed[plugin] = dataclasses.replace(replayed[plugin], outputs=few)
    replayed["_run_eager"] = (few, replayed["_run_eager"][1])
    result = invoke(tmp_path)
    assert result.exit_code == 1
    assert "3 detections are too few to compare" in result.output


def test_the_demo_fails_if_the_plugins_kernels_did_not_run(monkeypatch, tmp_path):
    # Without the plugin the file still runs, by its fallback functions, and gives equal results.
    monkeypatch.setitem(export_demo.SPECS, "mobilenet", TORCHSCRIPT_ONLY)
    monkeypatch.setattr(ort_roialign._library, "register", lambda *_: None)
    result = invoke(tmp_path)
    assert result.exit_code == 1
    assert "plugin: no RoI kernel of ort_roialign ran" in result.output
    assert "plugin: RoI kernels of ai.onnx ran" in result.output
    assert [row[-1] for row in rows_of(result.output, ("Faster R-CNN", "torchscript"))][2:] == [
        "same",
        "same",
    ]


@pytest.mark.parametrize("missing", ["torch", "torchvision", "onnx", "onnxscript"])
def test_a_missing_extra_is_named(monkeypatch, tmp_path, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    result = invoke(tmp_path / "out")
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert missing in result.stderr
    assert "pip install '.[export]'" in result.stderr
    assert "Traceback" not in result.output
    assert not (tmp_path / "out").exists()


def test_several_missing_extras_are_named_together(monkeypatch, tmp_path):
    for name in ("onnxruntime", "sklearn"):
        monkeypatch.setitem(sys.modules, name, None)
    result = invoke(tmp_path)
    assert result.exit_code == 1
    assert "onnxruntime, scikit-learn" in result.stderr
    assert "in the directory of ort_roialign's sources" in result.stderr
    assert "pip install '.[cpu,export]'" in result.stderr


def test_a_missing_library_is_told_before_any_work(monkeypatch, tmp_path):
    monkeypatch.setenv("ORT_ROIALIGN_LIBRARY", str(tmp_path / "absent.so"))
    result = invoke(tmp_path / "out")
    assert result.exit_code == 1
    assert "absent.so" in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_provider_that_onnxruntime_lacks_is_told_before_any_work(monkeypatch, tmp_path):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    result = invoke(tmp_path / "out", "--provider", "cuda")
    assert result.exit_code == 1
    assert "has no CUDAExecutionProvider; it has CPUExecutionProvider" in result.stderr
    assert "pip install '.[gpu,export]'" in result.stderr
    assert not (tmp_path / "out").exists()


def test_files_that_are_no_image_or_no_weights_are_named(tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("neither image nor weights")
    result = invoke(tmp_path / "new" / "out", "--image", str(text))
    assert result.exit_code == 1
    assert f"cannot read the image {text}" in result.stderr
    result = invoke(tmp_path / "new" / "out", "--weights-mobilenet", str(text))
    assert result.exit_code == 1
    assert f"{text} is not a state dict of torchvision's fasterrcnn_mobilenet" in result.stderr
    assert "weights_only" not in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


CLASS_WEIGHTS = "roi_heads.box_predictor.cls_score.weight"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ((1, 2), "it holds an object of type tuple"),
        ({"model": 3}, "it holds an object of type int"),
        ({"conv1.weight": torch.zeros(1)}, f"it has no tensor {CLASS_WEIGHTS}"),
        ({CLASS_WEIGHTS: torch.zeros(5, 1024)}, "Missing key(s)"),
    ],
)
def test_weights_of_something_else_are_told_in_one_line(tmp_path, content, reason):
    file = tmp_path / "weights.pth"
    torch.save(content, file)
    with pytest.raises(OrtRoiAlignError) as raised:
        build_detector(MOBILENET, file, torch.zeros(3, 64, 64))
    start = f"{file} is not a state dict of torchvision's {MOBILENET.name}: "
    assert str(raised.value).startswith(start)
    assert reason in str(raised.value)
    assert len(str(raised.value)) <= len(start) + 200


def test_a_directory_that_cannot_be_made_is_named(tmp_path):
    file = tmp_path / "file"
    file.touch()
    result = invoke(file / "out")
    assert result.exit_code == 1
    assert f"cannot make the directory {file / 'out'}" in result.stderr


@pytest.mark.parametrize("opset", ["17", "22"])
def test_an_opset_that_cannot_be_compared_is_refused(tmp_path, opset):
    result = invoke(tmp_path / "out", "--opset", opset)
    assert result.exit_code == 2
    assert "opset" in result.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("brightness", [0.0, 0.5, 1.0])
def test_masks_blend_where_they_overlap(tmp_path, brightness):
    # The overlap has rows and columns 20 to 39, and no box or label comes near it.
    masks = np.zeros((2, 1, 60, 200), np.float32)
    masks[0, 0, 20:40, :40] = masks[1, 0, 20:, 20:60] = 1
    outputs = {
        "boxes": np.array([[180, 40, 190, 50]] * 2, np.float32),
        "labels": np.array([1, 2]),
        "scores": np.array([0.9, 0.8], np.float32),
        "masks": masks,
    }
    image = np.full((3, 60, 200), brightness, np.float32)
    save_picture(image, outputs, tmp_path / "picture.png", class_names=None)
    with Image.open(tmp_path / "picture.png") as picture:
        overlap = np.asarray(picture)[20:40, 20:40]
    best, second = (np.array(ImageColor.getrgb(colour)) for colour in COLOURS[:2])
    blended = (255 * brightness + second) / 2 / 2 + best / 2
    expected = np.broadcast_to(blended, overlap.shape)
    np.testing.assert_allclose(overlap, expected, *tolerances.BLENDED_COLOUR)


def test_given_weights_are_used(tmp_path):
    image = load_photograph(None, sides=MOBILENET.exact_sides)
    detector = build_detector(MOBILENET, None, image)
    file = tmp_path / "weights.pth"
    torch.save(detector.model.state_dict(), file)
    loaded = build_detector(MOBILENET, file, image)
    with torch.inference_mode():
        for expected, actual in zip(detector(image), loaded(image), strict=True):
            assert torch.equal(expected, actual)


def test_photographs_are_fitted_or_only_limited(tmp_path):
    assert load_photograph(None, sides=None).shape == (3, 427, 640)
    file = tmp_path / "portrait.png"
    Image.new("RGB", (900, 2666), (255, 0, 0)).save(file)
    assert load_photograph(file, sides=None).shape == (3, 1333, 450)
    fitted = load_photograph(file, sides=(400, 600))
    assert fitted.shape == (3, 600, 400)
    assert fitted.amax(dim=(1, 2)).tolist() == [1, 0, 0]
