"""The errors of `reference.multi_scale_roi_align` and its kin, word by word as the kernels'."""

from __future__ import annotations

import numpy as np
import pytest
from test_reference_multi_scale import OPERATORS

from ort_roialign.errors import InvalidArgumentError
from ort_roialign.reference._multi_scale import (
    multi_scale_roi_align,
    multi_scale_roi_align_rotated,
    multi_scale_roi_align_rotated_grad,
)

GOOD_MAPS = [np.ones((2, 3, 8, 8), np.float32), np.ones((2, 3, 4, 4), np.float32)]


def changed(**changes):
    """Arguments of two maps, of which some are changed."""
    arguments = {"rois": None, "batch_indices": [0, 1], "maps": GOOD_MAPS}
    arguments["spatial_scales"] = (0.25, 0.125)
    return arguments | changes


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            changed(spatial_scales=()),
            "attribute spatial_scales must have one number for each map, 1 to 16 in all; got 0",
        ),
        (
            changed(spatial_scales=[0.5] * 17),
            "attribute spatial_scales must have one number for each map, 1 to 16 in all; got 17",
        ),
        (
            changed(spatial_scales=[0.5, -0.25]),
            "attribute spatial_scales must be finite and greater than 0; got -0.25",
        ),
        (
            changed(spatial_scales=[np.inf, 0.25]),
            "attribute spatial_scales must be finite and greater than 0; got inf",
        ),
        (
            changed(spatial_scales=[0.5, 0.25, 0.125]),
            "X must be as many maps as attribute spatial_scales has numbers, 3; got 2",
        ),
        (changed(canonical_scale=0.0), "attribute canonical_scale must be greater than 0; got 0"),
        (changed(canonical_scale=np.nan), "attribute canonical_scale must be finite; got nan"),
        (changed(log_epsilon=np.inf), "attribute log_epsilon must be finite; got inf"),
        (changed(level_epsilon=-np.inf), "attribute level_epsilon must be finite; got -inf"),
        (
            changed(canonical_level=-1001),
            "attribute canonical_level must be at least -1000; got -1001",
        ),
        (changed(min_level=-2000), "attribute min_level must be at least -1000; got -2000"),
        (
            changed(max_level=2**31),
            "attribute max_level must be at most 2147483647; got 2147483648",
        ),
        (
            changed(max_level=4),
            "attribute max_level must be in [min_level, min_level + 2 maps - 1] = [2, 3]; got 4",
        ),
        (
            changed(min_level=4, max_level=3),
            "attribute max_level must be in [min_level, min_level + 2 maps - 1] = [4, 5]; got 3",
        ),
        (changed(mode="sum"), 'attribute mode must be "avg" or "max"; got "sum"'),
        (changed(output_height=0), "attribute output_height must be at least 1; got 0"),
        (changed(sampling_ratio=-1), "attribute sampling_ratio must be at least 0; got -1"),
        (
            changed(maps=[GOOD_MAPS[0], np.ones((3, 4, 4), np.float32)]),
            "X[1] must have shape [num_images, channels, height, width]; got [3, 4, 4]",
        ),
        (
            changed(maps=[GOOD_MAPS[0], np.ones((2, 3, 0, 4), np.float32)]),
            "X[1] must have height and width of at least 1; got [2, 3, 0, 4]",
        ),
        (
            changed(maps=[GOOD_MAPS[0], np.ones((1, 3, 4, 4), np.float32)]),
            "X[1] must have as many images and channels as X[0], which has shape [2, 3, 8, 8]; "
            "got [1, 3, 4, 4]",
        ),
        (
            changed(maps=[GOOD_MAPS[0], np.ones((2, 5, 4, 4), np.float32)]),
            "X[1] must have as many images and channels as X[0], which has shape [2, 3, 8, 8]; "
            "got [2, 5, 4, 4]",
        ),
        (
            changed(maps=[GOOD_MAPS[0], np.ones((2, 3, 4, 4), np.float64)]),
            "X[1] must be of type float32, as X[0]; got float64",
        ),
        (changed(batch_indices=[0, 2]), "batch_indices[1] must be in [0, 2); got 2"),
        (changed(batch_indices=[0]), "batch_indices must have shape [num_rois] = [2]; got [1]"),
    ],
)
def test_errors(name, arguments, text):
    forward, backward, *_ = OPERATORS[name]
    rois, indices, maps, attributes = split(name, arguments)
    with pytest.raises(InvalidArgumentError) as raised:
        forward(rois, indices, *maps, **attributes)
    assert str(raised.value) == f"{name}: {text}"
    with pytest.raises(InvalidArgumentError) as raised:
        backward(np.ones((2, 3, 1, 1)), rois, indices, *maps, **attributes)
    assert str(raised.value) == f"{name}Grad: {text}"


def split(name, arguments):
    attributes = dict(arguments)
    columns = 5 if name.endswith("Rotated") else 4
    rois = attributes.pop("rois")
    rois = np.ones((2, columns), np.float32) if rois is None else rois
    return rois, attributes.pop("batch_indices"), attributes.pop("maps"), attributes


@pytest.mark.parametrize("name", OPERATORS)
def test_errors_of_the_boxes_and_of_the_output_gradient(name):
    forward, backward, *_ = OPERATORS[name]
    rois, indices, maps, attributes = split(name, changed())
    columns = rois.shape[1]
    with pytest.raises(InvalidArgumentError) as raised:
        forward(np.ones((2, 6)), indices, *maps, **attributes)
    assert str(raised.value) == f"{name}: rois must have shape [num_rois, {columns}]; got [2, 6]"
    rois[1, :] = np.inf
    with pytest.raises(InvalidArgumentError) as raised:
        forward(rois, indices, *maps, **attributes)
    values = ", ".join(["inf"] * columns)
    assert str(raised.value) == f"{name}: rois[1] must have finite coordinates; got [{values}]"
    rois[1, :] = 1
    with pytest.raises(InvalidArgumentError) as raised:
        backward(np.ones((2, 3, 2, 1)), rois, indices, *maps, **attributes)
    assert str(raised.value) == (
        f"{name}Grad: dY must have shape [num_rois, channels, output_height, output_width]"
        " = [2, 3, 1, 1]; got [2, 3, 2, 1]"
    )


def test_attributes_of_the_turn():
    rois, indices, maps, attributes = split("MultiScaleRoiAlignRotated", changed())
    for operator, name, dy in (
        (multi_scale_roi_align_rotated, "MultiScaleRoiAlignRotated", ()),
        (multi_scale_roi_align_rotated_grad, "MultiScaleRoiAlignRotatedGrad", (0,)),
    ):
        with pytest.raises(InvalidArgumentError) as raised:
            operator(*dy, rois, indices, *maps, clockwise=2, **attributes)
        assert str(raised.value) == f"{name}: attribute clockwise must be at most 1; got 2"
    with pytest.raises(TypeError, match="clockwise"):
        multi_scale_roi_align(np.ones((2, 4)), indices, *maps, clockwise=1, **attributes)
