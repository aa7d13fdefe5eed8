"""The figures of `ort-roialign explain`.

They draw what the reference computes (`ort_roialign.reference`), in feature cells: cell `i` covers
`i` to `i + 1`, and its centre is at `i + 0.5`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ort_roialign.benchmarks.plots import DOTS_PER_INCH, STYLE
from ort_roialign.cli.two_roundings import cut_twice
from ort_roialign.reference._roi_pool import round_to_cells
from ort_roialign.reference._sampling import (
    AxisGrid,
    BinSamples,
    SamplingRule,
    lay_side,
    sample_axis,
)

BOX, ROUNDED, BINS, SAMPLES = "#d55e00", "#e69f00", "#0072b2", "#009e73"
# More lines than this are a grey area.
MOST_CELLS = 80
# More points than this are stored as pixels, in an SVG too.
MOST_DRAWN_POINTS = 10_000
# Around the box, in cells.
MARGIN = 1.5

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Pooled:
    """A box, and how it is pooled.

    Attributes:
        box: x1, y1, x2, y2 in image pixels.
        stride: image pixels of a feature cell.
        map_size: rows and columns of the feature map.
        bins: rows and columns.
        samples: per bin and axis; 0 is adaptive.
        origin: "half_pixel" or "output_half_pixel", as RoiAlign's attribute.
    """

    box: Box
    stride: float
    map_size: tuple[int, int]
    bins: tuple[int, int]
    samples: int
    origin: str = "half_pixel"

    @property
    def rule(self) -> SamplingRule:
        """How samples are laid, as the reference takes it."""
        return SamplingRule(np.float32(1 / self.stride), self.samples, self.origin)

    @property
    def box_cells(self) -> Box:
        """The box on the map, not rounded."""
        x1, y1, x2, y2 = (edge / self.stride for edge in self.box)
        return x1, y1, x2, y2

    def sides(self) -> tuple[tuple[np.float32, np.float32, int], ...]:
        """Begin, end in image pixels and bins: of y, then of x."""
        x1, y1, x2, y2 = map(np.float32, self.box)
        return (y1, y2, self.bins[0]), (x1, x2, self.bins[1])

    def rounded_bins(self) -> list[list[tuple[int, int]]]:
        """Cells of RoiPool's bins, first and one past the last: along y, then along x.

        A bin that lies beyond the map has none.
        """
        scale = self.rule.spatial_scale
        return [
            round_to_cells(*side, scale, end_belongs=True, limit_cell=extent)
            for side, extent in zip(self.sides(), self.map_size, strict=True)
        ]

    def grids(self) -> list[AxisGrid]:
        """RoIAlign's bins and samples: along y, then along x."""
        return [lay_side(*side, self.rule) for side in self.sides()]

    def sentences(self) -> Iterator[str]:
        """Say what the roundings do to the box's width."""
        x1, _, x2, _ = self.box
        cut = cut_twice(x1, x2, self.stride, self.bins[1])
        yield (
            f"Rounded down twice: {x2 - x1:g} px / {self.stride:g} = {cut.length:.2f} cells, cut "
            f"to {cut.num_cells}; {cut.num_cells} / {cut.num_bins} = {cut.bin_size:.2f} cells a "
            f"bin, cut to {cut.bin_cells}. {cut.lost_cells * self.stride:.0f} px of the width are "
            f"in no bin."
        )
        columns = self.rounded_bins()[1]
        first, end = columns[0][0], columns[-1][1]
        cells = f"cells {first} to {end - 1}" if first < end else "no cell of the map"
        yield (
            f"RoiPool, to the nearest cell and outwards: {cells}, bins of {_widths(columns)} cells."
        )
        grid = self.grids()[1]
        yield (
            f"RoiAlign: {float(grid.length_feature):.2f} cells, bins of "
            f"{float(grid.bin_size_feature):.2f} cells, samples a bin along x: "
            f"{grid.samples_per_bin}."
        )


def _widths(bins: Sequence[tuple[int, int]]) -> str:
    return " or ".join(map(str, sorted({end - begin for begin, end in bins})))


def draw_method(pooled: Pooled, path: Path) -> None:
    """Draw both roundings, RoiPool, RoIAlign's samples, and one sample's neighbours.

    Args:
        pooled: the box, and how it is pooled.
        path: PNG or SVG file to write.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(12, 12.6), layout="constrained")
        (cut, rounded), (aligned, sample) = figure.subplots(2, 2)
        window = _window(pooled)
        for axes in (cut, rounded, aligned):
            _draw_cells(axes, window)
        _draw_cut(cut, pooled)
        _draw_rounded(rounded, pooled)
        _draw_aligned(aligned, pooled)
        _draw_one_sample(sample, pooled)
        for axes in (cut, rounded, aligned):
            _draw_box(axes, pooled)
        figure.savefig(path, dpi=DOTS_PER_INCH, metadata=_metadata(path))


def draw_on_image(boxes: Sequence[Pooled], pixels: npt.NDArray[np.float32], path: Path) -> None:
    """Draw, for each box, what RoiPool and RoIAlign read of the image.

    Args:
        boxes: the boxes, and how they are pooled.
        pixels: the image [3, H, W], 0 to 1.
        path: PNG or SVG file to write.
    """
    height, width = pixels.shape[1:]
    with rc_context(STYLE):
        figure = Figure(figsize=(11, 5.4 * len(boxes)), layout="constrained")
        rows = figure.subplots(len(boxes), 2, squeeze=False)
        for pooled, panels in zip(boxes, rows, strict=True):
            extent = (0, width / pooled.stride, height / pooled.stride, 0)
            window = _window(pooled)
            for axes, draw in zip(panels, (_draw_rounded, _draw_aligned), strict=True):
                axes.imshow(pixels.transpose(1, 2, 0), extent=extent, interpolation="nearest")
                _draw_cells(axes, window)
                draw(axes, pooled)
                _draw_box(axes, pooled)
            figure.suptitle("On the image, in cells of the map of each box's level")
            panels[0].set_ylabel(f"stride {pooled.stride:g}")
        figure.savefig(path, dpi=DOTS_PER_INCH, metadata=_metadata(path))


def _metadata(path: Path) -> dict[str, Any]:
    return {"Date": None} if path.suffix.lower() == ".svg" else {}


def _window(pooled: Pooled) -> Box:
    """Return the part of the map that is drawn: the box, as it is and rounded."""
    x1, y1, x2, y2 = pooled.box_cells
    rows, columns = pooled.map_size
    return (
        max(0.0, float(np.floor(x1 - MARGIN))),
        max(0.0, float(np.floor(y1 - MARGIN))),
        min(float(columns), float(np.ceil(x2 + MARGIN))),
        min(float(rows), float(np.ceil(y2 + MARGIN))),
    )


def _draw_cells(axes: Any, window: Box) -> None:
    x1, y1, x2, y2 = window
    if max(x2 - x1, y2 - y1) <= MOST_CELLS:
        axes.set_xticks(np.arange(x1, x2 + 1), minor=True)
        axes.set_yticks(np.arange(y1, y2 + 1), minor=True)
        for axis in (axes.xaxis, axes.yaxis):
            axis.remove_overlapping_locs = False  # else a line is missing at every numbered tick
        axes.grid(which="minor", color="#bbbbbb", linewidth=0.6)
        axes.tick_params(which="minor", length=0)
    axes.set_xlim(x1, x2)
    axes.set_ylim(y2, y1)  # y points down in an image
    axes.set_aspect("equal")


def _draw_box(axes: Any, pooled: Pooled) -> None:
    x1, y1, x2, y2 = pooled.box_cells
    axes.add_patch(_outline((x1, y1, x2, y2), BOX, "--", 2))
    axes.plot([], [], "--", color=BOX, label="box, not rounded")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.06), ncols=3, fontsize=9)


def _outline(box: Box, colour: str, line: str = "-", width: float = 1.0) -> Rectangle:
    x1, y1, x2, y2 = box
    return Rectangle(
        (x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=colour, linestyle=line, linewidth=width
    )


def _filled(box: Box, colour: str, opacity: float) -> Rectangle:
    x1, y1, x2, y2 = box
    return Rectangle((x1, y1), x2 - x1, y2 - y1, facecolor=colour, alpha=opacity, linewidth=0)


def _draw_cut(axes: Any, pooled: Pooled) -> None:
    x1, y1, x2, y2 = pooled.box
    y = cut_twice(y1, y2, pooled.stride, pooled.bins[0])
    x = cut_twice(x1, x2, pooled.stride, pooled.bins[1])
    box = (x.begin_cell, y.begin_cell, x.begin_cell + x.num_cells, y.begin_cell + y.num_cells)
    axes.add_patch(_filled(box, ROUNDED, 0.25))
    axes.add_patch(_outline(box, ROUNDED, "-", 2))
    axes.plot([], [], "-", color=ROUNDED, label="box, rounded down")
    for row in range(y.num_bins if x.bin_cells else 0):
        for column in range(x.num_bins if y.bin_cells else 0):
            left, top = x.begin_cell + column * x.bin_cells, y.begin_cell + row * y.bin_cells
            one = (left, top, left + x.bin_cells, top + y.bin_cells)
            axes.add_patch(_filled(one, BINS, 0.25))
            axes.add_patch(_outline(one, BINS))
    axes.plot([], [], "-", color=BINS, label="bins, rounded down")
    axes.set_title(
        f"RoI Pooling: rounded down twice\n{x.length:.2f} cells to {x.num_cells}, "
        f"{x.bin_size:.2f} cells a bin to {x.bin_cells}"
    )


def _draw_rounded(axes: Any, pooled: Pooled) -> None:
    rows, columns = pooled.rounded_bins()
    box = (columns[0][0], rows[0][0], columns[-1][1], rows[-1][1])
    axes.add_patch(_outline(box, ROUNDED, "-", 2))
    axes.plot([], [], "-", color=ROUNDED, label="box, rounded")
    for begin_y, end_y in rows:
        for begin_x, end_x in columns:
            if begin_x == end_x or begin_y == end_y:
                continue
            one = (begin_x, begin_y, end_x, end_y)
            axes.add_patch(_filled(one, BINS, 0.18))
            axes.add_patch(_outline(one, BINS, width=0.6))
    axes.plot([], [], "-", color=BINS, label="bins, dark where they overlap")
    axes.set_title(
        f"RoiPool: to the nearest cell, bins outwards\n{columns[-1][1] - columns[0][0]} cells, "
        f"bins of {_widths(columns)}"
    )


def _draw_aligned(axes: Any, pooled: Pooled) -> None:
    grids = pooled.grids()
    # A coordinate of the operator counts from the first cell's centre.
    edges_y, edges_x = (
        float(grid.begin_feature) + 0.5 + np.arange(bins + 1) * float(grid.bin_size_feature)
        for grid, bins in zip(grids, pooled.bins, strict=True)
    )
    axes.hlines(edges_y, edges_x[0], edges_x[-1], color=BINS, linewidth=1)
    axes.vlines(edges_x, edges_y[0], edges_y[-1], color=BINS, linewidth=1)
    samples_y, samples_x = (
        _coordinates(grid, bins) + 0.5 for grid, bins in zip(grids, pooled.bins, strict=True)
    )
    x, y = np.meshgrid(samples_x, samples_y)
    axes.plot([], [], "-", color=BINS, label="bins, not rounded")
    (points,) = axes.plot(x.ravel(), y.ravel(), ".", color=SAMPLES, markersize=4, label="samples")
    points.set_rasterized(x.size > MOST_DRAWN_POINTS)
    per_bin = f"{grids[0].samples_per_bin} x {grids[1].samples_per_bin}"
    shift = "" if pooled.origin == "half_pixel" else "\nhalf a cell beside the box, as trained"
    axes.set_title(
        f"RoIAlign: nothing rounded\nbins of {float(grids[1].bin_size_feature):.2f} cells, "
        f"{per_bin} samples each{shift}"
    )


def _coordinates(grid: AxisGrid, bins: int) -> npt.NDArray[Any]:
    """Return the coordinates of all samples along one axis, bin by bin."""
    numbers = np.arange(bins)[:, None], np.arange(grid.samples_per_bin)[None]
    coordinates: npt.NDArray[Any] = grid.coordinates(*numbers).ravel()
    return coordinates


def _draw_one_sample(axes: Any, pooled: Pooled) -> None:
    """Draw the first sample of the middle bin, its neighbours and their weights.

    They are four, and fewer where the sample lies past the last cell's centre.
    """
    sampled, places = [], []
    for (begin, end, bins), grid, extent in zip(
        pooled.sides(), pooled.grids(), pooled.map_size, strict=True
    ):
        middle = bins // 2
        sampled.append(sample_axis(begin, end, bins, extent, pooled.rule)[middle])
        places.append(_coordinates(grid, bins)[middle * grid.samples_per_bin])
    y, x = sampled
    low_y, low_x = int(y.low[0]), int(x.low[0])
    _draw_cells(axes, (low_x - 1, low_y - 1, low_x + 3, low_y + 3))
    for row, weight_y in _weights(y).items():
        for column, weight_x in _weights(x).items():
            weight = weight_y * weight_x
            box = (column, row, column + 1, row + 1)
            axes.add_patch(_filled(box, SAMPLES, 0.15 + 0.6 * weight))
            axes.annotate(
                f"{weight:.3f}", (column + 0.5, row + 0.22), ha="center", fontsize=13, weight="bold"
            )
            axes.plot(column + 0.5, row + 0.5, "o", color="black", markersize=4)
            axes.plot(
                [column + 0.5, places[1] + 0.5],
                [row + 0.5, places[0] + 0.5],
                "-",
                color="black",
                linewidth=0.8,
            )
    axes.plot(places[1] + 0.5, places[0] + 0.5, "o", color=BOX, markersize=9, label="sample")
    axes.plot([], [], "o", color="black", markersize=4, label="centres of the cells it reads")
    axes.set_xticks(np.arange(low_x - 1, low_x + 4))
    axes.set_yticks(np.arange(low_y - 1, low_y + 4))
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.06), ncols=3, fontsize=9)
    axes.set_title(
        f"One sample: bilinear interpolation\nat x {places[1] + 0.5:.2f}, y {places[0] + 0.5:.2f}; "
        f"the weights' sum is 1"
    )


def _weights(sample: BinSamples) -> dict[int, float]:
    """Return what the first of some samples reads along an axis: cell -> weight."""
    fraction = float(sample.fraction[0])
    weights = {int(sample.low[0]): 1 - fraction}
    if sample.high[0] > sample.low[0]:
        weights[int(sample.high[0])] = fraction
    return weights
