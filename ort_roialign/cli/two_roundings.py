"""RoI Pooling's two roundings, as the text that RoIAlign came with tells them: down, twice."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class CutSide:
    """One side of a box after both roundings, in feature cells.

    Attributes:
        length: of the side on the map, not rounded.
        begin_cell: where it begins, rounded down.
        num_cells: its length, rounded down.
        bin_size: a bin's part of that, not rounded.
        bin_cells: the same, rounded down: what a bin reads, maybe nothing.
        num_bins: bins of the side.
    """

    length: float
    begin_cell: int
    num_cells: int
    bin_size: float
    bin_cells: int
    num_bins: int

    @property
    def lost_cells(self) -> float:
        """Cells of the side that no bin reads."""
        return self.length - self.num_bins * self.bin_cells


def cut_twice(begin_px: float, end_px: float, stride: float, num_bins: int) -> CutSide:
    """Round one side of a box to cells, and its bins again.

    Args:
        begin_px: x1 or y1 in image pixels.
        end_px: x2 or y2 in image pixels.
        stride: image pixels of a cell.
        num_bins: bins of the side.

    Source:
        He et al., "Mask R-CNN", 2017, section 3, on the quantizations of RoIPool.
    """
    length = (end_px - begin_px) / stride
    num_cells = math.floor(length)
    return CutSide(
        length,
        math.floor(begin_px / stride),
        num_cells,
        num_cells / num_bins,
        num_cells // num_bins,
        num_bins,
    )
