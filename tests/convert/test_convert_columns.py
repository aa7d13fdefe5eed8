"""Boxes that are columns of a detector's own rows: with scores, images or another order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import tolerances
from hand_made import own_nodes, run
from stock_export import stock_export

from ort_roialign.convert import convert_with_report

torch = pytest.importorskip("torch")
roi_heads = pytest.importorskip("torchvision.models.detection.roi_heads")
pyramid_modules = pytest.importorskip("pyramid_modules", exc_type=ImportError)

COUNT = 12
# How boxes are taken from rows, and the columns of the rows before and after them.
CHOICES = {
    "slice": (lambda rows: rows[:, :4], 0, 1),
    "split": (lambda rows: rows.split([4, 1], 1)[0], 0, 1),
    "between": (lambda rows: rows[:, 1:5], 1, 1),
    "other order": (lambda rows: rows[:, [1, 0, 3, 2]], 0, 0),
    "chosen rows": (lambda rows: rows[(rows[:, 4] > 0).nonzero().squeeze(1)][:, :4], 0, 1),
}


class Paster(torch.nn.Module):
    """Pastes masks at some columns of rows."""

    def __init__(self, choice):
        super().__init__()
        self.choice = choice

    def forward(self, masks, rows, image):
        return roi_heads.paste_masks_in_image(masks, self.choice(rows), image.shape[-2:])


class Pooler(torch.nn.Module):
    """Pools the boxes in some columns of rows."""

    def __init__(self, choice):
        super().__init__()
        self.choice = choice
        self.pooler = pyramid_modules.TorchvisionPooler(2, 1)

    def forward(self, rows, *maps):
        return self.pooler(self.choice(rows), *maps)


def rows_of(boxes, choice):
    _, before, after = CHOICES[choice]
    between = [torch.zeros(COUNT, before), boxes, torch.rand(COUNT, after) + 0.1]
    return torch.cat(between, dim=1)


def assert_one_node(path, operator, feeds, tolerance):
    """Convert to one node of an operator, and compare with the original in onnxruntime."""
    original = onnx.load(path)
    converted, report = convert_with_report(original)
    assert report.left == []
    assert [node.op_type for node in own_nodes(converted)] == [operator]
    expected = run(original, feeds)[0]
    assert expected.max() > 0.5
    np.testing.assert_allclose(run(converted, feeds)[0], expected, *tolerance)


@pytest.mark.parametrize("choice", list(CHOICES))
def test_masks(tmp_path: Path, choice):
    rng = torch.Generator().manual_seed(6)
    corners = torch.rand((COUNT, 2), generator=rng) * 20
    boxes = torch.cat([corners, corners + 5 + torch.rand((COUNT, 2), generator=rng) * 30], dim=1)
    masks = torch.rand((COUNT, 1, 28, 28), generator=rng)
    given = (masks, rows_of(boxes, choice), torch.zeros(3, 60, 80))
    names = ["masks", "rows", "image"]
    axes = {"masks": {0: "n"}, "rows": {0: "n"}, "image": {1: "h", 2: "w"}}
    path = tmp_path / "paster.onnx"
    stock_export(
        Paster(CHOICES[choice][0]), given, path, "torchscript", input_names=names, dynamic_axes=axes
    )
    feeds = {name: each.numpy() for name, each in zip(names, given, strict=True)}
    assert_one_node(path, "PasteMasks", feeds, tolerances.CONVERTED_DETECTOR)


@pytest.mark.parametrize(
    ("choice", "exporter"),
    [
        *((choice, "torchscript") for choice in list(CHOICES)[:4]),
        *((choice, "dynamo") for choice in list(CHOICES)[:3]),
    ],
)
def test_pyramids(tmp_path: Path, choice, exporter):
    rng = torch.Generator().manual_seed(6)
    boxes = pyramid_modules.random_boxes(rng, COUNT)
    maps = pyramid_modules.random_maps(rng, 2, 1)
    given = (rows_of(boxes, choice), *maps)
    names = ["rows", "x0", "x1"]
    free = {"dynamic_axes": {"rows": {0: "n"}}}
    if exporter == "dynamo":
        free = {"dynamic_shapes": ({0: torch.export.Dim.DYNAMIC}, (None, None))}
    path = tmp_path / "pooler.onnx"
    module = Pooler(CHOICES[choice][0])
    stock_export(module, given, path, exporter, input_names=names, **free)
    feeds = {name: each.numpy() for name, each in zip(names, given, strict=True)}
    assert_one_node(path, "MultiScaleRoiAlign", feeds, tolerances.KERNEL["float32"])
