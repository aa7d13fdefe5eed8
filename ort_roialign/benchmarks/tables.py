"""The tables of a report: built once, shown in a terminal and written as Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

from ort_roialign.benchmarks.kernel_paths import DIRECT, PACKED
from ort_roialign.benchmarks.measure import Timing
from ort_roialign.benchmarks.results import PEERS, Results, mean_speedup
from ort_roialign.benchmarks.sweep import AXES, AXIS_TEXTS, BASE_AXIS, RANDOM_AXIS, base_value
from ort_roialign.benchmarks.thread_scaling import FREE_CORES
from ort_roialign.benchmarks.timed_point import (
    CHOSEN,
    OURS,
    PATH_LIMIT,
    TORCHVISION,
    Comparison,
    PointResult,
)
from ort_roialign.benchmarks.training import DIRECTIONS

NOTHING = "-"
RATIO = "x"


@dataclass(frozen=True)
class TextTable:
    """A table of text.

    Attributes:
        title: of the whole table.
        headings: of the columns; the first one holds names, the others numbers.
        rows: cells.
        notes: what is needed to read it rightly.
    """

    title: str
    headings: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    notes: tuple[str, ...] = ()

    def to_rich(self) -> Table:
        """Return it for a terminal."""
        table = Table(title=self.title, caption=" ".join(self.notes) or None, pad_edge=False)
        for number, heading in enumerate(self.headings):
            table.add_column(heading, justify="right" if number else "left", no_wrap=number == 0)
        for row in self.rows:
            table.add_row(*row)
        return table

    def to_markdown(self) -> str:
        """Return it as a section of a Markdown file."""
        ruler = ["---", *["--:"] * (len(self.headings) - 1)]
        rows = [self.headings, ruler, *self.rows]
        lines = [f"| {' | '.join(row)} |" for row in rows]
        notes = [text for note in self.notes for text in ("", note)]
        return "\n".join([f"## {self.title}", "", *lines, *notes, ""])


def report_tables(results: Results) -> list[TextTable]:
    """Return the tables that a run ends with; those without rows are left out."""
    tables = [
        _workload_table(results),
        *_sweep_tables(results),
        _mean_table(results),
        _variant_table(results),
        _thread_table(results),
        _training_table(results),
    ]
    return [table for table in tables if table.rows]


def description_table(results: Results) -> TextTable:
    """Return what each point is."""
    rows = [(result.point.name, result.point.description) for result in results.measured]
    return TextTable("What was timed", ("Name", "Description"), rows)


_TIME_HEADINGS = ("plugin ms", *(text for peer in PEERS for text in (peer, RATIO)), "floor")
_TIME_NOTES = (
    "Median milliseconds of a run, and half the distance between its quartiles as a part of it;",
    f"{RATIO}: time over the plugin's; floor: moving the data once at the speed of copying.",
)


def _workload_table(results: Results) -> TextTable:
    rows = [(r.point.name, *_time_cells(results, r)) for r in results.workloads]
    headings = ("Workload", *_TIME_HEADINGS)
    return TextTable("Workloads, float32 averages", headings, rows, _TIME_NOTES)


def _sweep_tables(results: Results) -> list[TextTable]:
    tables = []
    for axis in AXES:
        rows = [(f"{value:g}", *_time_cells(results, r)) for value, r in axis_points(results, axis)]
        tables.append(TextTable(f"Sweep: {AXIS_TEXTS[axis]}", (axis, *_TIME_HEADINGS), rows))
    random = [r for r in results.sweep if r.point.axis == RANDOM_AXIS]
    rows = [(r.point.name, *_time_cells(results, r)) for r in random]
    tables.append(TextTable("Random combinations", ("Point", *_TIME_HEADINGS), rows))
    return tables


def axis_points(results: Results, axis: str) -> list[tuple[float, PointResult]]:
    """Return the points of one axis of the sweep with their values, in order.

    The base belongs to every axis on which it has a value; alone it makes no axis.
    """
    points = [(r.point.value, r) for r in results.sweep if r.point.axis == axis]
    if points and not math.isnan(base_value(axis)):
        points += [(base_value(axis), r) for r in results.sweep if r.point.axis == BASE_AXIS]
    return sorted(points, key=lambda pair: pair[0])


def _mean_table(results: Results) -> TextTable:
    rows = [
        (
            name.replace("_", ", "),
            str(len(members)),
            *(_ratio(mean_speedup(members, peer)) for peer in PEERS),
        )
        for name, members in results.compared.items()
        if members
    ]
    headings = ("", "points", *(f"{peer} / {OURS}" for peer in PEERS))
    return TextTable("Geometric means of the ratios", headings, rows)


def _time_cells(results: Results, result: PointResult) -> tuple[str, ...]:
    cells = [_time(result.times[OURS])]
    for peer in PEERS:
        cells += [_time(result.times.get(peer)), _ratio(result.speedup(peer))]
    return (*cells, _three_digits(results.floor_seconds(result) * 1000))


def _variant_table(results: Results) -> TextTable:
    with_variants = [r for r in results.points if r.variant_times]
    variants = list(with_variants[0].variant_times) if with_variants else []
    rows = [
        (
            r.point.name,
            _time(r.variant_times["float32"]),
            *(_ratio(r.variant_ratio(name)) for name in variants[1:]),
        )
        for r in with_variants
    ]
    return TextTable(
        "Types and maxima: the plugin's time over that of float32 averages",
        ("Workload", "float32 ms", *variants[1:]),
        rows,
    )


def _thread_table(results: Results) -> TextTable:
    rows = []
    for r in results.points:
        if r.scaling is None:
            continue
        one, several = r.scaling.times[1], r.scaling.times[r.scaling.threads]
        rows.append(
            (
                r.point.name,
                _time(one),
                _time(several),
                _ratio(r.scaling.speedup),
                _ratio(r.scaling.machine_speedup),
                _ratio(r.scaling.free_speedup),
                f"{len(r.scaling.free_rounds)} of {len(one.samples)}",
            )
        )
    threads = results.machine.threads
    headings = (
        "Workload",
        "1 thread, ms",
        f"{threads} threads, ms",
        "times as fast",
        "matrix product",
        "cores free",
        "rounds",
    )
    note = (
        f"matrix product: how many times as fast onnxruntime multiplies matrices on {threads} "
        f"threads, in the same rounds; cores free: times as fast in the rounds in which that is at "
        f"least {FREE_CORES:.0%} of the ideal, and how many these are."
    )
    return TextTable("Threads", headings, rows, (note,))


def _training_table(results: Results) -> TextTable:
    rows = [
        (r.point.name, *(text for name in DIRECTIONS for text in _peer_cells(r.directions[name])))
        for r in results.training
    ]
    headings = (text for name in DIRECTIONS for text in (f"{name} ms", TORCHVISION, RATIO))
    note = (
        f"Median milliseconds, and half the distance between quartiles as a part of it, of "
        f"ort_roialign.torch and torchvision.ops; {RATIO}: time over that of ort_roialign.torch."
    )
    return TextTable("Training in PyTorch, float32", ("Operator", *headings), rows, (note,))


def _peer_cells(comparison: Comparison) -> tuple[str, ...]:
    peer = comparison.times.get(TORCHVISION)
    return _time(comparison.times[OURS]), _time(peer), _ratio(comparison.speedup(TORCHVISION))


def path_table(results: Results) -> TextTable:
    """Return the times of both paths and of the chosen one, for every point."""
    rows = [
        (
            r.point.name,
            r.path,
            *(_time(r.path_times.get(path)) for path in (CHOSEN, DIRECT, PACKED)),
            _ratio(r.path_ratio),
        )
        for r in results.points
    ]
    return TextTable(
        "Choice of the path",
        ("Point", "chosen", "chosen ms", "direct ms", "packed ms", "chosen / better"),
        rows,
        (" ".join(path_sentences(results)),),
    )


def path_sentences(results: Results) -> list[str]:
    """Return what the check of the paths found."""
    if not results.points:
        return []
    worst = results.worst_paths[0]
    ratio = _ratio(max(worst.path_ratio, 1))  # less is noise
    sentences = [
        f"The chosen path takes at most {ratio} times as long as the better one, at "
        f"{worst.point.name}."
    ]
    for result in results.slow_paths:
        same = "the same path, so noise" if result.path == result.better_path else "another path"
        sentences.append(
            f"Over {PATH_LIMIT:g}: {result.point.name}, {_ratio(result.path_ratio)}, chosen "
            f"{result.path}, better {result.better_path} ({same})."
        )
    return sentences


def disturbance_sentences(results: Results) -> list[str]:
    """Return what is to be said of other processes that ran meanwhile."""
    disturbed = results.disturbed
    if not disturbed:
        return []
    worst = max(disturbed, key=lambda result: result.other_cores)
    return [
        f"Other processes disturbed {len(disturbed)} of {len(results.measured)} points, most of "
        f"all {worst.point.name}, where they kept {worst.other_cores:.1f} of "
        f"{results.machine.cores} cores busy. Times there are too long, and ratios not to be "
        f"trusted."
    ]


def _time(timing: Timing | None) -> str:
    if timing is None:
        return NOTHING
    return f"{_three_digits(timing.median * 1000)} ±{timing.spread:.0%}"


def _ratio(ratio: float | None) -> str:
    return NOTHING if ratio is None or math.isnan(ratio) else _three_digits(ratio)


def _three_digits(value: float) -> str:
    """Return a positive number with three significant digits, and not as a power of ten."""
    digits = 2 - math.floor(math.log10(value)) if value > 0 else 0
    return f"{value:.{max(digits, 0)}f}"
