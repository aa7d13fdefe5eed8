"""The study's tables and plots, from its numbers."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from evaluation import LARGE_PX, SIZES, SMALL_PX
from matplotlib import rc_context
from matplotlib.figure import Figure
from mismatch import OPERATORS, SIZES_PX
from poolings import TITLES
from scipy.stats import t as student_t

from ort_roialign.benchmarks.plots import DOTS_PER_INCH, STYLE

# Colours that colour-blind readers can tell apart, after Okabe and Ito.
COLOURS = ("#d55e00", "#e69f00", "#0072b2", "#56b4e9", "#009e73", "#cc79a7", "#999999")
MISMATCH_STRIDES = (4, 8, 16, 32)
MEASURES = {"box_map": "Boxes", "mask_map": "Masks"}
# What others are compared with: Mask R-CNN's own.
BASE = "roi_align_avg_4"
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


def _of(runs: Iterable[Run], pooling: str, what: str, size: str) -> dict[int, float]:
    """One number of each run with a way of pooling, in percent, by seed; no digits, no number."""
    of_pooling = {run["seed"]: run[what][size] for run in runs if run["pooling"] == pooling}
    return {seed: value * 100 for seed, value in of_pooling.items() if value is not None}


def _runs_text(runs: Sequence[Run]) -> str:
    return "\n".join(
        (
            "## Detectors\n",
            f"Mean average precision (IoU 0.5 to 0.95), in percent: mean of the seeds ± their "
            f"standard deviation. Small: below {SMALL_PX} pixels, large: above {LARGE_PX} (root of "
            f"the box's area). {runs[0]['steps']} steps of {runs[0]['batch_size']} "
            f"composites, test on {runs[0]['test_count']}.\n",
            *_tables(runs, _of, ".1f", _spread),
            f"Difference to `{TITLES[BASE]}` with the same seed, in points: mean ± half of its "
            f"95 % confidence interval (Student's t). A difference smaller than that may be "
            f"chance.\n",
            *_tables(runs, _over_base, "+.1f", _confidence),
        )
    )


def _over_base(runs: Sequence[Run], pooling: str, what: str, size: str) -> dict[int, float]:
    base = _of(runs, BASE, what, size)
    own = {} if pooling == BASE else _of(runs, pooling, what, size)
    return {seed: own[seed] - base[seed] for seed in own.keys() & base.keys()}


def _tables(
    runs: Sequence[Run],
    numbers: Callable[[Sequence[Run], str, str, str], dict[int, float]],
    form: str,
    uncertainty: Callable[[np.ndarray], float],
) -> Iterator[str]:
    """Yield the lines of a table of boxes and one of masks; a pooling without runs is left out."""
    for what, title in MEASURES.items():
        yield f"| {title} | seeds | {' | '.join(SIZES)} |"
        yield "|---|--:|" + "--:|" * len(SIZES)
        for name, pooling_title in TITLES.items():
            cells = [np.array([*numbers(runs, name, what, size).values()]) for size in SIZES]
            if len(cells[0]):
                texts = (_cell_text(cell, form, uncertainty) for cell in cells)
                yield f"| {pooling_title} | {len(cells[0])} | {' | '.join(texts)} |"
        yield ""


def _cell_text(values: np.ndarray, form: str, uncertainty: Callable[[np.ndarray], float]) -> str:
    if not len(values):
        return "none"
    known = f"{uncertainty(values):.1f}" if len(values) > 1 else "?"
    return f"{format(values.mean(), form)} ± {known}"


def _spread(values: np.ndarray) -> float:
    return float(values.std(ddof=1))


def _confidence(values: np.ndarray) -> float:
    """Half of the 95 % confidence interval of the mean."""
    quantile = student_t.ppf(0.975, len(values) - 1)
    return float(quantile * values.std(ddof=1) / np.sqrt(len(values)))


def _plot_runs(runs: Sequence[Run], path: Path) -> None:
    with rc_context(STYLE):
        figure = Figure(figsize=(11, 4.2), layout="constrained")
        for axes, (what, title) in zip(figure.subplots(1, 2), MEASURES.items(), strict=True):
            for number, (name, colour) in enumerate(zip(TITLES, COLOURS, strict=False)):
                for place, size in enumerate(SIZES):
                    values = np.array([*_of(runs, name, what, size).values()])
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
        f"down {example['cut_bin_cells']}: {example['lost_px']:g} pixels of the box are in no "
        f"bin.\n\n"
        f"`RoiPool` (as Fast R-CNN's code and torchvision) rounds otherwise: edges to the nearest "
        f"cell, the last one included, and bins outwards, so that they overlap. Its bins read the "
        f"cells {cells}.\n\n"
        f"## Mismatch\n\n"
        f"Position that an operator reads for a bin less the bin's own, in image pixels, over "
        f"boxes at random places; three numbers: what all bins have in common (a head can learn "
        f"it); how far the bins' means differ (a head can learn it for boxes of one size); and "
        f"the spread of a bin from box to box, which no head can learn. The last two are standard "
        f"deviations. RoiAlign's name has where it takes the first cell's centre to be; a box "
        f"narrower than a cell is as wide as one to `output_half_pixel`. Boxes of 32 pixels:\n\n"
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
        texts = (
            f"{abs(rows[s]['shift_px']):.1f}, {rows[s]['bins_px']:.1f}, {rows[s]['spread_px']:.1f}"
            for s in strides
        )
        lines.append(f"| {name} | {' | '.join(texts)} |")
    return text + "\n".join(lines) + "\n"


def _plot_mismatch(rows: Sequence[dict[str, Any]], path: Path) -> None:
    with rc_context(STYLE):
        figure = Figure(figsize=(11, 4), layout="constrained")
        panels = figure.subplots(1, 2)
        # RoiAlign's line is the same for every stride.
        lines = [("RoiPool", stride, "o-") for stride in MISMATCH_STRIDES]
        lines.append(("RoiAlign, average of 4, half_pixel", MISMATCH_STRIDES[-1], "s:"))
        for (name, stride, line), colour in zip(lines, COLOURS, strict=False):
            own = [r for r in rows if r["operator"] == name and r["stride"] == stride]
            sizes = np.array([row["size_px"] for row in own])
            spread = np.array([row["spread_px"] for row in own])
            label = f"{name}, stride {stride}" if name == "RoiPool" else f"{name}, every stride"
            panels[0].plot(sizes, spread, line, color=colour, label=label, markersize=4)
            panels[1].plot(sizes, spread / sizes * 100, line, color=colour, markersize=4)
        for axes, unit in zip(panels, ("image pixels", "% of the object"), strict=True):
            axes.set_xscale("log", base=2)
            axes.set_xticks(SIZES_PX, map(str, SIZES_PX))
            axes.minorticks_off()
            axes.set_xlabel("side of the object, image pixels")
            axes.set_ylabel(f"spread, {unit}")
        figure.suptitle("How far what an operator reads for one bin strays from box to box")
        figure.legend(loc="outside lower center", ncols=3)
        figure.savefig(path, dpi=DOTS_PER_INCH, metadata={"Date": None})
