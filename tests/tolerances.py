"""Every tolerance of the test suite, each with its reason; no other file holds one.

A tolerance is `(rtol, atol)` as `numpy.testing.assert_allclose` takes it. Test data are of order 1
(standard normal feature maps), so an absolute tolerance is also one relative to the data.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt


class Tolerance(NamedTuple):
    """Relative and absolute tolerance, in the order of `numpy.testing.assert_allclose`."""

    rtol: float
    atol: float


# Kernels accumulate float32, float16 and bfloat16 in float32: a bin sums up to a few thousand
# products of order 1, each rounded to 2^-24, then the result is rounded to the output type.
KERNEL = {
    # 24-bit significand; sums in a different order than the peers'.
    "float32": Tolerance(1e-5, 1e-5),
    # 53-bit significand.
    "float64": Tolerance(1e-12, 1e-12),
    # 11-bit significand: one rounding of the result is 2^-11 = 4.9e-4 relative.
    "float16": Tolerance(1e-3, 1e-3),
    # 8-bit significand: one rounding of the result is 2^-8 = 3.9e-3 relative.
    "bfloat16": Tolerance(8e-3, 8e-3),
}

# A gradient cell collects contributions of every RoI that touches it, up to some hundreds more
# terms than an output bin has, so its float32 sum keeps about one decimal digit less.
GRADIENT = {
    "float32": Tolerance(1e-4, 1e-4),
    "float64": Tolerance(1e-11, 1e-11),
    "float16": Tolerance(2e-3, 2e-3),
    "bfloat16": Tolerance(1e-2, 1e-2),
}


def gradient_of_any_size(type_name: str, expected: npt.NDArray[Any]) -> Tolerance:
    """The tolerance of a gradient of boxes or offsets.

    They add up what all channels and cells of a bin give, or of all bins, times a scale: where the
    largest is above 10, the absolute tolerance is one relative to a tenth of it.
    """
    rtol, atol = GRADIENT[type_name]
    return Tolerance(rtol, atol * max(1.0, float(np.abs(expected).max(initial=0)) / 10))


# ONNX publishes RoiAlign's inputs and outputs with four decimals, the outputs being those of the
# inputs before rounding: half a unit of the last decimal for either, and float32 rounding on top.
PRINTED_4_DECIMALS = Tolerance(0.0, 1.01e-4)

# A number printed with three decimals is off by half of the last one, and by float32's rounding.
PRINTED_3_DECIMALS = Tolerance(0.0, 6e-4)

# A position of up to 1024 pixels is measured in float32, and its mean is kept with three decimals.
MEASURED_POSITION_PX = Tolerance(0.0, 2e-3)

# Standard deviation of 300 draws that are even over a cell, averaged over bins that move together:
# it is known to 2.6 % (a relative error of sqrt((1.8 - 1) / 4 / 300)), and three of those.
SAMPLED_SPREAD = Tolerance(0.08, 0.0)

# onnxruntime and PyTorch round the steps from one pixel of a resized image to the next differently
# in float32: the position of a pixel a few hundred cells from the origin moves by up to about 1e-4
# cells, and neighbouring cells differ by a few units.
RESIZED_IMAGE = Tolerance(1e-3, 1e-3)

# A central difference in float64 with this step around a loss of order 10: its rounding, 10 *
# 2^-53, divided by the step.
FINITE_DIFFERENCE_STEP = 2.0**-14
FINITE_DIFFERENCE = Tolerance(1e-9, 1e-9)

# Share of an exported detector's detections that must be eager PyTorch's. The two differ by about
# 1e-3 pixels, so a box whose overlap with a better one lies at the threshold of non-maximum
# suppression may be kept by one of them only, which then changes a few detections near it.
SAME_DETECTIONS = 0.9

# Mean differences that a matched detection's other results may have: its box may differ by 1e-3
# pixels, which moves a mask's edge by a pixel where it lies at a whole number, and the largest
# value of a heatmap may have a neighbour as large.
SAME_RESULT = {"masks": 1e-2, "keypoints": 1.0, "keypoints_scores": 1e-2}

# PyTorch convolves a batch in another order of operations than its images one by one.
BATCHED_DETECTION = Tolerance(1e-4, 1e-3)

# Two float32 scores of about 0.5 that differ by 1e-4: each is rounded by up to 2^-25, which is 3e-4
# of the difference.
DIFFERENCE_OF_SCORES = Tolerance(1e-3, 0.0)

# 8-bit colours that are blended twice, and cut to a whole number each time.
BLENDED_COLOUR = Tolerance(0.0, 2.0)

# Outputs of order 1 of a detector's heads: each adds some hundred products of order 1 or less, in
# convolutions, a pooling and a linear layer, in another order than PyTorch. Every sum is rounded to
# 2^-24, and what one layer rounds the next ones carry on: about 1e-6 in all, and room for chance.
DETECTOR_OUTPUT = Tolerance(1e-5, 1e-5)

# A detector before and after the conversion of its pooling, which alone rounds otherwise, by about
# 1e-6 of features of order 1; box deltas are then multiplied by sides of some hundred pixels.
CONVERTED_DETECTOR = Tolerance(1e-5, 1e-3)
