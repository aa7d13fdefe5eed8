"""Compares every output of a detector run two ways, and says whether they are the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ort_roialign.cli.matching import Matching, match_detections

Outputs = Mapping[str, npt.NDArray[Any]]

# A box that differs by less than a pixel is the same object.
BOX_TOLERANCE_PX = 1.0
# Far below any score threshold in use; float32 rounding through a hundred layers gives some 1e-4.
SCORE_TOLERANCE = 2e-3
# Mask probabilities run through four more layers than scores do, and are sampled at boxes that
# differ by some 1e-3 pixel.
MASK_TOLERANCE = 1e-2
# Below this part of the detections with a partner, "the last ones fell on different sides of the
# cut" is no explanation any more.
LEAST_MATCHED = 0.9
# torchvision pastes a mask at whole pixels, so a box whose edge lies this close to a whole number
# may be pasted one pixel further; the mask then differs at its rim, through no fault of its own.
ROUNDING_MARGIN_PX = 1e-3
# About one edge in 500 lies so close, four edges to a box.
MOST_ROUNDED_OTHERWISE = 0.05
# torchvision enlarges the box by the pad of one cell around a mask of 28 x 28 cells.
PASTE_ENLARGEMENT = 30 / 28


@dataclass(frozen=True)
class MaskComparison:
    """How far masks of matched detections differ.

    Attributes:
        largest_difference: largest difference of a probability, without the masks below.
        rounded_otherwise: masks pasted one pixel further, as their box lies at a rounding edge.
    """

    largest_difference: float
    rounded_otherwise: int


@dataclass(frozen=True)
class Comparison:
    """Two results of the same detector side by side.

    Attributes:
        expected: number of detections expected.
        actual: number of detections there are.
        matching: which of them are the same.
        masks: how far the masks differ; None if the detector has none.
        problems: what is wrong, one sentence each; empty if the results are the same.
    """

    expected: int
    actual: int
    matching: Matching
    masks: MaskComparison | None
    problems: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether the results are the same."""
        return not self.problems


def compare_outputs(
    expected: Outputs, actual: Outputs, *, max_detections: int, score_threshold: float
) -> Comparison:
    """Compare boxes, labels, scores and, if there are any, masks.

    Args:
        expected: `boxes` [E, 4] in pixels, `labels` [E], `scores` [E], maybe `masks`
            [E, 1, height, width].
        actual: the same, [A].
        max_detections: the largest number of detections that the detector returns.
        score_threshold: the score below which the detector drops a detection.
    """
    matching = match_detections(
        expected,
        actual,
        box_tolerance=BOX_TOLERANCE_PX,
        score_tolerance=SCORE_TOLERANCE,
        max_detections=max_detections,
        score_threshold=score_threshold,
    )
    counts = len(expected["scores"]), len(actual["scores"])
    problems = _matching_problems(matching, counts)
    masks = None
    if "masks" in expected:
        masks, mask_problems = _compare_masks(expected, actual, matching)
        problems += mask_problems
    return Comparison(*counts, matching, masks, tuple(problems))


def _matching_problems(matching: Matching, counts: tuple[int, int]) -> list[str]:
    problems = []
    if not matching.unmatched_explained:
        lost, new = len(matching.unexplained_expected), len(matching.unexplained_actual)
        problems.append(
            f"{lost} expected detections are missing and {new} others are there, and the cut of "
            f"the list does not explain them"
        )
    if len(matching.pairs) < LEAST_MATCHED * max(counts):
        problems.append(f"only {len(matching.pairs)} of {max(counts)} detections are the same")
    return problems


def _compare_masks(
    expected: Outputs, actual: Outputs, matching: Matching
) -> tuple[MaskComparison, list[str]]:
    if "masks" not in actual:
        return MaskComparison(float("inf"), 0), ["there are no masks"]
    e, a = expected["masks"], actual["masks"]
    if e.shape[1:] != a.shape[1:]:
        text = f"masks must have the shape {e.shape[1:]}; got {a.shape[1:]}"
        return MaskComparison(float("inf"), 0), [text]
    largest, rounded_otherwise = 0.0, 0
    for i, j in matching.pairs:
        difference = float(np.abs(e[i] - a[j]).max(initial=0.0))
        # `not <=` so that a NaN counts as too large.
        if not difference <= MASK_TOLERANCE and _may_round_otherwise(
            expected["boxes"][i], actual["boxes"][j]
        ):
            rounded_otherwise += 1
        else:
            largest = float(np.maximum(largest, difference))  # keeps a NaN, unlike max()
    problems = []
    if not largest <= MASK_TOLERANCE:
        problems.append(f"masks differ by up to {largest:.2g}; allowed is {MASK_TOLERANCE:g}")
    if rounded_otherwise > max(1.0, MOST_ROUNDED_OTHERWISE * len(matching.pairs)):
        problems.append(f"{rounded_otherwise} masks are pasted at other pixels")
    return MaskComparison(largest, rounded_otherwise), problems


def _may_round_otherwise(
    expected_box: npt.NDArray[np.float32], actual_box: npt.NDArray[np.float32]
) -> bool:
    """Whether two nearly equal boxes may be pasted at different whole pixels."""
    edges = np.stack([_paste_edges(expected_box), _paste_edges(actual_box)])
    close = np.abs(edges - np.round(edges)) <= ROUNDING_MARGIN_PX
    return bool(close.any()) or bool((np.trunc(edges[0]) != np.trunc(edges[1])).any())


def _paste_edges(box: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Return [4] edges x1, y1, x2, y2 in pixels of the area that a mask is pasted to."""
    corners = box.astype(np.float64).reshape(2, 2)
    centre = corners.mean(axis=0)
    return np.asarray((centre + (corners - centre) * PASTE_ENLARGEMENT).reshape(4))
