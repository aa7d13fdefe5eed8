"""The study: its poolings, its mismatch against arithmetic, and runs that go on where they were."""

from __future__ import annotations

import json

import detector
import mismatch
import numpy as np
import poolings
import pytest
import study
import tolerances
import torch
import torchvision
from typer.testing import CliRunner

from ort_roialign.torch import roi_align

IMAGE = (256, 320)


@pytest.fixture
def pyramid():
    torch.manual_seed(8)
    maps = {
        name: torch.rand(2, 3, IMAGE[0] // stride, IMAGE[1] // stride, requires_grad=True)
        for name, stride in zip(detector.MAPS, detector.STRIDES, strict=True)
    }
    corners = torch.rand(60, 2) * 150
    boxes = torch.cat([corners, corners + 4 + torch.rand(60, 2) ** 2 * 100], dim=1)
    return maps, [boxes[:25], boxes[25:]]


def test_boxes_are_pooled_from_the_maps_that_torchvision_chooses(pyramid):
    maps, boxes = pyramid
    own = poolings.LevelwisePooler(
        lambda x, rows, bins, scale: roi_align(x, rows, (bins, bins), scale, 2), 7
    )
    peer = torchvision.ops.MultiScaleRoIAlign(
        detector.MAPS,
        7,
        2,
        canonical_scale=detector.CANONICAL_SCALE,
        canonical_level=detector.CANONICAL_LEVEL,
    )
    expected = peer(maps, boxes, [IMAGE] * 2).detach().numpy()
    actual = own(maps, boxes, [IMAGE] * 2).detach().numpy()
    np.testing.assert_allclose(actual, expected, *tolerances.KERNEL["float32"])


@pytest.mark.parametrize("name", poolings.POOLINGS)
def test_every_pooling_sends_gradients_to_every_map(pyramid, name):
    maps, boxes = pyramid
    pooled = poolings.POOLINGS[name](7)(maps, boxes, [IMAGE] * 2)
    assert pooled.shape == (60, 3, 7, 7)
    pooled.sum().backward()
    used = [each.grad is not None and bool((each.grad != 0).any()) for each in maps.values()]
    assert all(used[:3])  # no box is large enough for the last one
    assert set(poolings.TITLES) == set(poolings.POOLINGS)


def test_the_worked_example_comes_out_as_the_text_has_it():
    example = mismatch.worked_example(800, 665, 32)
    assert (example.box_cells, example.cut_cells) == (20.78, 20)
    assert (example.bin_cells, example.cut_bin_cells) == (2.86, 2)
    # By hand: 20.78 is nearest to 21, which belongs to the box: 22 cells, bins of 22/7.
    edges = [(22 * n // 7, -(-22 * (n + 1) // 7) - 1) for n in range(7)]
    assert example.operator_bins == edges


def test_roi_align_reads_what_it_should_and_roi_pool_strays_by_a_part_of_the_stride():
    rows = {
        (row.operator, row.stride, row.size_px): row for row in mismatch.measure(3, boxes_each=300)
    }
    limit = tolerances.MEASURED_POSITION_PX
    for stride in mismatch.STRIDES:
        for size in mismatch.SIZES_PX:
            for name in mismatch.OPERATORS:
                row = rows[name, stride, size]
                measured = [row.shift_px, row.bins_px, row.spread_px]
                if name == "RoiPool":
                    # A box's place in its cell is even over the cell, and rounded away.
                    even = stride / np.sqrt(12)
                    if size % stride == 0:
                        np.testing.assert_allclose(row.spread_px, even, *tolerances.SAMPLED_SPREAD)
                    # Of other boxes both ends are rounded on their own, so that the middle bin of
                    # n + 1/2 cells moves by half as much.
                    assert even / 2 < row.spread_px < even * 1.5
                elif name == "PrRoiPool":
                    np.testing.assert_allclose(measured, [stride / 2, 0, 0], *limit)
                elif "output_half_pixel" not in name:
                    np.testing.assert_allclose(row.mean_px, 0, *limit)
                elif size >= stride:
                    np.testing.assert_allclose(measured, [stride / 2, 0, 0], *limit)
                else:  # such a box is widened to a cell, to the right
                    widened = stride / 2 + (stride - size) / 2
                    np.testing.assert_allclose(row.shift_px, widened, *limit)


def test_an_interrupted_study_goes_on_where_it_was(tmp_path):
    quick = ["run", "--folder", str(tmp_path), "--steps", "1", "--test-count", "2"]
    quick += ["--poolings", "roi_pool"]
    runner = CliRunner()
    first = runner.invoke(study.app, [*quick, "--seeds", "0"])
    assert first.exit_code == 0, first.output
    file = tmp_path / "runs" / "roi_pool_0.json"
    kept = file.read_text()
    assert json.loads(kept)["seed"] == 0
    late = runner.invoke(study.app, [*quick, "--seeds", "0", "--seeds", "1", "--hours", "0"])
    assert "1 of 2 runs are missing" in late.output
    for arguments in (["--steps", "2"], ["--poolings", "other"]):
        refused = runner.invoke(study.app, [*quick, *arguments])
        assert refused.exit_code == 2, refused.output
    assert [each.name for each in (tmp_path / "runs").iterdir()] == [file.name]
    assert file.read_text() == kept
    assert runner.invoke(study.app, ["mismatch", "--folder", str(tmp_path)]).exit_code == 0
    assert runner.invoke(study.app, ["report", "--folder", str(tmp_path)]).exit_code == 0
    assert "| RoiPool | 1 |" in (tmp_path / "results.md").read_text()
    assert {each.name for each in tmp_path.glob("*.svg")} == {"map.svg", "mismatch.svg"}
