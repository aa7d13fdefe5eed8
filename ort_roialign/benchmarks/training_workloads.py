"""The workloads of training: heads of well-known detectors, for each operator of the family."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ort_roialign.benchmarks.problems import Problem, Several, Single
from ort_roialign.benchmarks.workloads import C4_HEAD, FPN_STRIDES


@dataclass(frozen=True)
class TrainingPoint:
    """An operator to time forward and backward.

    Attributes:
        name: short and unique.
        description: one line.
        operator: name of the function of `ort_roialign.torch`, and of `torchvision.ops` where it
            is there too.
        problem: the calls it makes.
        quick: whether a quick run has it.
    """

    name: str
    description: str
    operator: str
    problem: Problem
    quick: bool = False


FPN_IMAGE_PX = 800
# FPN's rule sends boxes of 112 to 224 pixels to P3, and so on: 14 to 28 cells of each level.
FPN_CELLS = (14.0, 28.0)
FINEST_SHORTEST_CELLS = 4.0
BOXES_A_LEVEL = 512
P3 = Single(
    height=100,
    width=100,
    stride=8,
    rois=BOXES_A_LEVEL,
    shortest_cells=FPN_CELLS[0],
    longest_cells=FPN_CELLS[1],
)
BOX_LEVELS = tuple(
    replace(
        P3,
        height=FPN_IMAGE_PX // stride,
        width=FPN_IMAGE_PX // stride,
        stride=stride,
        shortest_cells=FINEST_SHORTEST_CELLS if stride == FPN_STRIDES[0] else FPN_CELLS[0],
    )
    for stride in FPN_STRIDES
)
MASK_LEVELS = tuple(replace(level, rois=32, bins=14) for level in BOX_LEVELS)
# Stride 16 of an image of 608x1008 pixels.
VGG_HEAD = Single(channels=512, height=38, width=63, rois=300, stride=16, longest_cells=63)
RFCN_HEAD = replace(VGG_HEAD, channels=21 * 7 * 7)
ROTATED_HEAD = Single(height=128, width=128, rois=512, shortest_cells=2, longest_cells=64)


def training_workloads() -> list[TrainingPoint]:
    """Return all workloads of training; those of torchvision's operators first."""
    return [*_torchvision_operators(), *_further_operators()]


def _torchvision_operators() -> list[TrainingPoint]:
    return [
        TrainingPoint(
            "training/roi_align_box",
            "FPN, box head: 512 boxes on each of P2 to P5 of an 800x800 image, 256 channels, "
            "7x7 bins, sampling 2",
            "roi_align",
            Several(BOX_LEVELS),
        ),
        TrainingPoint(
            "training/roi_align_mask",
            "FPN, mask head: 32 boxes on each of P2 to P5 of an 800x800 image, 256 channels, "
            "14x14 bins, sampling 2",
            "roi_align",
            Several(MASK_LEVELS),
            quick=True,
        ),
        TrainingPoint(
            "training/roi_align_c4",
            "Faster R-CNN R50-C4: 128 boxes, 1024 channels, 50x68 map, 14x14 bins, adaptive grid",
            "roi_align",
            replace(C4_HEAD, rois=128),
        ),
        TrainingPoint(
            "training/roi_pool",
            "Fast R-CNN VGG-16: 300 boxes, 512 channels, 38x63 map, 7x7 bins",
            "roi_pool",
            VGG_HEAD,
            quick=True,
        ),
        TrainingPoint(
            "training/ps_roi_align",
            "R-FCN: 300 boxes, 21x49 channels, 38x63 map, 7x7 bins, sampling 2",
            "ps_roi_align",
            RFCN_HEAD,
        ),
        TrainingPoint(
            "training/ps_roi_pool",
            "R-FCN: 300 boxes, 21x49 channels, 38x63 map, 7x7 bins; no box reaches the last row "
            "and column, where torchvision's gradient is not that of its result",
            "ps_roi_pool",
            replace(RFCN_HEAD, spare_cells=1),
        ),
    ]


def _further_operators() -> list[TrainingPoint]:
    return [
        TrainingPoint(
            "training/multiscale_roi_align",
            "Maps, boxes and levels of training/roi_align_box in one call",
            "multiscale_roi_align",
            Several(BOX_LEVELS),
        ),
        TrainingPoint(
            "training/roi_align_rotated",
            "512 boxes turned by any angle, 256 channels, 128x128 map, 7x7 bins, sampling 2",
            "roi_align_rotated",
            ROTATED_HEAD,
        ),
        TrainingPoint(
            "training/prroi_pool",
            "512 boxes of 14 to 28 cells, 256 channels, 100x100 map, 7x7 bins; backward also for "
            "the boxes",
            "prroi_pool",
            P3,
            quick=True,
        ),
        TrainingPoint(
            "training/deform_roi_pool",
            "512 boxes of 14 to 28 cells, 256 channels, 100x100 map, 7x7 bins, adaptive grid; "
            "backward also for the offsets",
            "deform_roi_pool",
            replace(P3, sampling_ratio=0),
        ),
    ]
