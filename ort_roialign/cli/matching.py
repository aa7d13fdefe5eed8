"""One-to-one matching of two detectors' outputs, because equal detections may come in any order.

Scores that differ in their last digits swap rows, so comparing row by row calls two equal results
different. Letters: `E` expected detections, `A` actual detections.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]

from ort_roialign.errors import InvalidArgumentError

FloatArray: TypeAlias = npt.NDArray[np.float64]
BoolArray: TypeAlias = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Matching:
    """Which detections of two results are the same.

    Attributes:
        pairs: `(expected row, actual row)`, in ascending order of the expected row.
        unmatched_expected: rows of the expected result without a partner.
        unmatched_actual: rows of the actual result without a partner.
        largest_box_difference: largest difference of a box coordinate over the pairs, in pixels.
        largest_score_difference: largest difference of a score over the pairs.
        unexplained_expected: those of `unmatched_expected` that the cut does not explain.
        unexplained_actual: those of `unmatched_actual` that the cut does not explain.
    """

    pairs: tuple[tuple[int, int], ...]
    unmatched_expected: tuple[int, ...]
    unmatched_actual: tuple[int, ...]
    largest_box_difference: float
    largest_score_difference: float
    unexplained_expected: tuple[int, ...]
    unexplained_actual: tuple[int, ...]

    @property
    def complete(self) -> bool:
        """Whether every detection of both results has its partner."""
        return not self.unmatched_expected and not self.unmatched_actual

    @property
    def unmatched_explained(self) -> bool:
        """Whether the cut explains every detection without a partner (true if there is none)."""
        return not self.unexplained_expected and not self.unexplained_actual


@dataclass(frozen=True)
class _Detections:
    """One result, checked and in float64 so that differences are exact."""

    boxes: FloatArray
    labels: npt.NDArray[Any]
    scores: FloatArray


def match_detections(
    expected: Mapping[str, npt.ArrayLike],
    actual: Mapping[str, npt.ArrayLike],
    *,
    box_tolerance: float = 1.0,
    score_tolerance: float = 2e-3,
    max_detections: int | None = None,
    score_threshold: float | None = None,
) -> Matching:
    """Pair the detections of two results one to one, whatever their order.

    Two detections may be a pair if their labels are equal, every box coordinate differs by at most
    `box_tolerance` and the scores differ by at most `score_tolerance`. Among all pairings the one
    with the most pairs is taken, and among those the one with the smallest differences.

    A detector keeps its best detections only: a fixed number of them, or those above a score. A
    detection at that cut may fall on either side of it by rounding alone, and is called explained:

    - at the limit in number: both results hold `max_detections` rows (if not given: equally many),
      and the score is within `score_tolerance` of the lowest score of each result;
    - at `score_threshold`, if given: the score is within `score_tolerance` of it.

    Args:
        expected: `boxes` [E, 4] as x1, y1, x2, y2 in pixels, `labels` [E], `scores` [E]; other
            keys are ignored.
        actual: the same, [A].
        box_tolerance: largest difference of a box coordinate within a pair, in pixels.
        score_tolerance: largest difference of the scores within a pair.
        max_detections: the largest number of detections that the detector returns.
        score_threshold: the lowest score that the detector returns.

    Returns:
        The pairs, the rows without a partner, and the largest differences over the pairs.

    Raises:
        InvalidArgumentError: if an array is missing or the shapes do not fit.
    """
    e = _checked("expected", expected)
    a = _checked("actual", actual)
    box_difference, score_difference = _differences(e, a)
    possible: BoolArray = (
        (e.labels[:, None] == a.labels[None, :])
        & (box_difference <= box_tolerance)
        & (score_difference <= score_tolerance)
    )
    # The cost of a possible pair is at most 2. An impossible pair costs more than all possible ones
    # together, so that the smallest sum has the largest number of possible pairs.
    cost = box_difference / max(box_tolerance, 1e-9) + score_difference / max(score_tolerance, 1e-9)
    impossible = 2.0 * min(cost.shape) + 3.0
    rows, columns = linear_sum_assignment(np.where(possible, cost, impossible))
    pairs = tuple(
        (int(i), int(j)) for i, j in zip(rows, columns, strict=True) if bool(possible[i, j])
    )
    unmatched_expected = _rest(len(e.scores), {i for i, _ in pairs})
    unmatched_actual = _rest(len(a.scores), {j for _, j in pairs})
    cuts = _cuts(e.scores, a.scores, score_tolerance, max_detections, score_threshold)
    return Matching(
        pairs=pairs,
        unmatched_expected=unmatched_expected,
        unmatched_actual=unmatched_actual,
        largest_box_difference=max((float(box_difference[p]) for p in pairs), default=0.0),
        largest_score_difference=max((float(score_difference[p]) for p in pairs), default=0.0),
        unexplained_expected=_unexplained(unmatched_expected, e.scores, cuts, score_tolerance),
        unexplained_actual=_unexplained(unmatched_actual, a.scores, cuts, score_tolerance),
    )


def _checked(name: str, result: Mapping[str, npt.ArrayLike]) -> _Detections:
    for key in ("boxes", "labels", "scores"):
        if key not in result:
            raise InvalidArgumentError(
                f"match_detections: {name} must have boxes, labels and scores; got {sorted(result)}"
            )
    boxes = np.asarray(result["boxes"], dtype=np.float64)
    labels = np.asarray(result["labels"])
    scores = np.asarray(result["scores"], dtype=np.float64)
    count = scores.shape[0] if scores.ndim == 1 else -1
    if boxes.shape != (count, 4) or labels.shape != (count,):
        raise InvalidArgumentError(
            f"match_detections: {name} must have boxes [D, 4], labels [D] and scores [D]; "
            f"got {list(boxes.shape)}, {list(labels.shape)} and {list(scores.shape)}"
        )
    return _Detections(boxes, labels, scores)


def _differences(e: _Detections, a: _Detections) -> tuple[FloatArray, FloatArray]:
    """Return [E, A] largest coordinate differences and score differences.

    Equal infinities differ by NaN, and a NaN differs from everything by NaN: a pair with a
    non-finite number is never possible, since no comparison with NaN holds.
    """
    with np.errstate(invalid="ignore"):
        boxes = np.abs(e.boxes[:, None, :] - a.boxes[None, :, :]).max(axis=2)
        scores = np.abs(e.scores[:, None] - a.scores[None, :])
    return boxes, scores


def _rest(count: int, matched: set[int]) -> tuple[int, ...]:
    return tuple(row for row in range(count) if row not in matched)


def _cuts(
    expected_scores: FloatArray,
    actual_scores: FloatArray,
    score_tolerance: float,
    max_detections: int | None,
    score_threshold: float | None,
) -> list[float]:
    """Return the scores at which a detector may have cut its list."""
    cuts = [] if score_threshold is None else [score_threshold]
    e, a = len(expected_scores), len(actual_scores)
    full = e == a and e > 0 and (max_detections is None or e == max_detections)
    if full:
        lowest = (float(expected_scores.min()), float(actual_scores.min()))
        # Two results cut at the same place end at the same score; else something was lost above.
        if abs(lowest[0] - lowest[1]) <= score_tolerance:
            cuts.append(min(lowest))
    return cuts


def _unexplained(
    rows: tuple[int, ...], scores: FloatArray, cuts: list[float], score_tolerance: float
) -> tuple[int, ...]:
    return tuple(
        row
        for row in rows
        if not any(abs(float(scores[row]) - cut) <= score_tolerance for cut in cuts)
    )
