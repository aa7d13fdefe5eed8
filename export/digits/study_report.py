"""The study's tables and plots, from its numbers."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from evaluation import LARGE_PX, SIZES, SMALL_PX
from matplotlib import rc_context
from matplotlib.figure import Figure
from mismatch import OPERATORS
from poolings import TITLES

from ort_roialign.benchmarks.plots import DOTS_PER_INCH, STYLE

# Colours that colour-blind readers can tell apart, after Okabe and Ito.
COLOURS = ("#d55e00", "#e69f00", "#0072b2", "#56b4e9", "#009e73", "#cc79a7", "#999999")
MISMATCH_STRIDES = (4, 16, 32)
Run = dict[str, Any]


def write_report(folder: Path, runs: Sequence[Run], mismatch: dict[str, Any]) -> None:
    """Write results.md and the plots.

    Args:
        folder: where to.
        runs: the numbers of each training, as the study keeps them.
        mismatch: how far from their bins operators read, likewise.
    """
    text = ["# Results of the study\n", _mismatch_text(mismatch)]
    _plot_mismatch(mismatch["mismatches"], folder / "mismatch.svg")
    if runs:
        text.append(_runs_text(runs))
        _plot_runs(runs, folder / "map.svg")
    (folder / "results.md").write_text("\n".join(text))


def _of(runs: Iterable[Run], pooling: str, what: str, size: str) -> np.ndarray:
    ordered = sorted(runs, key=lambda run: run["seed"])
    return np.array([run[what][size] for run in ordered if run["pooling"] == pooling])


def _runs_text(runs: Sequence[Run]) -> str:
    steps = sorted({run["steps"] for run in runs})
    lines = [
        "## Detectors\n",
        f"Mean average precision (IoU 0.5 to 0.95), in percent: mean of the seeds ± their standard "
        f"deviation. Small: below {SMALL_PX} pixels, large: above {LARGE_PX} (root of the box's "
        f"area). {', '.join(map(str, steps))} steps of {runs[0]['batch_size']} composites, test on "
        f"{runs[0]['test_count']}.\n",
    ]
    for what, title in (("box_map", "Boxes"), ("mask_map", "Masks")):
        lines += [f"| {title} | seeds | {' | '.join(SIZES)} |", "|---|--:|" + "--:|" * len(SIZES)]
        for name, pooling_title in TITLES.items():
            cells = [_of(runs, name, what, size) * 100 for size in SIZES]
            if len(cells[0]):
                texts = (f"{c.mean():.1f} ± {_spread(c):.1f}" for c in cells)
                lines.append(f"| {pooling_title} | {len(cells[0])} | {' | '.join(texts)} |")
        lines.append("")
    lines += [
        "Difference to `RoiAlign, average of 4` with the same seed, in points: mean ± standard "
        "deviation.\n"
    ]
    for what, title in (("box_map", "Boxes"), ("mask_map", "Masks")):
        lines += [f"| {title} | {' | '.join(SIZES)} |", "|---|" + "--:|" * len(SIZES)]
        for name, pooling_title in TITLES.items():
            pairs = [
                (_of(runs, name, what, size), _of(runs, "roi_align_avg_4", what, size))
                for size in SIZES
            ]
            if name == "roi_align_avg_4" or not len(pairs[0][0]):
                continue
            if any(len(own) != len(base) for own, base in pairs):
                continue  # a seed is missing yet
            texts = (
                f"{(own - base).mean() * 100:+.1f} ± {_spread((own - base) * 100):.1f}"
                for own, base in pairs
            )
            lines.append(f"| {pooling_title} | {' | '.join(texts)} |")
        lines.append("")
    return "\n".join(lines)


def _spread(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0


def _plot_runs(runs: Sequence[Run], path: Path) -> None:
    with rc_context(STYLE):
        figure = Figure(figsize=(11, 4.2), layout="constrained")
        for axes, (what, title) in zip(
            figure.subplots(1, 2), (("box_map", "boxes"), ("mask_map", "masks")), strict=True
        ):
            for number, (name, colour) in enumerate(zip(TITLES, COLOURS, strict=False)):
                for place, size in enumerate(SIZES):
                    values = _of(runs, name, what, size) * 100
                    if not len(values):
                        continue
                    x = place + (number - (len(TITLES) - 1) / 2) * 0.13
                    axes.bar(
                        x,
                        values.mean(),
                        0.12,
                        color=colour,
                        label=TITLES[name] if place == 0 else None,
                    )
                    axes.plot([x] * len(values), values, ".", color="black", markersize=3)
            axes.set_xticks(range(len(SIZES)), SIZES)
            axes.set_ylabel("mean average precision, percent")
            axes.set_title(f"{title}; a dot is a seed")
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3)
        figure.savefig(path, dpi=DOTS_PER_INCH, metadata={"Date": None})


def _mismatch_text(mismatch: dict[str, Any]) -> str:
    example = mismatch["worked_example"]
    cells = ", ".join(f"{first}-{last}" for first, last in example["operator_bins"])
    text = (
        f"## A worked example\n\n"
        f"An image of {example['image_px']} pixels, a box of {example['box_px']}, stride "
        f"{example['stride']}: the box is {example['box_cells']} cells wide, and rounded down "
        f"{example['cut_cells']}. A seventh of that is {example['bin_cells']} cells, and rounded "
        f"down {example['cut_bin_cells']}: {example['lost_px']} pixels of the box are in no "
        f"bin.\n\n"
        f"`RoiPool` (as Fast R-CNN's code and torchvision) rounds otherwise: edges to the nearest "
        f"cell, the last one included, and bins outwards, so that they overlap. Its bins read the "
        f"cells {cells}.\n\n"
        f"## Mismatch\n\n"
        f"Position that an operator reads for a bin less the bin's own, in image pixels, over "
        f"boxes at random places: shift (what all bins have in common, so that a head can learn "
        f"it) and spread (standard deviation: what changes from box to box). Boxes of 32 "
        f"pixels:\n\n"
    )
    strides = sorted({row["stride"] for row in mismatch["mismatches"]})
    lines = [
        f"| operator | {' | '.join(f'stride {stride}' for stride in strides)} |",
        "|---|" + "--:|" * len(strides),
    ]
    for name in OPERATORS:
        rows = {
            row["stride"]: row
            for row in mismatch["mismatches"]
            if row["operator"] == name and row["size_px"] == 32
        }
        texts = (f"{abs(rows[s]['shift_px']):.1f}, {rows[s]['spread_px']:.1f}" for s in strides)
        lines.append(f"| {name} | {' | '.join(texts)} |")
    return text + "\n".join(lines) + "\n"


def _plot_mismatch(rows: Sequence[dict[str, Any]], path: Path) -> None:
    with rc_context(STYLE):
        figure = Figure(figsize=(11, 4), layout="constrained")
        panels = figure.subplots(1, 2)
        for stride, colour in zip(MISMATCH_STRIDES, COLOURS, strict=False):
            for name, line in (("RoiPool", "o-"), ("RoiAlign, average of 4", "s:")):
                own = [r for r in rows if r["operator"] == name and r["stride"] == stride]
                sizes = np.array([row["size_px"] for row in own])
                spread = np.array([row["spread_px"] for row in own])
                label = f"{name}, stride {stride}"
                panels[0].plot(sizes, spread, line, color=colour, label=label, markersize=4)
                panels[1].plot(sizes, spread / sizes * 100, line, color=colour, markersize=4)
        for axes, unit in zip(panels, ("image pixels", "% of the object"), strict=True):
            axes.set_xscale("log", base=2)
            axes.set_xlabel("side of the object, image pixels")
            axes.set_ylabel(f"spread, {unit}")
        figure.suptitle("How far what an operator reads for a bin strays from the bin")
        figure.legend(loc="outside lower center", ncols=3)
        figure.savefig(path, dpi=DOTS_PER_INCH, metadata={"Date": None})
