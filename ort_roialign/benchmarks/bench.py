"""The whole benchmark: which points, their measurement, and what is written and printed."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

from ort_roialign.benchmarks.kernel_paths import refuse_forced_path
from ort_roialign.benchmarks.machine import Machine, available_cores, describe_machine
from ort_roialign.benchmarks.measure import Effort
from ort_roialign.benchmarks.memory_floor import copy_speed
from ort_roialign.benchmarks.requirements import (
    INSTALL_COMMAND,
    OPTIONAL,
    missing_packages,
)
from ort_roialign.benchmarks.results import PEERS, AnyResult, Results, write_json
from ort_roialign.benchmarks.sweep import sweep
from ort_roialign.benchmarks.tables import (
    TextTable,
    description_table,
    disturbance_sentences,
    path_sentences,
    path_table,
    report_tables,
)
from ort_roialign.benchmarks.timed_point import (
    OURS,
    Comparison,
    PointResult,
    PointSettings,
    measure_point,
)
from ort_roialign.benchmarks.training import TrainingResult, measure_training
from ort_roialign.benchmarks.training_workloads import TrainingPoint, training_workloads
from ort_roialign.benchmarks.workloads import Point, workloads
from ort_roialign.errors import InvalidArgumentError, MissingDependencyError, OrtRoiAlignError

WORKLOADS, SWEEP, TRAINING = "workloads", "sweep", "training"
FULL_EFFORT = Effort(rounds=15, seconds=3.0)
QUICK_EFFORT = Effort(rounds=5, seconds=0.5)
AnyPoint = Point | TrainingPoint
# More processes than this a core disturb every measurement.
BUSY_LOAD = 0.3


@dataclass(frozen=True)
class BenchSettings:
    """What the benchmark does.

    Attributes:
        output: directory for the files.
        threads: threads of every contestant; 0: one a core.
        rounds: least number of samples of each contestant; None: the usual number.
        parts: `WORKLOADS`, `SWEEP`, `TRAINING`.
        only: patterns of the names of points, as file names have them; empty: all.
        quick: a few points, measured a few times.
        scaling: also compare one thread with all of them, on large workloads.
    """

    output: Path
    threads: int = 0
    rounds: int | None = None
    parts: tuple[str, ...] = (WORKLOADS, SWEEP, TRAINING)
    only: tuple[str, ...] = ()
    quick: bool = False
    scaling: bool = False

    @property
    def effort(self) -> Effort:
        """How often to measure."""
        usual = QUICK_EFFORT if self.quick else FULL_EFFORT
        return usual if self.rounds is None else Effort(self.rounds, usual.seconds)


def run_bench(settings: BenchSettings, console: Console) -> None:
    """Run the benchmark, print its tables and write its files.

    Args:
        settings: what to do.
        console: where to print.

    Raises:
        InvalidArgumentError: if no point is named as wanted.
        OrtRoiAlignError: if outputs of contestants differ, a forced path did not run, the library
            is missing, or the directory cannot be made.
        MissingDependencyError: if only training was asked for, and PyTorch is missing.
    """
    refuse_forced_path()
    _let_idle_threads_sleep()
    load = os.getloadavg()[0]
    missing = missing_packages()
    points = _without_training(settings) if "torch" in missing else select_points(settings)
    _make_directory(settings.output)
    threads = settings.threads or available_cores()
    _print_notes(console, missing, load)
    machine = describe_machine(threads, copy_speed(threads), load)
    console.print(f"  {machine.title}", highlight=False, soft_wrap=True)
    point_settings = PointSettings(
        threads, settings.effort, "torchvision" not in missing, settings.scaling
    )
    measured = _measure_all(points, point_settings, console)
    results = Results(
        machine,
        tuple(result for result in measured if isinstance(result, PointResult)),
        tuple(result for result in measured if isinstance(result, TrainingResult)),
    )
    tables = report_tables(results)
    for table in tables:
        console.print(table.to_rich())
    for sentence in path_sentences(results):
        console.print(sentence, highlight=False)
    for sentence in disturbance_sentences(results):
        console.print(f"[yellow]{sentence}[/]", highlight=False)
    for file in _write_files(results, tables, settings.output, plots="matplotlib" not in missing):
        console.print(f"Wrote {file}", soft_wrap=True, highlight=False)


def select_points(settings: BenchSettings) -> list[AnyPoint]:
    """Return the points that the settings ask for.

    Raises:
        InvalidArgumentError: if a pattern fits no point.
    """
    points: list[AnyPoint] = [
        *(workloads() if WORKLOADS in settings.parts else []),
        *(sweep() if SWEEP in settings.parts else []),
        *(training_workloads() if TRAINING in settings.parts else []),
    ]
    for pattern in settings.only:
        if not any(fnmatch.fnmatchcase(point.name, pattern) for point in points):
            raise InvalidArgumentError(
                f"ort-roialign bench: --only must fit one of "
                f"{', '.join(point.name for point in points)}; got {pattern}"
            )
    if settings.only:
        return [
            point
            for point in points
            if any(fnmatch.fnmatchcase(point.name, pattern) for pattern in settings.only)
        ]
    return [point for point in points if point.quick or not settings.quick]


def _without_training(settings: BenchSettings) -> list[AnyPoint]:
    points: list[AnyPoint] = [
        point for point in select_points(settings) if not isinstance(point, TrainingPoint)
    ]
    if not points:
        raise MissingDependencyError(
            f"ort-roialign bench needs torch for training, not installed here. Install in the "
            f"directory of ort_roialign's sources:\n  {INSTALL_COMMAND}"
        )
    return points


def _let_idle_threads_sleep() -> None:
    """Keep OpenMP's threads from waiting for more work busily; PyTorch reads this when imported.

    Else they would keep the cores from the next contestant. Sessions get the same setting.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _print_notes(console: Console, missing: Sequence[str], load: float) -> None:
    for name in missing:
        console.print(
            f"[yellow]{name} is not installed: {OPTIONAL[name]}.[/] In the directory of "
            f"ort_roialign's sources: {INSTALL_COMMAND}".replace("'.[", "'.\\["),
            soft_wrap=True,
        )
    if load > BUSY_LOAD * available_cores():
        console.print(
            f"[yellow]The machine is busy: load average {load:.1f}.[/] Times will be too long and "
            f"spread widely.",
            soft_wrap=True,
        )


def _measure_all(
    points: Sequence[AnyPoint], settings: PointSettings, console: Console
) -> list[AnyResult]:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    results: list[AnyResult] = []
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=len(points))
        for point in points:
            progress.update(task, description=point.name)
            result = _measure(point, settings)
            progress.console.print(f"  {_line(result)}", highlight=False, soft_wrap=True)
            progress.advance(task)
            results.append(result)
    return results


def _measure(point: AnyPoint, settings: PointSettings) -> AnyResult:
    if isinstance(point, TrainingPoint):
        return measure_training(point, settings)
    return measure_point(point, settings)


def _line(result: AnyResult) -> str:
    if isinstance(result, TrainingResult):
        times = [_times(comparison, name) for name, comparison in result.directions.items()]
    else:
        times = [_times(result, result.path)]
    return f"{result.point.name}: {'; '.join(times)}"


def _times(result: Comparison, remark: str) -> str:
    times = [f"{OURS} {result.times[OURS].median * 1000:.3g} ms ({remark})"]
    for peer in PEERS:
        speedup = result.speedup(peer)
        if speedup is not None:
            times.append(f"{peer} {speedup:.1f} times that")
    return ", ".join(times)


def _make_directory(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OrtRoiAlignError(f"cannot make the directory {path}: {error.strerror}") from error


def _write_files(
    results: Results, tables: Sequence[TextTable], folder: Path, *, plots: bool
) -> list[Path]:
    """Write all files and return their names."""
    files = [folder / "results.json", folder / "results.md"]
    write_json(results, files[0])
    files[1].write_text(_markdown(results.machine, tables, results), encoding="utf-8")
    if plots:
        from ort_roialign.benchmarks.plots import plot_speedups, plot_time_against_rois

        for name, plot in (
            ("speedups.png", plot_speedups),
            ("time_against_rois.png", plot_time_against_rois),
        ):
            if plot(results, folder / name):
                files.append(folder / name)
    return files


def _markdown(machine: Machine, tables: Sequence[TextTable], results: Results) -> str:
    head = [
        "# RoIAlign, timed",
        "",
        f"{machine.title}. {machine.date}.",
        "",
        f"Copying large arrays moves {machine.copy_bytes_per_second / 1e9:.1f} GB/s, read and "
        f"written bytes both counted.",
        "",
        *(line for text in disturbance_sentences(results) for line in (text, "")),
    ]
    more = (path_table(results), description_table(results))
    sections = [table.to_markdown() for table in (*tables, *more) if table.rows]
    return "\n".join([*head, *sections])
