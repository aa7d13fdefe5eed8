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
        if wanted.shape != got.shape:
            raise OrtRoiAlignError(
                f"{point}, call {number}: {contestant} gives shape {list(got.shape)}, "
                f"not {list(wanted.shape)}"
            )
        allowed = tolerance * float(np.abs(call.x).max())
        difference = float(np.abs(wanted - got).max(initial=0))
        if not difference <= allowed:  # a NaN is not
            raise OrtRoiAlignError(
                f"{point}, call {number}: outputs of {contestant} differ by {difference:.2g}; "
                f"at most {allowed:.2g} is allowed"
            )
