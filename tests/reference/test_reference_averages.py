"""What cells weigh in an average adds up to 1, in the references."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tolerances
from numpy.testing import assert_allclose

from ort_roialign import reference


@pytest.mark.parametrize(
    ("operator", "rois"),
    # Edges of the bins of PrRoiPool's first box are rounded by up to a tenth of a bin.
    [
        (reference.roi_align, [[20, 30, 20.00002, 30.5], [40, 20, 61, 37.5]]),
        (reference.roi_align_rotated, [[20, 30, 0.00002, 0.5, 0.4], [50, 45, 21, 17.5, 2]]),
        (reference.pr_roi_pool, [[20, 30, 20.00002, 30.5], [40, 20, 61, 37.5]]),
        (reference.deform_roi_pool, [[20, 30, 20.00002, 30.5], [40, 20, 61, 37.5]]),
    ],
)
def test_the_average_of_a_constant_map_is_the_constant(
    operator: Any, rois: list[list[float]]
) -> None:
    x = np.full((1, 2, 50, 60), 3, np.float32)
    y = operator(
        x, np.array(rois, np.float32), [0, 0], output_height=7, output_width=3, spatial_scale=0.5
    )
    # PrRoiPool's bins between edges that round to the same number are empty.
    filled = y[y != 0]
    assert filled.size >= (y.size if operator is not reference.pr_roi_pool else y.size // 2 + 1)
    assert_allclose(filled, 3, *tolerances.KERNEL["float64"])
