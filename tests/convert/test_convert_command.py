"""`ort-roialign convert`: what it prints, its exit codes, and its comparison of the two files."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hand_made import POOLED_INPUTS, draw, model_of, roi_align_model
from onnx import helper
from typer.testing import CliRunner

from ort_roialign.cli.app import app
from ort_roialign.convert import convert_file
from ort_roialign.convert._verify import ABSOLUTE_TOLERANCE, compare_files, compare_outputs
from ort_roialign.errors import InvalidArgumentError, OrtRoiAlignError

# Wide enough that no cell is folded.
WIDE = {"COLUMNS": "250"}


def invoke(*arguments):
    return CliRunner().invoke(app, ["convert", *map(str, arguments)], env=WIDE)


def saved(path: Path, model: onnx.ModelProto) -> Path:
    onnx.save(model, path)
    return path


def test_tables_and_comparison(detector_file: Callable[..., Path], tmp_path):
    target = tmp_path / "out.onnx"
    result = invoke(detector_file("mask_rcnn", "torchscript"), target, "--verify")
    assert result.exit_code == 0, result.output
    rows = [line.split("│") for line in result.output.splitlines() if "│" in line]
    cells = [[cell.strip() for cell in row] for row in rows]
    assert ["pyramid of 2 maps", "MultiScaleRoiAlign", "2"] in [row[1:4] for row in cells]
    assert ["loop that pastes masks", "PasteMasks", "1"] in [row[1:4] for row in cells]
    compared = {row[1]: row[4] for row in cells if row[4:5] in (["same"], ["differs"])}
    assert compared == dict.fromkeys(("boxes", "labels", "scores", "masks"), "same")
    assert f"Wrote {target}" in result.output
    assert "PASSED" in result.output
    assert target.is_file()


def test_json(tmp_path):
    source = saved(tmp_path / "in.onnx", roi_align_model(16, mode="max"))
    result = invoke(source, tmp_path / "out.onnx", "--json", "--verify")
    facts = json.loads(result.output)
    assert facts["converted"]
    assert [each["operator"] for each in facts["replaced"]] == ["RoiAlign"]
    assert "largest weighted corner" in facts["warnings"][0]
    # The maximum means another thing now, and the comparison says so.
    (difference,) = facts["differences"]
    assert not difference["passed"]
    assert difference["largest"] > ABSOLUTE_TOLERANCE
    assert result.exit_code == 1


def test_a_difference_is_an_error(tmp_path):
    source = saved(tmp_path / "in.onnx", roi_align_model(11, 0.5 / 0.25, sampling_ratio=2))
    folded = invoke(source, tmp_path / "out.onnx", "--npz", inputs_file(tmp_path))
    assert folded.exit_code == 1
    assert "FAILED Not the same: y. The notes above" in folded.output
    assert "became half_pixel" in folded.output
    kept = invoke(source, tmp_path / "out.onnx", "--no-fold-shift", "--npz", inputs_file(tmp_path))
    assert kept.exit_code == 0, kept.output
    assert "PASSED" in kept.output


def inputs_file(directory: Path) -> Path:
    path = directory / "inputs.npz"
    np.savez(path, **draw(np.random.default_rng(2)))
    return path


def test_nothing_to_convert_is_said(tmp_path):
    relu = model_of([helper.make_node("Relu", ["x"], ["y"])], {"x": POOLED_INPUTS["x"]})
    result = invoke(saved(tmp_path / "in.onnx", relu), tmp_path / "out.onnx", "--verify")
    assert result.exit_code == 1
    assert "Nothing to convert" in result.output
    assert not (tmp_path / "out.onnx").exists()


def test_what_was_left_is_said(tmp_path):
    node = helper.make_node("MaxRoiPool", ["x", "rois"], ["y"], name="pool", pooled_shape=[3])
    model = model_of([node], {"x": POOLED_INPUTS["x"], "rois": (1, ("num_rois", 5))})
    result = invoke(saved(tmp_path / "in.onnx", model), tmp_path / "out.onnx")
    assert result.exit_code == 1
    assert "ai.onnx::MaxRoiPool" in result.output
    assert "pooled_shape must be height and width of 1 to 2147483647; got [3]" in result.output


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["missing.onnx", "out.onnx"], "source must be an ONNX file"),
        (["empty.onnx", "out.onnx"], "got one without a graph"),
        (["in.onnx", "."], "which is a directory"),
        (["in.onnx", "/proc/out.onnx"], "/proc"),
        (["in.onnx", "in.onnx"], "target must not be one of the source's files"),
        (["in.onnx", "out.onnx", "--npz", "in.onnx"], "--npz must be a file of arrays"),
        (["in.onnx", "out.onnx", "--npz", "other.npz"], "inputs must be the model's, ['images'"),
    ],
)
def test_errors_are_text(tmp_path, monkeypatch, arguments, text):
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "in.onnx", roi_align_model(16))
    np.savez(tmp_path / "other.npz", x=np.ones(3))
    (tmp_path / "empty.onnx").write_bytes(b"")
    result = invoke(*arguments)
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert text in result.output
    assert "Traceback" not in result.output


def test_the_original_runs_on_this_packages_kernels_and_it_is_said(tmp_path):
    source = saved(tmp_path / "in.onnx", roi_align_model(22))
    result = invoke(source, tmp_path / "out.onnx", "--verify")
    assert result.exit_code == 0
    assert "Note The original ran on this package's kernels for onnx, of which" in result.output


def test_nothing_found_proves_nothing(tmp_path):
    source = saved(tmp_path / "in.onnx", roi_align_model(16))
    path = tmp_path / "none.npz"
    feeds = draw(np.random.default_rng(2))
    np.savez(path, **{**feeds, "rois": feeds["rois"][:0], "images": feeds["images"][:0]})
    result = invoke(source, tmp_path / "out.onnx", "--npz", path)
    assert "EMPTY Both models find nothing" in result.output
    assert "PASSED" not in result.output


def test_inputs_are_cast_to_the_models_types(tmp_path):
    source = saved(tmp_path / "in.onnx", roi_align_model(16))
    feeds = draw(np.random.default_rng(2))
    wide = {**feeds, "x": feeds["x"].astype(np.float64), "images": feeds["images"].astype(np.int32)}
    assert compare_files(source, source, feeds=wide)[0].passed
    with pytest.raises(InvalidArgumentError, match=r"images is tensor\(int64\); got float32"):
        compare_files(source, source, feeds={**feeds, "images": feeds["images"].astype("f4")})


def test_the_report_is_printed_before_a_comparison_that_fails(tmp_path):
    source = saved(tmp_path / "in.onnx", roi_align_model(16))
    feeds = {**draw(np.random.default_rng(2)), "images": np.full(30, 9)}
    np.savez(tmp_path / "bad.npz", **feeds)
    result = invoke(source, tmp_path / "out.onnx", "--npz", tmp_path / "bad.npz")
    assert result.exit_code == 1
    assert result.output.index("Wrote") < result.output.index("does not run")


def test_what_is_converted_already_is_said(tmp_path):
    source = saved(tmp_path / "in.onnx", roi_align_model(16))
    convert_file(source, tmp_path / "out.onnx")
    result = invoke(tmp_path / "out.onnx", tmp_path / "again.onnx")
    assert result.exit_code == 1
    assert "the model has nodes of this package already: 1" in result.output


def test_original_without_kernels_is_compared_on_this_packages(tmp_path):
    source = saved(tmp_path / "in.onnx", roi_align_model(22, sampling_ratio=2))
    target = tmp_path / "out.onnx"
    convert_file(source, target)
    (difference,) = compare_files(source, target)
    assert difference.passed
    assert difference.shape[1:] == (3, 3, 4)


def test_one_seed_draws_the_same_boxes(tmp_path):
    source = saved(tmp_path / "in.onnx", roi_align_model(16, sampling_ratio=2))
    other = saved(tmp_path / "other.onnx", roi_align_model(16, sampling_ratio=3))
    first, again, another = (compare_files(source, other, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != another
    assert not first[0].passed


def test_a_file_that_does_not_run_is_told(tmp_path):
    source = saved(tmp_path / "in.onnx", roi_align_model(16))
    feeds = {**draw(np.random.default_rng(2)), "images": np.full(30, 9)}
    with pytest.raises(OrtRoiAlignError, match=r"verify: .*in.onnx does not run: .*batch_ind"):
        compare_files(source, source, feeds=feeds)


def test_inputs_that_cannot_be_drawn_are_told(tmp_path):
    text = helper.make_tensor_value_info("text", onnx.TensorProto.STRING, [1])
    model = roi_align_model(16)
    model.graph.input.append(text)
    source = saved(tmp_path / "in.onnx", model)
    with pytest.raises(InvalidArgumentError, match=r"text is tensor\(string\); give inputs of you"):
        compare_files(source, source)


def detections(rng: np.random.Generator) -> dict[str, np.ndarray]:
    corners = rng.uniform(0, 50, (9, 2))
    return {
        "boxes": np.concatenate([corners, corners + 20], axis=1).astype(np.float32),
        "labels": np.arange(9) % 3,
        "scores": np.linspace(0.9, 0.1, 9, dtype=np.float32),
        "masks": rng.random((9, 1, 5, 5), dtype=np.float32),
    }


def test_rows_may_swap(rng):
    expected = detections(rng)
    order = [1, 0, *range(2, 9)]
    actual = {name: value[order] for name, value in expected.items()}
    for difference in compare_outputs(expected, actual):
        assert difference.passed
        assert difference.largest == 0
        assert difference.note == "9 of 9 and 9 rows matched"


def test_small_values_are_compared_by_their_own_size():
    expected = {"y": np.array([1e-5, 2e-5]), "z": np.array([1e-2, 1e4])}
    assert all(each.passed for each in compare_outputs(expected, expected))
    actual = {"y": np.array([1e-5, 2.1e-5]), "z": np.array([2e-2, 1e4])}
    assert [each.passed for each in compare_outputs(expected, actual)] == [False, False]


@pytest.mark.parametrize("name", ["boxes", "scores", "masks", "labels"])
def test_a_changed_row_is_found(rng, name):
    expected = detections(rng)
    actual = {key: value.copy() for key, value in expected.items()}
    actual[name][4] += 3
    failed = {each.name for each in compare_outputs(expected, actual) if not each.passed}
    assert name in failed


def test_not_a_number_where_there_was_one_is_a_difference():
    ones, some = np.ones(3, np.float32), np.array([1, np.nan, 1], np.float32)
    assert compare_outputs({"y": some}, {"y": some})[0].passed
    assert not compare_outputs({"y": ones}, {"y": some})[0].passed
    assert not compare_outputs({"y": ones}, {"y": ones[:2]})[0].passed


def test_pytorch_is_not_needed(tmp_path):
    source = saved(tmp_path / "in.onnx", roi_align_model(16))
    program = (
        "import sys\n"
        "for name in ('torch', 'torchvision', 'onnxscript'): sys.modules[name] = None\n"
        "from ort_roialign.cli.app import main\n"
        "sys.argv = ['ort-roialign', 'convert', *sys.argv[1:], '--verify']\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, source, tmp_path / "out.onnx"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PASSED" in done.stdout


def test_a_missing_package_is_named(tmp_path):
    program = (
        "import sys\n"
        "sys.modules['onnx_ir'] = None\n"
        "sys.argv = ['ort-roialign', 'convert', 'in.onnx', 'out.onnx']\n"
        "from ort_roialign.cli.app import main\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 1
    assert "onnx_ir is not installed" in done.stderr
    assert "pip install '.[cpu,convert]'" in done.stderr
