"""The picture of where the time of a run goes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from ort_roialign._new_files import check_place
from ort_roialign.benchmarks.plots import DOTS_PER_INCH, STYLE
from ort_roialign.errors import InvalidArgumentError

# From the palette of Okabe and Ito, which colour-blind readers can tell apart; the last for others.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442")
OTHERS = "#999999"
MOST_COLOURS = len(COLOURS)


def check_picture(path: Path) -> None:
    """Check, before anything is measured, that a picture can be written.

    Raises:
        InvalidArgumentError: if the path is no place for a file, or does not end in .png.
    """
    check_place(path, "compare: --picture")
    if path.suffix.lower() != ".png":
        raise InvalidArgumentError(f"compare: --picture must end in .png; got {str(path)!r}")


def plot_time_shares(milliseconds: Mapping[str, Mapping[str, float]], path: Path) -> None:
    """Draw a bar for each way of running a model, cut by operator, to one scale.

    Args:
        milliseconds: way -> operator -> milliseconds; the operators that get a colour come first.
        path: PNG file to write.
    """
    names = list(next(iter(milliseconds.values())))
    with rc_context(STYLE):
        figure = Figure(figsize=(10, 1.8 + 0.6 * len(milliseconds)), layout="constrained")
        axes = figure.subplots()
        ways = list(milliseconds)
        starts = [0.0] * len(ways)
        pieces = [(name, [name], colour) for name, colour in zip(names, COLOURS, strict=False)]
        pieces.append(("others", names[len(COLOURS) :], OTHERS))
        for label, parts, colour in pieces:
            widths = [sum(milliseconds[way][part] for part in parts) for way in ways]
            axes.barh(ways, widths, left=starts, color=colour, label=label, height=0.6)
            starts = [start + width for start, width in zip(starts, widths, strict=True)]
        for row, total in enumerate(starts):
            axes.annotate(
                f"{total:.0f} ms" if total >= 10 else f"{total:.2f} ms",
                (total, row),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
            )
        axes.invert_yaxis()
        axes.set_xlim(0, max(starts) * 1.12)
        axes.set_xlabel("milliseconds of a profiled run")
        axes.set_title("Where the time goes")
        figure.legend(loc="outside lower center", ncols=4)
        figure.savefig(path, dpi=DOTS_PER_INCH)
