"""`ort-roialign explain` draws what the operators compute."""

from __future__ import annotations

import re
import sys

import numpy as np
import onnx
import pytest
import tolerances
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
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
        if patch.get_facecolor()[:3] == pytest.approx(to_rgb(BINS)):
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


def title_of(axes):
    (title,) = (text for text in axes.findobj(Text) if text.get_text() == axes.get_title("left"))
    return title


def test_every_cell_has_its_lines_and_every_title_fits(tmp_path, figures):
    assert invoke("--output", tmp_path / "p.png").exit_code == 0
    drawn = ["--model", demo.MODEL, "--most-boxes", 2]
    assert invoke("--output", tmp_path / "m.png", *drawn).exit_code == 0
    for figure in figures:
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        renderer = canvas.get_renderer()
        page = figure.get_window_extent(renderer)
        titles = [title_of(axes).get_window_extent(renderer) for axes in figure.axes]
        for left, right in zip(titles[::2], titles[1::2], strict=True):
            assert page.x0 < left.x0 < left.x1 < right.x0 < right.x1 < page.x1
        for axes in figure.axes:
            for axis, limits in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
                lines = {
                    float(tick.get_loc())
                    for tick in axis.get_minor_ticks()
                    if tick.gridline.get_visible()
                }
                assert set(np.arange(min(limits), max(limits) + 1)) <= lines


def test_what_lies_beyond_the_map_is_not_drawn(tmp_path, figures):
    whole = invoke("--output", tmp_path / "p.png", "--box", 0, 0, 800, 800)
    assert "cells 0 to 24," in whole.output
    corner = invoke("--output", tmp_path / "p.png", "--box", 790, 790, 799, 799)
    assert corner.exit_code == 0, corner.output
    assert "no cell of the map" in corner.output
    assert bins_in(figures[1].axes[1]) == []
    # The sample lies past the last centre both ways: one cell has all the weight.
    one = figures[1].axes[3]
    assert [(text.xy[0], text.get_text()) for text in one.texts] == [(24.5, "1.000")]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--image-size", 899, 899, "--stride", 300, "--box", 880, 880, 898, 898),
        ("--image-size", 1024, 1024, "--stride", 1, "--box", 0, 0, 1024, 1024, "--samples", 0),
    ],
)
def test_maps_of_few_and_of_many_cells_are_drawn(tmp_path, arguments):
    result = invoke("--output", tmp_path / "p.svg", *arguments)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "p.svg").stat().st_size < 5_000_000


def test_a_box_smaller_than_its_bins_is_drawn(tmp_path):
    size = ("--image-size", 64, 64, "--box", 3, 5, 9, 13, "--stride", 8)
    result = invoke("--output", tmp_path / "p.svg", *size)
    assert result.exit_code == 0, result.output
    assert "0 / 7 = 0.00 cells a bin, cut to 0" in result.output


@pytest.mark.parametrize("suffix", PICTURES)
def test_the_boxes_of_a_model_are_drawn_at_the_strides_of_their_levels_each_level_first(
    tmp_path, figures, suffix
):
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
    strides = [stride for _, stride in lines]
    assert len(set(strides[: len(set(strides))])) == len(set(strides)) > 1


def detector(path, nodes, opset):
    """A model that finds two boxes in whatever image, and has nodes that pool."""
    size, floats = [1, 3, 64, 64], onnx.TensorProto.FLOAT
    helper = onnx.helper
    boxes = np.array([[4, 4, 20, 20], [8, 8, 60, 56]], np.float32)
    constants = {
        "boxes_": boxes,
        "scores_": np.array([0.4, 0.9], np.float32),
        "image_": np.zeros(2, np.int64),
    }
    graph = helper.make_graph(
        [
            helper.make_node("Identity", ["boxes_"], ["boxes"]),
            helper.make_node("Identity", ["scores_"], ["scores"]),
            *(
                helper.make_node("RoiAlign", ["x", "boxes_", "image_"], [f"y{number}"], **given)
                for number, given in enumerate(nodes)
            ),
        ],
        "detector",
        [helper.make_tensor_value_info("x", floats, size)],
        [
            helper.make_tensor_value_info("boxes", floats, [2, 4]),
            helper.make_tensor_value_info("scores", floats, [2]),
            *(helper.make_tensor_value_info(f"y{n}", floats, None) for n in range(len(nodes))),
        ],
        [onnx.numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    opsets = [helper.make_opsetid("", opset)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)


@pytest.mark.parametrize(
    ("opset", "given", "shift"),
    [
        (11, {}, 0.5),  # opset 11 knows no other convention, and does not name it
        (16, {}, 0),
        (16, {"coordinate_transformation_mode": "output_half_pixel"}, 0.5),
    ],
)
def test_the_convention_of_a_standard_node_is_that_of_its_opset(
    tmp_path, figures, opset, given, shift
):
    node = {"output_height": 2, "output_width": 2, "sampling_ratio": 1, "spatial_scale": 0.25}
    detector(tmp_path / "d.onnx", [node | given] * 2, opset)
    result = invoke("--output", tmp_path / "p.png", "--model", tmp_path / "d.onnx")
    assert result.exit_code == 0, result.output
    assert "Box 8.0, 8.0, 60.0, 56.0: stride 4\nBox 4.0" in result.output
    (samples,) = (line for line in figures[0].axes[1].lines if line.get_label() == "samples")
    np.testing.assert_allclose(
        samples.get_xdata()[:2], np.array([5.25, 11.75]) + shift, *tolerances.KERNEL["float32"]
    )


def test_levels_with_nodes_of_their_own_are_refused(tmp_path):
    nodes = [{"spatial_scale": 0.25}, {"spatial_scale": 0.125}]
    detector(tmp_path / "d.onnx", nodes, 16)
    result = invoke("--output", tmp_path / "p.png", "--model", tmp_path / "d.onnx")
    assert result.exit_code == 1
    assert "must pool all levels in one node" in result.stderr
    assert "nodes of 2 scales. Convert it first: ort-roialign convert" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output", "OUT/p.jpg"], "explain: --output must end in .png or .svg; got"),
        (["--output", "OUT/absent/p.png"], "explain: --output must be a file in a directory"),
        (["--box", 5, 5, 5, 9], "explain: --box must be x1 < x2 and y1 < y2 inside the image of"),
        (["--box", 5, 5, 900, 9], "800 x 800 pixels; got 5 5 900 9"),
        (["--stride", 900], "explain: --stride must be at most the image's shorter side, 800"),
        (
            ["--stride", 1, "--image-size", 4096, 20, "--box", 0, 0, 9, 9],
            "and at least 4, for a map of 1024 cells",
        ),
        (["--image", __file__], "explain: --image and --most-boxes must go with --model"),
        (["--most-boxes", 2], "explain: --image and --most-boxes must go with --model"),
        (["--model", demo.MODEL, "--bins", 7], "and --samples must go without --model"),
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
