"""`ort-roialign explain` draws what the operators compute."""

from __future__ import annotations

import re
import sys

import numpy as np
import onnx
import pytest
import tolerances
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from typer.testing import CliRunner

from ort_roialign import ops
from ort_roialign.cli import demo
from ort_roialign.cli.app import app
from ort_roialign.cli.explain_figures import BINS

PICTURES = [".png", ".svg"]


def invoke(*arguments):
    return CliRunner().invoke(app, ["explain", *map(str, arguments)], env={"COLUMNS": "250"})


@pytest.fixture
def figures(monkeypatch):
    """The figures that are drawn."""
    drawn = []
    save = Figure.savefig

    def recording(figure, *arguments, **options):
        drawn.append(figure)
        return save(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", recording)
    return drawn


@pytest.mark.parametrize("suffix", PICTURES)
def test_the_worked_example_is_the_default(tmp_path, suffix):
    picture = tmp_path / f"explain{suffix}"
    result = invoke("--output", picture)
    assert result.exit_code == 0, result.output
    assert "665 px / 32 = 20.78 cells, cut to 20; 20 / 7 = 2.86 cells a bin, cut to 2." in (
        result.output
    )
    assert "RoiPool, to the nearest cell and outwards: cells 2 to 23, bins of 4 cells." in (
        result.output
    )
    if suffix == ".png":
        with Image.open(picture) as image:
            assert min(image.size) > 1000
    else:
        assert picture.read_text().lstrip().startswith("<?xml")


def bins_in(axes):
    found = []
    for patch in axes.patches:
        if isinstance(patch, Rectangle) and not patch.get_fill():
            continue
        if patch.get_facecolor()[:3] == pytest.approx([0, 0x72 / 255, 0xB2 / 255]):
            found.append((*patch.get_xy(), patch.get_width(), patch.get_height()))
    return found


@pytest.mark.parametrize("stride", [8, 16, 20])
def test_the_bins_of_roi_pool_are_those_that_the_kernel_reads(tmp_path, figures, stride):
    x1, y1, x2, y2 = box = (33.0, 41.0, 190.0, 155.0)
    size = ("--image-size", 320, 240, "--bins", 5)
    result = invoke("--output", tmp_path / "p.png", *size, "--box", *box, "--stride", stride)
    assert result.exit_code == 0, result.output
    axes = figures[0].axes[1]
    # On maps that hold their column and row, a maximum is a bin's last cell.
    rows, columns = np.mgrid[: 240 // stride, : 320 // stride].astype(np.float32)
    pooled, _ = ops.roi_pool(
        np.stack([columns, rows, -columns, -rows])[None],
        np.array([box], np.float32),
        np.zeros(1, np.int64),
        output_height=5,
        output_width=5,
        spatial_scale=1 / stride,
    )
    last_x, last_y, first_x, first_y = pooled[0].reshape(4, 25)
    expected = np.stack([-first_x, -first_y, last_x + first_x + 1, last_y + first_y + 1], axis=1)
    np.testing.assert_array_equal(bins_in(axes), expected)
    assert BINS == "#0072b2"
    outline = [p for p in axes.patches if p.get_linestyle() == "--"]
    assert len(outline) == 1
    drawn = (*outline[0].get_xy(), outline[0].get_width(), outline[0].get_height())
    true = np.array([x1, y1, x2 - x1, y2 - y1]) / stride
    np.testing.assert_allclose(drawn, true, *tolerances.KERNEL["float64"])


def test_the_samples_and_the_weights_are_those_of_the_kernel(tmp_path, figures):
    box, stride = (33.0, 41.0, 190.0, 155.0), 16
    size = ("--image-size", 320, 240, "--samples", 1)
    result = invoke("--output", tmp_path / "p.png", *size, "--box", *box, "--stride", stride)
    assert result.exit_code == 0, result.output
    aligned, one = figures[0].axes[2:]
    samples = next(line for line in aligned.lines if line.get_label() == "samples")
    # On maps that hold their cells' centres a bin of one sample gives the sample's place.
    rows, columns = np.mgrid[: 240 // stride, : 320 // stride].astype(np.float32) + 0.5
    attributes = {
        "output_height": 7,
        "output_width": 7,
        "sampling_ratio": 1,
        "spatial_scale": 1 / stride,
    }
    boxes, images = np.array([box], np.float32), np.zeros(1, np.int64)
    x = np.stack([columns, rows])[None]
    pooled = ops.roi_align(x, boxes, images, **attributes)[0].reshape(2, 49)
    drawn = np.stack([samples.get_xdata(), samples.get_ydata()])
    np.testing.assert_allclose(drawn, pooled, *tolerances.KERNEL["float32"])

    dy = np.zeros((1, 1, 7, 7), np.float32)
    dy[..., 3, 3] = 1
    weights = ops.roi_align_grad(dy, x[:, :1], boxes, images, **attributes)[0, 0]
    cells = np.argwhere(weights)
    texts = {
        (int(text.xy[1] - 0.22), int(text.xy[0] - 0.5)): float(text.get_text())
        for text in one.texts
    }
    assert set(texts) == set(map(tuple, cells))
    for cell, text in texts.items():
        np.testing.assert_allclose(text, weights[cell], *tolerances.PRINTED_3_DECIMALS)


def test_an_adaptive_grid_is_drawn(tmp_path, figures):
    result = invoke("--output", tmp_path / "p.png", "--samples", 0)
    assert result.exit_code == 0, result.output
    (line,) = (line for line in figures[0].axes[2].lines if line.get_label() == "samples")
    assert len(line.get_xdata()) == (7 * 3) ** 2  # bins of 2.97 cells


def test_a_box_smaller_than_its_bins_is_drawn(tmp_path):
    size = ("--image-size", 64, 64, "--box", 3, 5, 9, 13, "--stride", 8)
    result = invoke("--output", tmp_path / "p.svg", *size)
    assert result.exit_code == 0, result.output
    assert "0 / 7 = 0.00 cells a bin, cut to 0" in result.output


@pytest.mark.parametrize("suffix", PICTURES)
def test_the_boxes_of_a_model_are_drawn_at_the_strides_of_their_levels(tmp_path, figures, suffix):
    picture = tmp_path / f"boxes{suffix}"
    result = invoke("--output", picture, "--model", demo.MODEL, "--most-boxes", 4)
    assert result.exit_code == 0, result.output
    assert picture.stat().st_size > 10_000
    assert len(figures[0].axes) == 8
    lines = re.findall(r"Box (.+): stride (\d+)", result.output)
    assert len(lines) == 4
    for edges, stride in lines:
        x1, y1, x2, y2 = map(float, edges.split(", "))
        side = np.sqrt((x2 - x1) * (y2 - y1))
        # The detector pools digits of 40 pixels on stride 8.
        assert int(stride) == 2 ** int(np.clip(3 + np.floor(np.log2(side / 40)), 2, 5))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output", "OUT/p.jpg"], "explain: --output must end in .png or .svg; got"),
        (["--output", "OUT/absent/p.png"], "explain: --output must be a file in a directory"),
        (["--box", 5, 5, 5, 9], "explain: --box must be x1 < x2 and y1 < y2 inside the image of"),
        (["--box", 5, 5, 900, 9], "800 x 800 pixels; got 5 5 900 9"),
        (["--stride", 900], "explain: --stride must be at most the image's shorter side, 800"),
        (["--image", __file__], "explain: --image must go with --model"),
        (["--model", __file__], f"onnxruntime failed on {__file__} with the plugin"),
        (["--model", "OUT/plain.onnx"], "must have outputs boxes and scores; got y"),
        (["--model", demo.MODEL, "--image", __file__], "cannot read the image"),
    ],
)
def test_bad_arguments(tmp_path, arguments, message):
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    value = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy"]
    graph = onnx.helper.make_graph([node], "plain", value[:1], value[1:])
    opset = [onnx.helper.make_opsetid("", 18)]
    model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=9)
    onnx.save(model, tmp_path / "plain.onnx")
    given = [str(each).replace("OUT", str(tmp_path)) for each in arguments]
    if "--output" not in given:
        given += ["--output", str(tmp_path / "p.png")]
    result = invoke(*given)
    assert result.exit_code == 1, result.output
    assert message in result.stderr
    assert not list(tmp_path.glob("p.*"))


def test_a_missing_package_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = invoke("--output", tmp_path / "p.png")
    assert result.exit_code == 1
    assert "ort-roialign explain needs matplotlib" in result.stderr
