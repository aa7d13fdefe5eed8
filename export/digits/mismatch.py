"""How far from its bin an operator reads, in image pixels: measured on the operators themselves.

A map whose cells hold their own position is pooled. What comes out of a bin is then the position
that the operator read for it, and the position that the bin has in the image is known. A maximum
shows the last cell or sample of a bin; on the negated map, it shows the first one.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ort_roialign import ops
from ort_roialign.cli.two_roundings import cut_twice

BINS = 7
IMAGE_PX = 1024  # a side
STRIDES = (4, 8, 16, 32)
SIZES_PX = (8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384)

# A map [1, C, H, W], boxes [R, 4], cells per pixel -> [R, C, 7, 7].
Pool = Callable[[np.ndarray, np.ndarray, float], np.ndarray]


def _images(boxes: np.ndarray) -> np.ndarray:
    return np.zeros(len(boxes), np.int64)


def _roi_pool(x: np.ndarray, boxes: np.ndarray, scale: float) -> np.ndarray:
    pooled, _ = ops.roi_pool(
        x, boxes, _images(boxes), output_height=BINS, output_width=BINS, spatial_scale=scale
    )
    return pooled


def _roi_align(mode: str, samples: int, origin: str) -> Pool:
    def pool(x: np.ndarray, boxes: np.ndarray, scale: float) -> np.ndarray:
        return ops.roi_align(
            x,
            boxes,
            _images(boxes),
            output_height=BINS,
            output_width=BINS,
            spatial_scale=scale,
            sampling_ratio=samples,
            mode=mode,
            coordinate_transformation_mode=origin,
        )

    return pool


def _prroi_pool(x: np.ndarray, boxes: np.ndarray, scale: float) -> np.ndarray:
    return ops.pr_roi_pool(
        x, boxes, _images(boxes), output_height=BINS, output_width=BINS, spatial_scale=scale
    )


# Where the first cell's centre lies is a part of RoiAlign's names here; the detectors of the study
# have torchvision's `output_half_pixel`.
OPERATORS: dict[str, Pool] = {
    "RoiPool": _roi_pool,
    "RoiAlign, maximum of 4, half_pixel": _roi_align("max", 2, "half_pixel"),
    "RoiAlign, average of 4, half_pixel": _roi_align("avg", 2, "half_pixel"),
    "RoiAlign, 1 sample, half_pixel": _roi_align("avg", 1, "half_pixel"),
    "RoiAlign, average, adaptive, half_pixel": _roi_align("avg", 0, "half_pixel"),
    "RoiAlign, average of 4, output_half_pixel": _roi_align("avg", 2, "output_half_pixel"),
    "PrRoiPool": _prroi_pool,
}


@dataclass(frozen=True)
class Mismatch:
    """Of all bins of boxes of one size on a map of one stride, along x.

    Attributes:
        operator: a key of `OPERATORS`.
        stride: image pixels of a cell.
        size_px: side of the boxes.
        mean_px: mean distance of the position read from the bin's centre.
        shift_px: mean of it with its sign: what all bins have in common, and a head can learn.
        bins_px: how far the bins' own means are from each other, as a standard deviation: what is
            the same in all boxes of this size, and a head can learn for one size.
        spread_px: standard deviation of one bin from box to box, the root of the bins' mean
            variance: what no head can learn.
    """

    operator: str
    stride: int
    size_px: int
    mean_px: float
    shift_px: float
    bins_px: float
    spread_px: float


def measure(seed: int, boxes_each: int = 2000) -> list[Mismatch]:
    """Measure every operator for every stride and size, on boxes at random places.

    Args:
        seed: of the places.
        boxes_each: boxes of each size.
    """
    random = np.random.default_rng(seed)
    found = []
    for stride in STRIDES:
        cells = IMAGE_PX // stride
        # A cell's position is its centre.
        x = np.tile((np.arange(cells, dtype=np.float32) + 0.5) * stride, (cells, 1))
        ramps = np.stack([x, -x])[None]
        for size in SIZES_PX:
            # Away from the borders, where an operator has no cells to read.
            begin = random.uniform(2 * stride, IMAGE_PX - size - 2 * stride, (boxes_each, 2))
            boxes = np.concatenate([begin, begin + size], axis=1).astype(np.float32)
            centres = boxes[:, :1] + (np.arange(BINS) + 0.5) * size / BINS
            for name, pool in OPERATORS.items():
                pooled = pool(ramps, boxes, 1 / stride)[:, :, 0]  # of the first row of bins
                errors = (pooled[:, 0] - pooled[:, 1]) / 2 - centres
                found.append(
                    Mismatch(
                        name,
                        stride,
                        size,
                        round(float(np.abs(errors).mean()), 3),
                        round(float(errors.mean()), 3),
                        round(float(errors.mean(axis=0).std()), 3),
                        round(float(np.sqrt(errors.var(axis=0).mean())), 3),
                    )
                )
    return found


@dataclass(frozen=True)
class WorkedExample:
    """A box pooled by rounding down twice, as the text has it, and by `RoiPool` itself.

    Attributes:
        box_cells: width of the box on the map.
        cut_cells: the same, rounded down.
        bin_cells: a bin's part of that.
        cut_bin_cells: the same, rounded down: what a bin reads.
        lost_px: image pixels of the box that no bin reads.
        operator_bins: first and last cell of each bin of `RoiPool`, which rounds to the nearest
            cell, counts the last one in, and lets bins overlap.
    """

    box_cells: float
    cut_cells: int
    bin_cells: float
    cut_bin_cells: int
    lost_px: float
    operator_bins: list[tuple[int, int]]


def worked_example(image_px: int, box_px: int, stride: int, bins: int = BINS) -> WorkedExample:
    """Work out what becomes of a box at the image's corner."""
    cells = image_px // stride
    x = np.tile(np.arange(cells, dtype=np.float32), (cells, 1))
    box = np.array([[0, 0, box_px, box_px]], np.float32)
    pooled = _roi_pool(np.stack([x, -x])[None], box, 1 / stride)[0, :, 0]
    cut = cut_twice(0, box_px, stride, bins)
    return WorkedExample(
        box_cells=round(cut.length, 2),
        cut_cells=cut.num_cells,
        bin_cells=round(cut.bin_size, 2),
        cut_bin_cells=cut.bin_cells,
        lost_px=round(cut.lost_cells * stride, 2),
        operator_bins=[(int(-first), int(last)) for last, first in pooled.T],
    )
