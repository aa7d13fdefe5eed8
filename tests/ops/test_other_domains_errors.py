"""What the operators of other domains refuse, and the fewest boxes that they take."""

from __future__ import annotations

import numpy as np
import pytest
from other_domains import SAMPLED, SCALE, model_of, run
from plugin import make_session

BAD_IMAGES = [-1.0, 3.0, 1e30, np.nan, np.inf]


@pytest.mark.parametrize("number", BAD_IMAGES)
def test_images_that_are_not_there(device, packed, number):
    packed["rois"][4, 0] = number
    attributes = {**SAMPLED, "spatial_scale": SCALE, "mode": "avg", "aligned": 1}
    model = model_of("MMCVRoiAlign", "mmcv", packed, attributes)
    session = make_session(model, device, domains="mmcv")
    if not device.fails_on_bad_rois:
        (y,) = session.run(None, packed)
        assert np.isnan(y[4]).all()
        assert not np.isnan(np.delete(y, 4, axis=0)).any()
        return
    with pytest.raises(Exception, match=r"MMCVRoiAlign: rois\[4\] must begin with an image's"):
        session.run(None, packed)


@pytest.mark.parametrize(
    ("operator", "domain", "attributes", "message"),
    [
        ("MMCVRoiAlign", "mmcv", {"mode": "mean"}, 'mode must be "avg" or "max"; got "mean"'),
        ("MMCVRoiAlign", "mmcv", {"aligned": 2}, "aligned must be at most 1; got 2"),
        ("MMCVRoiAlign", "mmcv", {"output_width": 0}, "output_width must be at least 1; got 0"),
        ("MMCVRoiAlign", "mmcv", {"spatial_scale": 1}, "spatial_scale must be a float; got the in"),
        ("PrRoIPool", "mmcv", {"pooled_height": 0}, "pooled_height must be at least 1; got 0"),
        (
            "MMCVDeformRoIPool",
            "mmcv",
            {"sampling_ratio": 0.5},
            "sampling_ratio must be a whole number from 0 to 1.67772e+07; got 0.5",
        ),
        ("MMCVRoIAlignRotated", "mmdeploy", {"clockwise": 3}, "clockwise must be at most 1; got 3"),
        (
            "MMCVMultiLevelRoiAlign",
            "mmdeploy",
            {"featmap_strides": [4.0, -8.0]},
            "featmap_strides must be finite and greater than 0, and so must 1 / stride; got -8",
        ),
        (
            "MMCVMultiLevelRoiAlign",
            "mmdeploy",
            {"featmap_strides": [1e-45]},
            "featmap_strides must be finite and greater than 0, and so must 1 / stride; got 1.4013",
        ),
        ("MMCVMultiLevelRoiAlign", "mmdeploy", {}, "featmap_strides must have one number for each"),
        (
            "MMCVMultiLevelRoiAlign",
            "mmdeploy",
            {"featmap_strides": [4.0], "roi_scale_factor": 2.0},
            "roi_scale_factor must be 1, or 0 or less, for boxes pooled as they are; got 2",
        ),
        ("MaxRoiPool", "", {}, "pooled_shape must be height and width of 1 to 2147483647; got []"),
        (
            "MaxRoiPool",
            "",
            {"pooled_shape": [2, 0]},
            "pooled_shape must be height and width of 1 to 2147483647; got [2, 0]",
        ),
        ("MaxRoiPool", "", {"pooled_shape": [2.0, 1.0]}, "pooled_shape must be a list of integers"),
    ],
)
def test_bad_attributes(device, packed, operator, domain, attributes, message):
    inputs = packed
    if "MultiLevel" in operator:
        inputs = {"rois": packed["rois"], "X": packed["X"]}
    model = model_of(operator, domain, inputs, attributes)
    with pytest.raises(Exception, match="attribute") as raised:
        make_session(model, device, domains="mmcv,mmdeploy,onnx-all")
    assert f"{operator}: attribute {message}" in str(raised.value)


@pytest.mark.parametrize("columns", [4, 1, 0])
def test_rois_without_images(device, packed, columns):
    given = {**packed, "rois": packed["rois"][:, :columns]}
    model = model_of("PrRoIPool", "mmcv", given, {})
    session = make_session(model, device, domains="mmcv")
    with pytest.raises(Exception, match="rois must have shape") as raised:
        session.run(None, given)
    assert (
        "PrRoIPool: rois must have shape [num_rois, 5], the image's number first; "
        f"got [30, {columns}]"
    ) in str(raised.value)


@pytest.mark.parametrize("count", [0, 1])
def test_few_boxes(device, packed, count):
    given = {"X": packed["X"], "rois": packed["rois"][:count]}
    y = run(device, "mmcv", "PrRoIPool", "mmcv", given, pooled_height=2, pooled_width=3)
    assert y.shape == (count, 3, 2, 3)


def test_as_many_maps_as_strides(device, packed):
    """The error names the attribute that the node has."""
    given = {"rois": packed["rois"], "X0": packed["X"], "X1": packed["X"], "X2": packed["X"]}
    attributes = {"featmap_strides": [4.0, 8.0]}
    for operator, columns in (("MMCVMultiLevelRoiAlign", 5), ("MMCVMultiLevelRotatedRoiAlign", 6)):
        given["rois"] = np.ones((4, columns), np.float32)
        model = model_of(operator, "mmdeploy", given, attributes)
        session = make_session(model, device, domains="mmdeploy")
        with pytest.raises(Exception, match="must be as many maps") as raised:
            session.run(None, given)
        assert (
            f"{operator}: X must be as many maps as attribute featmap_strides has numbers, 2; got 3"
        ) in str(raised.value)
