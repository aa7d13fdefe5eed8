"""`ort-roialign bench`: options, tables, files, and what it says when it cannot go on."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from ort_roialign.benchmarks import bench, measure, requirements
from ort_roialign.benchmarks.bench import BenchSettings, select_points
from ort_roialign.benchmarks.machine import Machine
from ort_roialign.benchmarks.measure import Effort, Timing
from ort_roialign.benchmarks.problems import Single
from ort_roialign.benchmarks.results import Results, mean_speedup
from ort_roialign.benchmarks.tables import (
    axis_points,
    disturbance_sentences,
    path_sentences,
    report_tables,
)
from ort_roialign.benchmarks.timed_point import Comparison, PointResult
from ort_roialign.benchmarks.training import TrainingResult
from ort_roialign.benchmarks.training_workloads import TrainingPoint
from ort_roialign.benchmarks.workloads import Point
from ort_roialign.cli.app import app

# Wide enough that no cell is folded.
WIDE = {"COLUMNS": "250"}
TINY = Single(channels=3, height=8, width=8, rois=4, bins=2, longest_cells=6)
TINY_WORKLOADS = [
    Point("small", "A small one.", TINY, quick=True, variants=True, large=True),
    Point("other", "Another one.", replace(TINY, channels=1)),
]
TINY_SWEEP = [
    Point("sweep/base", "The base.", TINY, "base", quick=True),
    Point("sweep/rois=1", "One box.", replace(TINY, rois=1), "rois", 1, quick=True),
    Point("sweep/random-1", "Anything.", replace(TINY, bins=1), "random", 1),
]
TINY_TRAINING = [
    TrainingPoint("training/roi_pool", "With a peer.", "roi_pool", TINY, quick=True),
    TrainingPoint("training/prroi_pool", "Alone.", "prroi_pool", TINY),
]


@pytest.fixture(autouse=True)
def tiny_points(monkeypatch):
    monkeypatch.setattr(bench, "workloads", lambda: TINY_WORKLOADS)
    monkeypatch.setattr(bench, "sweep", lambda: TINY_SWEEP)
    monkeypatch.setattr(bench, "training_workloads", lambda: TINY_TRAINING)
    monkeypatch.setattr(bench, "copy_speed", lambda _: 1e10)
    monkeypatch.setattr(bench, "FULL_EFFORT", Effort(2, 0))
    monkeypatch.setattr(bench, "QUICK_EFFORT", Effort(1, 0))
    monkeypatch.setattr(bench.os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    monkeypatch.setattr(measure, "SHORTEST_SAMPLE_SECONDS", 0.0)


@pytest.fixture
def no_plots(monkeypatch):
    """Plots take most of the time of a tiny run."""
    monkeypatch.setattr(bench, "missing_packages", lambda: ["matplotlib"])


def invoke(folder, *arguments):
    return CliRunner().invoke(app, ["bench", "--output", str(folder), *arguments], env=WIDE)


def names_of(**settings):
    return [point.name for point in select_points(BenchSettings(output=None, **settings))]


def test_a_run_writes_all_files(tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is missing; install the extra `test`")
    folder = tmp_path / "new" / "results"
    result = invoke(folder, "--threads", "2", "--scaling")
    assert result.exit_code == 0, result.output
    names = ["results.json", "results.md", "speedups.png", "time_against_rois.png"]
    assert sorted(path.name for path in folder.iterdir()) == names
    for name in names:
        assert f"Wrote {folder / name}" in result.output
        assert (folder / name).stat().st_size > 100
    facts = json.loads((folder / "results.json").read_text())
    assert [point["name"] for point in facts["workloads"]] == ["small", "other"]
    assert [point["value"] for point in facts["sweep"]] == [0, 1, 1]
    assert facts["machine"]["threads"] == 2
    assert facts["machine"]["isa"] in ("baseline", "avx2", "avx512")
    assert {"ort_roialign", "onnxruntime", "torchvision"} <= set(facts["machine"]["versions"])
    small = facts["workloads"][0]
    times = {name: timing["median"] for name, timing in small["times"].items()}
    assert small["speedup"] == {
        peer: times[peer] / times["ort_roialign"] for peer in ("onnxruntime", "torchvision")
    }
    assert small["times"]["onnxruntime"]["rounds"] == 2
    assert small["memory_floor"] == small["moved_bytes"] / 1e10
    assert set(small["paths"]["times"]) == {"chosen", "direct", "packed"}
    assert set(small["threads"]["times"]) == set(small["threads"]["matrix_product"]) == {"1", "2"}
    assert small["variants"]["ratio_to_float32"]["float32"] == 1
    pool, alone = facts["training"]
    assert (pool["name"], pool["operator"]) == ("training/roi_pool", "roi_pool")
    for direction in ("forward", "backward"):
        times = {name: timing["median"] for name, timing in pool[direction]["times"].items()}
        assert pool[direction]["speedup"] == {
            "torchvision": times["torchvision"] / times["ort_roialign"]
        }
        assert list(alone[direction]["times"]) == ["ort_roialign"]
        assert alone[direction]["speedup"] == {}
        means = facts["summary"]["geometric_mean_speedup"]
        assert means[f"training_{direction}"] == pytest.approx(pool[direction]["speedup"])
    text = (folder / "results.md").read_text()
    for heading in (
        "Workloads, float32 averages",
        "Threads",
        "Training in PyTorch, float32",
        "Choice of the path",
    ):
        assert f"## {heading}" in text
    assert "| small | A small one. |" in text
    assert "| training/prroi_pool | Alone. |" in text


@pytest.mark.usefixtures("no_plots")
def test_quick_takes_few_points_and_rounds(tmp_path):
    result = invoke(tmp_path, "--quick")
    assert result.exit_code == 0, result.output
    facts = json.loads((tmp_path / "results.json").read_text())
    assert [point["name"] for point in facts["workloads"]] == ["small"]
    assert [point["name"] for point in facts["sweep"]] == ["sweep/base", "sweep/rois=1"]
    assert [point["name"] for point in facts["training"]] == ["training/roi_pool"]
    assert facts["workloads"][0]["times"]["ort_roialign"]["rounds"] == 1
    assert "threads" not in facts["workloads"][0]


def test_points_are_selected_by_part_and_name():
    sweep = [point.name for point in TINY_SWEEP]
    training = [point.name for point in TINY_TRAINING]
    assert names_of() == ["small", "other", *sweep, *training]
    assert names_of(parts=("workloads",)) == ["small", "other"]
    assert names_of(parts=("sweep",)) == sweep
    assert names_of(parts=("training",)) == training
    assert names_of(only=("sweep/r*", "other")) == ["other", "sweep/rois=1", "sweep/random-1"]
    assert names_of(only=("other",), quick=True) == ["other"]


@pytest.mark.usefixtures("no_plots")
def test_rounds_are_those_asked_for(tmp_path):
    result = invoke(tmp_path, "--only", "other", "--rounds", "4", "--parts", "workloads")
    assert result.exit_code == 0, result.output
    facts = json.loads((tmp_path / "results.json").read_text())
    assert facts["workloads"][0]["times"]["onnxruntime"]["rounds"] == 4


def test_training_alone_has_no_plots_and_no_paths(tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is missing; install the extra `test`")
    result = invoke(tmp_path, "--parts", "training")
    assert result.exit_code == 0, result.output
    assert "training/roi_pool: ort_roialign" in result.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results.json", "results.md"]
    facts = json.loads((tmp_path / "results.json").read_text())
    assert facts["workloads"] == facts["sweep"] == []
    assert facts["summary"]["paths"] == {}
    text = (tmp_path / "results.md").read_text()
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings == [
        "## Geometric means of the ratios",
        "## Training in PyTorch, float32",
        "## What was timed",
    ]


def test_without_pytorch_training_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "missing_packages", lambda: ["torch", "torchvision", "matplotlib"])
    result = invoke(tmp_path, "--parts", "training", "--parts", "workloads", "--only", "*o*")
    assert result.exit_code == 0, result.output
    assert "torch is not installed: training is not timed." in result.output
    facts = json.loads((tmp_path / "results.json").read_text())
    assert [point["name"] for point in facts["workloads"]] == ["other"]
    assert facts["training"] == []
    result = invoke(tmp_path / "new", "--parts", "training")
    assert result.exit_code == 1
    assert "ort-roialign bench needs torch for training, not installed here." in result.output
    assert "pip install '.[bench,cpu]'" in result.output
    assert not (tmp_path / "new").exists()


def test_an_unknown_name_is_an_error(tmp_path):
    result = invoke(tmp_path / "new", "--only", "nothing")
    assert result.exit_code == 1
    assert "--only must fit one of small, other, sweep/base" in result.output
    assert not (tmp_path / "new").exists()


def test_without_optional_packages_it_says_what_is_left_out(tmp_path, monkeypatch):
    missing = ("torchvision", "matplotlib")
    importable = requirements.is_importable
    monkeypatch.setattr(
        requirements, "is_importable", lambda name: name not in missing and importable(name)
    )
    result = invoke(tmp_path)
    assert result.exit_code == 0, result.output
    assert "torchvision is not installed: torchvision is not timed." in result.output
    assert "matplotlib is not installed: no plots are drawn." in result.output
    assert result.output.count("pip install '.[bench,cpu]'") == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results.json", "results.md"]
    facts = json.loads((tmp_path / "results.json").read_text())
    assert list(facts["workloads"][0]["speedup"]) == ["onnxruntime"]
    means = facts["summary"]["geometric_mean_speedup"]
    assert list(means["sweep"]) == ["onnxruntime"]
    assert [list(point["forward"]["times"]) for point in facts["training"]] == 2 * [
        ["ort_roialign"]
    ]
    assert means["training_forward"] == means["training_backward"] == {}


def test_without_onnxruntime_it_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(requirements, "is_importable", lambda name: name != "onnxruntime")
    result = invoke(tmp_path)
    assert result.exit_code == 1
    assert "ort-roialign bench needs onnxruntime, not installed here." in result.output
    assert "pip install '.[bench,cpu]'" in result.output


@pytest.mark.usefixtures("no_plots")
def test_a_busy_machine_is_mentioned(tmp_path, monkeypatch):
    assert "machine is busy" not in invoke(tmp_path, "--only", "other").output
    monkeypatch.setattr(bench.os, "getloadavg", lambda: (99.0, 0.0, 0.0))
    assert "The machine is busy: load average 99.0." in invoke(tmp_path, "--only", "other").output


def test_it_runs_as_a_module():
    command = [sys.executable, "-m", "ort_roialign.benchmarks", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--quick" in done.stdout


def result_of(point, ours, onnxruntime, chosen=1.0, direct=2.0, path="packed"):
    """A point's result with one sample each; the forced path `packed` takes 1 second."""
    return PointResult(
        point=point,
        calls=[],
        moved_bytes=1000,
        times={"ort_roialign": Timing((ours,)), "onnxruntime": Timing((onnxruntime,))},
        path=path,
        path_times={
            "chosen": Timing((chosen,)),
            "direct": Timing((direct,)),
            "packed": Timing((1.0,)),
        },
    )


@pytest.fixture
def results():
    machine = Machine(
        "A CPU", 2, 2, "avx2", {"ort_roialign": "1", "torchvision": "2+cu130"}, 1e6, 0.0, "today"
    )
    return Results(
        machine,
        (
            result_of(TINY_WORKLOADS[0], 0.1, 0.2),
            result_of(TINY_WORKLOADS[1], 0.1, 0.8, chosen=1.3),
            result_of(TINY_SWEEP[0], 2.0, 6.0, chosen=2.0, path="direct"),
            result_of(TINY_SWEEP[1], 0.001, 0.01),
        ),
    )


def training_of(point, **directions):
    """A point's result in training with one sample each: (ours, and torchvision's if any)."""
    names = ("ort_roialign", "torchvision")
    return TrainingResult(
        point,
        [],
        {
            direction: Comparison(
                {name: Timing((each,)) for name, each in zip(names, seconds, strict=False)}
            )
            for direction, seconds in directions.items()
        },
    )


@pytest.fixture
def training_results(results):
    pool, alone = TINY_TRAINING
    training = (
        training_of(pool, forward=(0.1, 0.2), backward=(0.2, 1.0)),
        training_of(pool, forward=(0.1, 0.8), backward=(0.2, 0.8)),
        training_of(alone, forward=(0.3,), backward=(0.04,)),
    )
    return replace(results, points=(), training=training)


def test_means_floors_and_axes_are_right(results):
    assert mean_speedup(results.workloads, "onnxruntime") == pytest.approx(4)
    assert results.floor_seconds(results.points[0]) == pytest.approx(1e-3)
    # The base has 300 boxes as far as the axis knows, and comes after the point with 1.
    on_axis = axis_points(results, "rois")
    assert [(value, r.point.name) for value, r in on_axis] == [
        (1, "sweep/rois=1"),
        (300, "sweep/base"),
    ]
    assert axis_points(results, "channels") == []


def test_tables_hold_times_and_ratios(results):
    workloads, sweep, means = report_tables(results)
    assert workloads.rows[1] == ("other", "100 ±0%", "800 ±0%", "8.00", "-", "-", "1.00")
    assert sweep.rows[0] == ("1", "1.00 ±0%", "10.0 ±0%", "10.0", "-", "-", "1.00")
    assert means.rows == [
        ("workloads", "2", "4.00", "-"),
        ("sweep", "2", "5.48", "-"),
    ]
    assert results.machine.title == "A CPU, 2 threads, avx2, ort_roialign 1, torchvision 2"


def test_tables_of_training_hold_both_directions(training_results):
    means, training = report_tables(training_results)
    assert means.rows == [
        ("training, forward", "2", "-", "4.00"),
        ("training, backward", "2", "-", "4.47"),
    ]
    name = TINY_TRAINING[0].name
    assert training.rows == [
        (name, "100 ±0%", "200 ±0%", "2.00", "200 ±0%", "1000 ±0%", "5.00"),
        (name, "100 ±0%", "800 ±0%", "8.00", "200 ±0%", "800 ±0%", "4.00"),
        (TINY_TRAINING[1].name, "300 ±0%", "-", "-", "40.0 ±0%", "-", "-"),
    ]
    assert path_sentences(training_results) == []


def test_disturbed_points_are_counted(results, training_results):
    assert disturbance_sentences(results) == []
    points = [
        replace(result, other_cores=cores)
        for result, cores in zip(results.points, (0.05, 0.3, 1.5, 0.0), strict=True)
    ]
    (text,) = disturbance_sentences(replace(results, points=tuple(points)))
    assert text.startswith("Other processes disturbed 2 of 4 points, most of all sweep/base, where")
    assert "1.5 of 2 cores" in text
    pool = replace(training_results.training[0], other_cores=1.6)
    (text,) = disturbance_sentences(replace(results, points=tuple(points), training=(pool,)))
    assert text.startswith("Other processes disturbed 3 of 5 points, most of all training/roi_pool")


def test_wrong_choices_of_a_path_are_told_from_noise(results):
    assert path_sentences(results) == [
        "The chosen path takes at most 2.00 times as long as the better one, at sweep/base.",
        "Over 1.15: sweep/base, 2.00, chosen direct, better packed (another path).",
        "Over 1.15: other, 1.30, chosen packed, better packed (the same path, so noise).",
    ]
