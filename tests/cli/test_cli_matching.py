"""Matching of detections: order does not matter, differences do."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import tolerances

from ort_roialign.cli.matching import match_detections
from ort_roialign.errors import InvalidArgumentError


def detections(rows):
    """Turn rows of (x1, y1, x2, y2, label, score) into a result."""
    table = np.asarray(rows, dtype=np.float32).reshape(-1, 6)
    return {
        "boxes": table[:, :4],
        "labels": table[:, 4].astype(np.int64),
        "scores": table[:, 5],
    }


THREE = [
    (0, 0, 10, 10, 1, 0.9),
    (50, 50, 90, 80, 2, 0.6),
    (20, 0, 40, 30, 1, 0.3),
]


def test_equal_results_match_completely_with_no_difference():
    matching = match_detections(detections(THREE), detections(THREE))
    assert matching.pairs == ((0, 0), (1, 1), (2, 2))
    assert matching.complete
    assert matching.unmatched_explained
    assert matching.largest_box_difference == 0.0
    assert matching.largest_score_difference == 0.0


def test_nearly_tied_scores_may_swap_rows():
    expected = detections([(0, 0, 10, 10, 1, 0.5001), (30, 0, 40, 10, 1, 0.5000)])
    actual = detections([(30, 0, 40, 10, 1, 0.5001), (0, 0.25, 10, 10, 1, 0.5000)])
    matching = match_detections(expected, actual)
    assert matching.pairs == ((0, 1), (1, 0))
    assert matching.complete
    assert matching.largest_box_difference == 0.25
    np.testing.assert_allclose(
        matching.largest_score_difference, 1e-4, *tolerances.DIFFERENCE_OF_SCORES
    )


def test_a_chain_is_matched_completely_where_taking_the_nearest_first_would_not():
    # Expected 0 can only go to actual 0 (0.9 px away); expected 1 is nearest to actual 0 as well,
    # but can also go to actual 1. Taking the nearest pair first would leave expected 0 alone.
    expected = detections([(0, 0, 10, 10, 1, 0.5), (1.0, 0, 10, 10, 1, 0.5)])
    actual = detections([(0.9, 0, 10, 10, 1, 0.5), (1.8, 0, 10, 10, 1, 0.5)])
    assert match_detections(expected, actual).pairs == ((0, 0), (1, 1))


@pytest.mark.parametrize(
    ("column", "change", "partner"),
    [
        (0, 0.9, True),
        (0, 1.1, False),
        (3, -1.1, False),
        (4, 1, False),
        (5, 0.0015, True),
        (5, 0.0025, False),
        (1, np.nan, False),
        (5, np.inf, False),
    ],
)
def test_a_pair_needs_equal_labels_and_differences_within_the_tolerances(column, change, partner):
    changed = [list(row) for row in THREE]
    changed[0][column] += change
    matching = match_detections(detections(THREE), detections(changed))
    assert matching.complete is partner
    if not partner:
        assert matching.pairs == ((1, 1), (2, 2))
        assert matching.unmatched_expected == (0,)
        assert matching.unmatched_actual == (0,)


def test_each_detection_has_one_partner_only():
    twice = detections([THREE[0], THREE[0]])
    matching = match_detections(detections(THREE[:1]), twice)
    assert len(matching.pairs) == 1
    assert len(matching.unmatched_actual) == 1


def test_results_without_detections():
    none = detections([])
    assert match_detections(none, none).complete
    assert match_detections(none, none).unmatched_explained
    matching = match_detections(detections(THREE), none)
    assert matching.unmatched_expected == (0, 1, 2)
    assert not matching.unmatched_explained


def test_a_swap_at_the_limit_in_number_is_explained():
    expected = detections([*THREE[:2], (20, 0, 40, 30, 1, 0.3)])
    actual = detections([*THREE[:2], (70, 0, 80, 9, 3, 0.3001)])
    matching = match_detections(expected, actual)
    assert matching.unmatched_expected == (2,)
    assert matching.unmatched_actual == (2,)
    assert matching.unmatched_explained
    assert match_detections(expected, actual, max_detections=3).unmatched_explained
    # With room for a fourth row, neither detection had to go.
    limited = match_detections(expected, actual, max_detections=4)
    assert limited.unexplained_expected == (2,)
    assert limited.unexplained_actual == (2,)


def test_a_detection_well_above_the_cut_is_not_explained():
    moved = [(5, 0, 15, 10, 1, 0.9), *THREE[1:]]
    matching = match_detections(detections(THREE), detections(moved))
    assert not matching.unmatched_explained
    assert matching.unexplained_expected == (0,)
    assert matching.unexplained_actual == (0,)


def test_a_lost_detection_is_not_explained_by_being_the_last():
    matching = match_detections(detections(THREE), detections(THREE[:2]))
    assert matching.unmatched_expected == (2,)
    assert not matching.unmatched_explained


def test_different_last_scores_are_no_common_cut():
    other = [*THREE[:2], (70, 0, 80, 9, 3, 0.4)]
    assert not match_detections(detections(THREE), detections(other)).unmatched_explained


def test_a_detection_at_the_score_threshold_is_explained():
    expected = detections([*THREE, (70, 0, 80, 9, 3, 0.0505)])
    actual = detections(THREE)
    assert match_detections(expected, actual, score_threshold=0.05).unmatched_explained
    assert not match_detections(expected, actual, score_threshold=0.01).unmatched_explained


@pytest.mark.parametrize("shape", [(3, 5), (2, 4), (12,)])
def test_wrong_shapes_are_named(shape):
    wrong = {**detections(THREE), "boxes": np.zeros(shape)}
    with pytest.raises(InvalidArgumentError, match=r"actual must have boxes \[D, 4\]"):
        match_detections(detections(THREE), wrong)


def test_a_missing_array_is_named():
    with pytest.raises(InvalidArgumentError, match="expected must have boxes, labels and scores"):
        match_detections({"boxes": np.zeros((0, 4))}, detections(THREE))


def test_the_module_needs_no_torch():
    code = (
        "import sys; sys.modules['torch'] = None; sys.modules['onnxruntime'] = None\n"
        "import ort_roialign.cli.matching as m; print(m.match_detections.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "match_detections"
