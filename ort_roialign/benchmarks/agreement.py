"""All contestants must compute the same: outputs are compared before anything is timed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ort_roialign.benchmarks.problems import Array, Call
from ort_roialign.errors import OrtRoiAlignError


def require_agreement(
    point: str,
    contestant: str,
    calls: Sequence[Call],
    expected: Sequence[Array],
    actual: Sequence[Array],
    tolerance: float,
) -> None:
    """Check a contestant's outputs.

    Args:
        point: what is computed, for the message.
        contestant: whose outputs, for the message.
        calls: the calls.
        expected: output of each call by another contestant.
        actual: output of each call.
        tolerance: largest difference, as a part of the largest absolute value of the call's map.

    Raises:
        OrtRoiAlignError: if shapes differ, or a difference is larger or not a number.
    """
    for number, (call, wanted, got) in enumerate(zip(calls, expected, actual, strict=True)):
        allowed = tolerance * float(np.abs(call.x).max())
        require_close(f"{point}, call {number}", contestant, wanted, got, allowed)


def require_close(
    where: str, contestant: str, expected: Array, actual: Array, allowed: float
) -> None:
    """Check one output of a contestant.

    Args:
        where: what is computed, for the message.
        contestant: whose output, for the message.
        expected: the output of another contestant.
        actual: the output.
        allowed: largest difference.

    Raises:
        OrtRoiAlignError: if shapes differ, or a difference is larger or not a number.
    """
    if expected.shape != actual.shape:
        raise OrtRoiAlignError(
            f"{where}: {contestant} gives shape {list(actual.shape)}, not {list(expected.shape)}"
        )
    difference = float(np.abs(expected - actual).max(initial=0))
    if not difference <= allowed:  # a NaN is not
        raise OrtRoiAlignError(
            f"{where}: outputs of {contestant} differ by {difference:.2g}; "
            f"at most {allowed:.2g} is allowed"
        )
