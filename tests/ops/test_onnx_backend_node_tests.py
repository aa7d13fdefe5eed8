"""ONNX's own node tests of RoiAlign, run by the plugin.

The tests ship with the package onnx. Their nodes are moved to our domain and otherwise run as they
are. `test_roialign_mode_max` is the exception by design: ONNX expects the largest of the samples'
*weighted corners*, which is not a value of the interpolated surface, while He et al. (Mask R-CNN,
2017, section 3) interpolate first and take the maximum of the samples, as we do.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import tolerances
from numpy.testing import assert_allclose, assert_array_equal
from onnx import helper
from onnx.backend.test.case.node import roialign as onnx_cases
from plugin import Device, make_session

from ort_roialign.reference import roi_align

Case = tuple[onnx.NodeProto, list[Any], list[Any]]


@pytest.fixture
def cases(monkeypatch: pytest.MonkeyPatch) -> dict[str, Case]:
    """Node, inputs and outputs of each of ONNX's cases, by name."""
    found: dict[str, Case] = {}

    def expect(node: Any, inputs: Any, outputs: Any, name: str, **_: Any) -> None:
        found[name] = (node, inputs, outputs)

    monkeypatch.setattr(onnx_cases, "expect", expect)
    for name in dir(onnx_cases.RoiAlign):
        if name.startswith("export"):
            getattr(onnx_cases.RoiAlign, name)()
    return found


def run_by_plugin(device: Device, node: onnx.NodeProto, inputs: list[Any]) -> Any:
    node = onnx.NodeProto.FromString(node.SerializeToString())
    node.domain = "ort_roialign"
    infos = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
        )
        for name, array in zip(node.input, inputs, strict=True)
    ]
    y = helper.make_tensor_value_info(node.output[0], onnx.TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "graph", infos, [y])
    domains = [helper.make_opsetid("", 18), helper.make_opsetid("ort_roialign", 1)]
    model = helper.make_model(graph, opset_imports=domains, ir_version=9)
    feeds = dict(zip(node.input, inputs, strict=True))
    (result,) = make_session(model, device).run(None, feeds)
    return result


def test_there_are_no_others(cases):
    assert sorted(cases) == [
        "test_roialign_aligned_false",
        "test_roialign_aligned_true",
        "test_roialign_mode_max",
    ]


@pytest.mark.parametrize(
    ("name", "first_row"),
    [
        ("test_roialign_aligned_false", [0.4664, 0.4466, 0.3405, 0.5688, 0.6068]),
        ("test_roialign_aligned_true", [0.5178, 0.3434, 0.3229, 0.4474, 0.6344]),
    ],
)
def test_average(device, cases, name, first_row):
    node, inputs, (expected,) = cases[name]
    assert_array_equal(expected[0, 0, 0], np.float32(first_row))
    y = run_by_plugin(device, node, inputs)
    assert_allclose(y, expected, *tolerances.PRINTED_4_DECIMALS)


def test_maximum_is_of_the_samples_not_of_the_weighted_corners(device, cases):
    node, (x, rois, batch_indices), (of_corners,) = cases["test_roialign_mode_max"]
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    for name in ("mode", "coordinate_transformation_mode"):
        attributes[name] = attributes[name].decode()
    assert attributes["mode"] == "max"
    y = run_by_plugin(device, node, [x, rois, batch_indices])
    expected = roi_align(x, rois, batch_indices, **attributes)
    assert_allclose(y, expected, *tolerances.KERNEL["float32"])

    # A sample is the sum of its four weighted corners, which are positive here, and so larger.
    assert (x > 0).all()
    assert (y >= of_corners).all()
    assert np.abs(y - of_corners).max() > 0.1
