"""What is timed: calls of RoIAlign with random maps and boxes, as real detectors make them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

# FPN, equation 1: a box of 224 x 224 pixels is pooled from the level of stride 2^4.
CANONICAL_SIDE_PX = 224.0
CANONICAL_LEVEL = 4
# From one stage of a cascade to the next a box moves and grows by about this part of its side.
REFINEMENT = 0.1


@dataclass(frozen=True, eq=False)
class Call:
    """One call of RoIAlign, float32.

    Attributes:
        x: feature map, [num_images, channels, height, width].
        rois: boxes x1, y1, x2, y2 in image pixels, [num_rois, 4], within the image.
        batch_indices: each box's image, [num_rois], int64, in ascending order.
        bins: output height and width.
        sampling_ratio: samples a bin along each axis; 0: adaptive.
        stride: image pixels a cell, a power of two: every contestant then scales boxes exactly.
    """

    x: Array
    rois: Array
    batch_indices: Array
    bins: int
    sampling_ratio: int
    stride: int

    @property
    def output_shape(self) -> tuple[int, int, int, int]:
        """Shape of Y."""
        return (len(self.rois), self.x.shape[1], self.bins, self.bins)

    @property
    def numbered_rois(self) -> Array:
        """Image's number, x1, y1, x2, y2, as PyTorch's operators take boxes, [num_rois, 5]."""
        return np.concatenate([self.batch_indices[:, None].astype(np.float32), self.rois], axis=1)

    @property
    def facts(self) -> dict[str, Any]:
        """Sizes and attributes, for the report."""
        return {
            "x": list(self.x.shape),
            "rois": len(self.rois),
            "bins": self.bins,
            "sampling_ratio": self.sampling_ratio,
            "stride": self.stride,
        }


class Problem(Protocol):
    """A description that becomes calls."""

    def calls(self, rng: np.random.Generator) -> list[Call]:
        """Draw the maps and boxes."""


@dataclass(frozen=True)
class Single:
    """One call on one map.

    Attributes:
        channels: of the map.
        height: of the map, in cells.
        width: likewise.
        rois: number of boxes, spread evenly over the images.
        bins: output height and width.
        sampling_ratio: samples a bin along each axis; 0: adaptive.
        images: number of images.
        stride: image pixels a cell.
        shortest_cells: a box's sides are log-uniform from here, in cells,
        longest_cells: to here, and to the map's side at most.
        spare_cells: last rows and columns of the map that no box reaches.
    """

    channels: int = 256
    height: int = 100
    width: int = 100
    rois: int = 300
    bins: int = 7
    sampling_ratio: int = 2
    images: int = 1
    stride: int = 8
    shortest_cells: float = 1.0
    longest_cells: float = 100.0
    spare_cells: int = 0

    def calls(self, rng: np.random.Generator) -> list[Call]:
        """Draw the map and the boxes."""
        x = _feature_map(rng, self.images, self.channels, self.height, self.width)
        sides = (self.shortest_cells * self.stride, self.longest_cells * self.stride)
        image = (
            (self.width - self.spare_cells) * self.stride,
            (self.height - self.spare_cells) * self.stride,
        )
        rois = random_boxes(rng, self.rois, sides, image)
        batch_indices = np.arange(self.rois) * self.images // max(self.rois, 1)
        return [Call(x, rois, batch_indices, self.bins, self.sampling_ratio, self.stride)]


@dataclass(frozen=True)
class Several:
    """The calls of several problems.

    Attributes:
        problems: in this order.
    """

    problems: tuple[Problem, ...]

    def calls(self, rng: np.random.Generator) -> list[Call]:
        """Draw the calls of each."""
        return [call for problem in self.problems for call in problem.calls(rng)]


@dataclass(frozen=True)
class Pyramid:
    """Calls on the levels of a feature pyramid, to which boxes go by FPN's rule.

    Attributes:
        image_height: in pixels, a multiple of every stride.
        image_width: likewise.
        strides: image pixels a cell of each level, finest first.
        rois: number of boxes of all levels together.
        bins: output height and width.
        sampling_ratio: samples a bin along each axis; 0: adaptive.
        channels: of each map.
        stages: stages of a cascade, each of which pools all boxes again, slightly moved.
        only_level: position of the single level to pool from; None: all of them.
        shortest_px: a box's sides are log-uniform from here, in pixels, to the image's sides.
    """

    image_height: int
    image_width: int
    strides: tuple[int, ...]
    rois: int
    bins: int
    sampling_ratio: int
    channels: int = 256
    stages: int = 1
    only_level: int | None = None
    shortest_px: float = 16.0

    def calls(self, rng: np.random.Generator) -> list[Call]:
        """Draw the boxes and the maps; a level without boxes makes no call."""
        image = (self.image_width, self.image_height)
        boxes = random_boxes(rng, self.rois, (self.shortest_px, max(image)), image)
        maps = {
            level: _feature_map(
                rng, 1, self.channels, self.image_height // stride, self.image_width // stride
            )
            for level, stride in enumerate(self.strides)
            if self.only_level in (None, level)
        }
        return [call for stage in self._stages(rng, boxes) for call in self._stage(stage, maps)]

    def _stages(self, rng: np.random.Generator, boxes: Array) -> Iterator[Array]:
        limit = np.array([self.image_width, self.image_height] * 2, np.float32)
        for _ in range(self.stages):
            yield boxes
            sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
            moved = boxes + REFINEMENT * sides * rng.standard_normal(boxes.shape) / 2
            corners = moved.reshape(-1, 2, 2)
            ordered = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
            boxes = np.clip(ordered, 0, limit).astype(np.float32)

    def _stage(self, boxes: Array, maps: dict[int, Array]) -> Iterator[Call]:
        levels = pyramid_levels(boxes, self.strides)
        for level, x in maps.items():
            rois = boxes[levels == level]
            if len(rois):
                batch_indices = np.zeros(len(rois), np.int64)
                stride = self.strides[level]
                yield Call(x, rois, batch_indices, self.bins, self.sampling_ratio, stride)


def random_boxes(
    rng: np.random.Generator, count: int, sides_px: tuple[float, float], image: tuple[float, float]
) -> Array:
    """Draw boxes that lie within the image, each side log-uniform for itself.

    Args:
        rng: where the numbers come from.
        count: number of boxes.
        sides_px: shortest and longest side; cut to the image's.
        image: width and height in pixels.

    Returns:
        x1, y1, x2, y2 in pixels, [count, 4], float32.
    """
    limit = np.asarray(image, np.float64)
    shortest, longest = (np.minimum(side, limit) for side in sides_px)
    sides = np.exp(rng.uniform(np.log(shortest), np.log(longest), (count, 2)))
    # The exponential of a logarithm may be a last digit too long.
    start = rng.uniform(0, 1, (count, 2)) * np.maximum(limit - sides, 0)
    return np.concatenate([start, np.minimum(start + sides, limit)], axis=1).astype(np.float32)


def pyramid_levels(boxes: Array, strides: tuple[int, ...]) -> Array:
    """Return for each box the position in `strides` of the level that FPN pools it from.

    A level that is missing between two others is replaced by the next coarser one.
    """
    areas = np.prod(boxes[:, 2:].astype(np.float64) - boxes[:, :2], axis=1)
    with np.errstate(divide="ignore"):  # a box without area takes the finest level
        wanted = np.floor(CANONICAL_LEVEL + np.log2(np.sqrt(areas) / CANONICAL_SIDE_PX))
    own = np.log2(strides)
    positions: Array = np.searchsorted(own, np.clip(wanted, own[0], own[-1]))
    return positions


def _feature_map(rng: np.random.Generator, *shape: int) -> Array:
    return rng.standard_normal(shape, dtype=np.float32)
