"""The pictures: how many times faster, and time against the number of boxes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from ort_roialign.benchmarks.results import PEERS, Results, mean_speedup
from ort_roialign.benchmarks.sweep import BASE_TEXT
from ort_roialign.benchmarks.tables import axis_points
from ort_roialign.benchmarks.timed_point import ONNXRUNTIME, OURS, TORCHVISION, PointResult

# From the palette of Okabe and Ito, which colour-blind readers can tell apart.
COLOURS = {OURS: "#0072b2", ONNXRUNTIME: "#e69f00", TORCHVISION: "#d55e00"}
MARKERS = {OURS: "o", ONNXRUNTIME: "s", TORCHVISION: "^"}
FLOOR_COLOUR = "#555555"
DOTS_PER_INCH = 150
BAR_HEIGHT = 0.38
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "legend.frameon": False,
    "svg.hashsalt": "ort_roialign",  # else each SVG has other names of parts
}


def plot_speedups(results: Results, path: Path) -> bool:
    """Draw the peers' times over ours for each workload.

    Args:
        results: of a run.
        path: PNG file to write.

    Returns:
        Whether there were workloads to draw.
    """
    members = results.workloads
    peers = _peers(members)
    if not members:
        return False
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 1.6 + 0.46 * (len(members) + 1)), layout="constrained")
        axes = figure.subplots()
        names = [*(member.point.name for member in members), "geometric mean"]
        for number, peer in enumerate(peers):
            values = [
                *(member.speedup(peer) or 0 for member in members),
                mean_speedup(members, peer),
            ]
            offset = (number - (len(peers) - 1) / 2) * BAR_HEIGHT
            places = [row + offset for row in range(len(names))]
            bars = axes.barh(
                places,
                [value - 1 for value in values],
                BAR_HEIGHT * 0.92,
                left=1,
                color=COLOURS[peer],
                label=peer,
            )
            labels = [f"{value:.1f}" if value < 100 else f"{value:.0f}" for value in values]
            axes.bar_label(bars, labels, padding=3, fontsize=8.5)
        axes.set_yticks(range(len(names)), names)
        axes.get_yticklabels()[-1].set_fontweight("bold")
        axes.axhline(len(members) - 0.5, color="#999999", linewidth=0.8)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        _log_axis(axes, "x")
        least = min(value for peer in peers for value in _speedups(members, peer))
        axes.set_xlim(min(0.8, least * 0.8), axes.get_xlim()[1] * 1.25)
        axes.axvline(1, color=COLOURS[OURS], linewidth=1.5, label=f"as fast as {OURS}")
        axes.set_xlabel(f"time / time of {OURS} (longer bar: {OURS} is that many times as fast)")
        _titles(figure, "RoIAlign, float32 averages: peers' time over ours", results)
        figure.legend(loc="outside lower center", ncols=3)
        figure.savefig(path, dpi=DOTS_PER_INCH)
    return True


def plot_time_against_rois(results: Results, path: Path) -> bool:
    """Draw everyone's time against the number of boxes, and the memory floor.

    Args:
        results: of a run.
        path: PNG file to write.

    Returns:
        Whether the sweep over the number of boxes has points to draw.
    """
    points = axis_points(results, "rois")
    if not points:
        return False
    counts = [value for value, _ in points]
    members = [member for _, member in points]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8, 5.6), layout="constrained")
        axes = figure.subplots()
        for name in (TORCHVISION, ONNXRUNTIME, OURS):
            if name in _peers(members) or name == OURS:
                _draw_times(axes, name, counts, members)
        floors = [results.floor_seconds(member) * 1000 for member in members]
        axes.plot(counts, floors, "--", color=FLOOR_COLOUR, label="memory floor")
        _log_axis(axes, "x")
        _log_axis(axes, "y")
        axes.set_xlabel("boxes in a call")
        axes.set_ylabel("time of a call, ms (band: middle half of the samples)")
        _titles(figure, "RoIAlign: time against the number of boxes", results, BASE_TEXT)
        axes.legend(loc="upper left")
        figure.savefig(path, dpi=DOTS_PER_INCH)
    return True


def _draw_times(
    axes: Axes, name: str, counts: Sequence[float], members: Sequence[PointResult]
) -> None:
    timings = [member.times[name] for member in members]
    low, high = zip(*(timing.quartiles for timing in timings), strict=True)
    colour = COLOURS[name]
    axes.fill_between(
        counts, [1000 * v for v in low], [1000 * v for v in high], color=colour, alpha=0.2, lw=0
    )
    medians = [1000 * timing.median for timing in timings]
    axes.plot(counts, medians, color=colour, marker=MARKERS[name], markersize=5, label=name)


def _peers(members: Sequence[PointResult]) -> list[str]:
    return [peer for peer in PEERS if any(peer in member.times for member in members)]


def _speedups(members: Sequence[PointResult], peer: str) -> list[float]:
    values = (member.speedup(peer) for member in members)
    return [value for value in values if value is not None]


def _log_axis(axes: Axes, name: str) -> None:
    """Make an axis logarithmic, with plain numbers at 1, 2 and 5."""
    (axes.set_xscale if name == "x" else axes.set_yscale)("log")
    axis: Any = axes.xaxis if name == "x" else axes.yaxis
    axis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=20))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
    axis.grid(True)


def _titles(figure: Figure, title: str, results: Results, more: str = "") -> None:
    axes = figure.axes[0]
    lines = [text for text in (more, results.machine.title) if text]
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    axes.set_title("\n".join(lines), fontsize=8.5, fontweight="normal", color="#444444")
