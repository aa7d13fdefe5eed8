"""`ort-roialign demo` finds the digits, without PyTorch, and says when something is not as said."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
from PIL import Image
from typer.testing import CliRunner

from ort_roialign.cli import demo, sessions
from ort_roialign.cli.app import app

WIDE = {"COLUMNS": "250"}
PICTURE = "digits_detections.png"


@pytest.fixture(autouse=True)
def short_timing(monkeypatch):
    """Time few runs: no test looks at how long they take."""
    monkeypatch.setattr(sessions, "LONGEST_TIMING_SECONDS", 0.05)


def invoke(output, *arguments):
    return CliRunner().invoke(
        app, ["demo", "--output", str(output), *map(str, arguments)], env=WIDE
    )


def rows_of(text):
    """The cells of the table's rows."""
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines()]
    return [row for row in rows if row]


def test_the_digits_are_found_and_drawn(tmp_path):
    result = invoke(tmp_path / "new" / "out")
    assert result.exit_code == 0, result.output
    assert "PASSED" in result.output
    assert "ms with the plugin" in result.output
    rows = rows_of(result.output)
    assert len(rows) >= 8
    with Image.open(demo.IMAGE) as image, Image.open(tmp_path / "new" / "out" / PICTURE) as picture:
        assert picture.size == (image.width * 3, image.height * 3)
        before = np.asarray(image.convert("RGB")).repeat(3, axis=0).repeat(3, axis=1)
        changed = (np.asarray(picture) != before).any(axis=2)
    assert 0.02 < changed.mean() < 0.5
    for _, _, *edges, mask_px in rows:
        x1, y1, x2, y2 = (round(float(edge) * 3) for edge in edges)
        inside = changed[max(y1, 0) : y2, max(x1, 0) : x2]
        # At least the pixels of the mask are painted, and not all of the box is.
        assert inside.sum() >= int(mask_px) * 9 * 0.9
        assert int(mask_px) > 0


def test_no_package_of_pytorch_or_onnx_is_imported(tmp_path):
    program = f"""
import sys
for name in ("torch", "torchvision", "onnx", "onnxscript", "sklearn", "scipy", "matplotlib"):
    sys.modules[name] = None
sys.argv = ["ort-roialign", "demo", "--output", {str(tmp_path)!r}]
from ort_roialign.cli import main
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "PASSED" in done.stdout


def test_another_picture_and_score(tmp_path):
    with Image.open(demo.IMAGE) as image:
        image.save(tmp_path / "mine.jpg", quality=95)
    some = invoke(tmp_path, "--image", tmp_path / "mine.jpg")
    every = invoke(tmp_path, "--image", tmp_path / "mine.jpg", "--least-score", "0.1")
    assert some.exit_code == every.exit_code == 0
    assert (tmp_path / "mine_detections.png").exists()
    scores = [float(row[1]) for row in rows_of(some.output)]
    assert len(rows_of(every.output)) > len(scores) >= 8
    assert min(scores) >= 0.75


def test_a_picture_without_digits(tmp_path):
    Image.new("RGB", (70, 50), (90, 120, 30)).save(tmp_path / "plain.png")
    result = invoke(tmp_path, "--image", tmp_path / "plain.png")
    assert result.exit_code == 0, result.output
    assert rows_of(result.output) == []
    with Image.open(tmp_path / "plain_detections.png") as picture:
        assert len(picture.getcolors()) == 1


def test_a_large_picture_is_made_smaller(tmp_path):
    for name, size, smaller in (
        ("wide", (2666, 400), (1333, 200)),
        ("narrow", (4, 2666), (2, 1333)),
        ("line", (2666, 1), (1333, 1)),
    ):
        Image.new("RGB", size).save(tmp_path / f"{name}.png")
        result = invoke(tmp_path, "--image", tmp_path / f"{name}.png")
        assert result.exit_code == 0, result.output
        assert f"{smaller[0]}x{smaller[1]} pixels" in result.output
        with Image.open(tmp_path / f"{name}_detections.png") as picture:
            assert picture.size == smaller


def test_a_picture_of_16_bits_is_seen_as_one_of_8(tmp_path):
    with Image.open(demo.IMAGE) as image:
        grey = np.asarray(image.convert("L"))
    Image.fromarray(grey).save(tmp_path / "8.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "16.png")
    results = [invoke(tmp_path, "--image", tmp_path / f"{bits}.png") for bits in (8, 16)]
    assert [result.exit_code for result in results] == [0, 0]
    assert rows_of(results[0].output) == rows_of(results[1].output) != []


def test_pictures_without_a_white_and_too_large_ones_are_refused(tmp_path, monkeypatch):
    Image.fromarray(np.full((40, 50), 0.5, np.float32)).save(tmp_path / "float.tiff")
    result = invoke(tmp_path / "out", "--image", tmp_path / "float.tiff")
    assert result.exit_code == 1
    assert "must have pixels of 8 or 16 bits; got Pillow's mode F, of 32 bits" in result.stderr
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    result = invoke(tmp_path / "out", "--image", demo.IMAGE)
    assert result.exit_code == 1
    assert f"cannot read the image {demo.IMAGE}: " in result.stderr
    assert "onnxruntime" not in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("change", ["boxes", "labels", "scores", "masks", "fewer"])
def test_a_difference_between_the_two_ways_fails_the_demo(monkeypatch, tmp_path, change):
    detect = demo._detect

    def spoilt(*arguments, plugin):
        pixels, outputs, seconds = detect(*arguments, plugin=plugin)
        if plugin:
            if change == "fewer":
                outputs = {name: values[:-1] for name, values in outputs.items()}
            else:
                outputs[change] = outputs[change].copy()
                outputs[change][0] += 1
        return pixels, outputs, seconds

    monkeypatch.setattr(demo, "_detect", spoilt)
    result = invoke(tmp_path)
    assert result.exit_code == 1
    assert "FAILED" in result.output
    assert "PASSED" not in result.output


@pytest.mark.parametrize(
    "options",
    [
        ["--models", "mask"],
        ["--opset", "18"],
        ["--weights-mask", __file__],
        ["--weights-mobilenet", __file__],
    ],
)
def test_options_of_the_export_are_refused_without_it(tmp_path, options):
    result = invoke(tmp_path / "out", *options)
    assert result.exit_code == 1
    assert "must go with --export" in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_least_score_is_refused_with_the_export(tmp_path):
    result = invoke(tmp_path / "out", "--export", "--least-score", "0.5")
    assert result.exit_code == 1
    assert "--least-score must go without --export" in result.stderr


def test_what_cannot_run_is_told_and_leaves_nothing(monkeypatch, tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("no image")
    result = invoke(tmp_path / "out", "--image", text)
    assert result.exit_code == 1
    assert f"cannot read the image {text}" in result.stderr
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    result = invoke(tmp_path / "out", "--provider", "cuda")
    assert result.exit_code == 1
    assert "has no CUDAExecutionProvider" in result.stderr
    monkeypatch.setenv("ORT_ROIALIGN_LIBRARY", str(tmp_path / "absent.so"))
    result = invoke(tmp_path / "out")
    assert result.exit_code == 1
    assert "absent.so" in result.stderr
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    result = invoke(tmp_path / "out")
    assert result.exit_code == 1
    assert "ort-roialign demo needs onnxruntime" in result.stderr
    assert "pip install '.[cpu]'" in result.stderr
    assert not (tmp_path / "out").exists()
