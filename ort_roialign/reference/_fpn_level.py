"""Which map of a feature pyramid a region is pooled from.

Lin et al., "Feature Pyramid Networks", 2017, equation 1, with the small numbers that torchvision,
detectron2 and mmdet add to the logarithm or to the level.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class LevelRule:
    """Which map a region is pooled from, by its size."""

    canonical_scale: np.float32  # image pixels
    canonical_level: np.float32
    log_epsilon: np.float32
    level_epsilon: np.float32
    min_level: int  # of the first map
    max_level: int

    def map_number(self, width_image: np.float32, height_image: np.float32) -> int:
        """The map for a region of this size."""
        with np.errstate(over="ignore", invalid="ignore"):
            area = width_image * height_image
            if not area > 0:
                return 0
            ratio = np.sqrt(area) / self.canonical_scale + self.log_epsilon
            if not ratio > 0:  # a negative log_epsilon; the logarithm is not a number
                return 0
            # From float64, because libraries differ in the last bit of a float32 logarithm.
            logarithm = np.float32(math.log2(float(ratio)))
            level = np.floor(self.canonical_level + logarithm + self.level_epsilon)
        return int(min(max(level, self.min_level), self.max_level)) - self.min_level


def level_of_scale(scale: np.float32) -> int:
    """The level of a map's scale: 2 at a quarter of the image's size."""
    logarithm = float(np.float32(-math.log2(scale)))
    return int(math.copysign(math.floor(abs(logarithm) + 0.5), logarithm))
