"""The programs in export/ do what they say."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

PROGRAMS = Path(__file__).resolve().parent.parent.parent / "export"
Run = Callable[..., str]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a program as its command does, in this process: PyTorch is slow to import."""

    def run_program(program: str, *arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", [program, *map(str, arguments)])
        with pytest.raises(SystemExit) as done:
            runpy.run_path(str(PROGRAMS / program), run_name="__main__")
        assert not done.value.code
        return capsys.readouterr().out

    return run_program


def plugin_nodes(path: Path) -> list[str]:
    nodes = onnx.load(path, load_external_data=False).graph.node
    return [node.op_type for node in nodes if node.domain == "ort_roialign"]


@pytest.mark.parametrize(
    ("pooler_type", "operator"),
    [("ROIAlignV2", "MultiScaleRoiAlign"), ("ROIAlignRotated", "MultiScaleRoiAlignRotated")],
)
def test_detectron2_pooler(run: Run, tmp_path: Path, pooler_type: str, operator: str) -> None:
    path = tmp_path / "pooler.onnx"
    text = run("detectron2_pooler.py", path, "--pooler-type", pooler_type)
    assert "pooled: [4, 16, 7, 7], 0e+00 from PyTorch's" in text
    assert plugin_nodes(path) == [operator]


def test_torchvision_detector(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "detector.onnx"
    name = "fasterrcnn_mobilenet_v3_large_320_fpn"
    text = run("torchvision_detector.py", name, path, "--no-dynamo", "--batch")
    for line in (
        "boxes: float32 [",
        "labels: int64 [",
        "scores: float32 [",
        "image_indices: int64",
    ):
        assert f"\n{line}" in f"\n{text}"
    assert plugin_nodes(path) == ["MultiScaleRoiAlign"]
