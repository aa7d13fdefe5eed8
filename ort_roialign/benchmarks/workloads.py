"""The workloads: RoIAlign as the heads of well-known detectors call it, and extreme cases."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ort_roialign.benchmarks.kernel_paths import DIRECT, PACKED
from ort_roialign.benchmarks.problems import Problem, Pyramid, Single


@dataclass(frozen=True)
class Point:
    """Something to time.

    Attributes:
        name: short and unique.
        description: one line.
        problem: the calls it makes.
        axis: what a sweep varies here; empty for a workload.
        value: the value on that axis.
        quick: whether a quick run has it.
        variants: whether maxima and other element types are timed too.
        large: whether it is worth comparing one thread with several.
        paths: the kernels' paths that take it, where forced.
    """

    name: str
    description: str
    problem: Problem
    axis: str = ""
    value: float = 0.0
    quick: bool = False
    variants: bool = False
    large: bool = False
    paths: tuple[str, ...] = (DIRECT, PACKED)


FPN_STRIDES = (4, 8, 16, 32)
# An image of 4:3 resized to a short side of 800 pixels, and padded to a multiple of 32.
BOX_HEAD = Pyramid(800, 1088, FPN_STRIDES, rois=1000, bins=7, sampling_ratio=2)
MASK_HEAD = replace(BOX_HEAD, rois=100, bins=14)
CASCADE = replace(BOX_HEAD, rois=512, sampling_ratio=0, stages=3)
# Stride 16 of the same image, and boxes of 16 pixels and more.
STRIDE_16 = Single(height=50, width=68, stride=16, shortest_cells=1, longest_cells=68)
C4_HEAD = replace(STRIDE_16, channels=1024, bins=14, sampling_ratio=0)
DC5_HEAD = replace(STRIDE_16, channels=2048)
MOBILE = Pyramid(320, 320, (8, 32), rois=100, bins=7, sampling_ratio=2)
# One map of no particular detector, of which the extreme cases and the sweep change one thing.
BASE = Single()


def workloads() -> list[Point]:
    """Return all workloads, those of real heads first."""
    return [*_heads(), *_extremes()]


def _heads() -> list[Point]:
    size = "256 channels, 7x7 bins, sampling 2"
    levels = [
        Point(
            f"fpn_box_p{level + 2}",
            f"Level P{level + 2} of fpn_box: its share of the 1000 boxes, stride {stride}, {size}",
            replace(BOX_HEAD, only_level=level),
            variants=stride == FPN_STRIDES[0],
        )
        for level, stride in enumerate(FPN_STRIDES)
    ]
    return [
        Point(
            "fpn_box",
            f"Faster R-CNN R50-FPN, box head: 1000 boxes on P2 to P5 of an 800x1088 image, {size}",
            BOX_HEAD,
            quick=True,
            variants=True,
            large=True,
        ),
        *levels,
        Point(
            "fpn_mask",
            "Mask R-CNN R50-FPN, mask head: 100 boxes on P2 to P5, 256 channels, 14x14 bins, "
            "sampling 2",
            MASK_HEAD,
            variants=True,
            large=True,
        ),
        Point(
            "c4",
            "Faster R-CNN R50-C4: 300 boxes, 1024 channels, 50x68 map, 14x14 bins, adaptive grid",
            C4_HEAD,
            variants=True,
            large=True,
        ),
        Point(
            "cascade",
            "Cascade R-CNN R50-FPN: 3 stages of 512 boxes on P2 to P5, 256 channels, 7x7 bins, "
            "adaptive grid",
            CASCADE,
            large=True,
        ),
        Point(
            "dc5",
            "Faster R-CNN R101-DC5: 300 boxes, 2048 channels, 50x68 map, 7x7 bins, sampling 2",
            DC5_HEAD,
            large=True,
        ),
        Point(
            "mobile_320",
            "Mobile detector, 320x320 image: 100 boxes on maps of 40x40 and 10x10, " + size,
            MOBILE,
            quick=True,
            variants=True,
        ),
    ]


def _extremes() -> list[Point]:
    return [
        Point("one_roi", "1 box, 256 channels, 100x100 map, 7x7 bins", replace(BASE, rois=1)),
        Point(
            "one_channel", "300 boxes, 1 channel, 100x100 map, 7x7 bins", replace(BASE, channels=1)
        ),
        Point(
            "three_channels",
            "300 boxes on a picture: 3 channels, 800x800 pixels, boxes of 8 pixels and more",
            replace(
                BASE,
                channels=3,
                height=800,
                width=800,
                stride=1,
                shortest_cells=8,
                longest_cells=800,
            ),
            quick=True,
            # A block of the whole picture would take more memory than the kernels allow themselves.
            paths=(DIRECT,),
        ),
        Point(
            "eight_images",
            "8 images with 100 boxes each, 256 channels, 100x100 maps, 7x7 bins",
            replace(BASE, images=8, rois=800),
            large=True,
        ),
        Point(
            "tiny_rois",
            "300 boxes smaller than a cell: sides from 1/20 to 9/10 cells",
            replace(BASE, shortest_cells=0.05, longest_cells=0.9),
            variants=True,
        ),
        Point(
            "whole_map_rois",
            "300 boxes as large as the map: sides from 90 to 100 of its 100 cells",
            replace(BASE, shortest_cells=90, longest_cells=100),
            variants=True,
        ),
    ]
