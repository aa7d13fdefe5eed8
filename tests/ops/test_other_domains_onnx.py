"""ONNX's own RoiAlign and MaxRoiPool, which the kernels stand in for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import tolerances
from numpy.testing import assert_allclose
from other_domains import SAMPLED, SCALE, SIZE, Array, coordinates, model_of, run

import ort_roialign
from ort_roialign import reference
from ort_roialign.errors import InvalidArgumentError

CPU = ["CPUExecutionProvider"]


def reference_of_onnx(inputs: Mapping[str, Array], opset: int, **attributes: Any) -> Array:
    attributes = {**coordinates(opset >= 16), **attributes}
    return np.asarray(reference.roi_align(*inputs.values(), **attributes))


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize(
    ("domains", "opset"),
    [
        ("onnx", 22),
        ("onnx", 24),
        ("onnx-all", 16),
        ("onnx-all", 20),
        ("onnx-all", 22),
        ("onnx-10", 10),
        ("onnx-10", 15),
    ],
)
def test_onnx_roi_align(device, inputs, mode, domains, opset):
    attributes = {**SAMPLED, "spatial_scale": SCALE, "mode": mode}
    actual = run(device, domains, "RoiAlign", "", inputs, opset, **attributes)
    expected = reference_of_onnx(inputs, opset, **attributes)
    assert_allclose(actual, expected, *tolerances.KERNEL["float32"])


@pytest.mark.parametrize("domains", ["onnx-all", "onnx-10"])
def test_onnx_roi_align_that_says_its_coordinates(device, inputs, domains):
    for aligned in (0, 1):
        attributes = {**SAMPLED, **coordinates(aligned)}
        actual = run(device, domains, "RoiAlign", "", inputs, 16, **attributes)
        expected = reference.roi_align(*inputs.values(), **attributes)
        assert_allclose(actual, expected, *tolerances.KERNEL["float32"])


def test_onnx_leaves_older_opsets_to_onnxruntime(inputs):
    """The maximum of onnxruntime is another one, so its kernel shows."""
    attributes = {**SAMPLED, "spatial_scale": SCALE, "mode": "max"}
    model = model_of("RoiAlign", "", inputs, attributes, 21)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    own = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=CPU)
    ours = ort_roialign.InferenceSession(model, session_options=options, domains=["onnx"])
    (expected,) = own.run(None, inputs)
    np.testing.assert_array_equal(ours.run(None, inputs)[0], expected)
    assert np.abs(expected - reference_of_onnx(inputs, 21, **attributes)).max() > 0.1


@pytest.mark.parametrize(
    ("domains", "opset"), [("onnx", 22), ("onnx-all", 8), ("onnx-all", 22), ("onnx-10", 11)]
)
def test_onnx_max_roi_pool(device, inputs, packed, domains, opset):
    actual = run(
        device, domains, "MaxRoiPool", "", packed, opset, pooled_shape=[3, 4], spatial_scale=SCALE
    )
    expected = reference.roi_pool(*inputs.values(), spatial_scale=SCALE, **SIZE)[0]
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("way", ["path", "bytes", "proto"])
def test_onnx_10_is_not_for_models_of_opset_16(tmp_path, inputs, way):
    """Their RoiAlign has other coordinates, and onnxruntime does not tell a kernel its opset."""
    given = {"proto": lambda model: model, "bytes": onnx.ModelProto.SerializeToString}
    given["path"] = lambda model: saved(model, tmp_path / "model.onnx")
    for opset in (16, 22):
        model = given[way](model_of("RoiAlign", "", inputs, SIZE, opset))
        options = onnxruntime.SessionOptions()
        ort_roialign.register(options, "onnx-10")
        for given_so in ({"domains": "onnx-10"}, {"session_options": options}):
            with pytest.raises(InvalidArgumentError) as raised:
                ort_roialign.InferenceSession(model, CPU, **given_so)
            assert str(raised.value) == (
                'InferenceSession: domains must have "onnx-all" in place of "onnx-10", which is '
                f"for models of opset 10 to 15; the model's is {opset}"
            )
    for domains, opset in (("onnx-10", 15), ("onnx-10", 10), ("onnx-all", 16)):
        model = given[way](model_of("RoiAlign", "", inputs, SIZE, opset))
        (y,) = ort_roialign.InferenceSession(model, CPU, domains=domains).run(None, inputs)
        expected = reference_of_onnx(inputs, opset, **SIZE)
        assert_allclose(y, expected, *tolerances.KERNEL["float32"])


def saved(model: onnx.ModelProto, path: Path) -> Path:
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("model", [b"", b"\xff" * 40, b"no model", b"\x42\x05\x0a", "absent.onnx"])
def test_what_is_no_model_is_left_to_onnxruntime(model):
    with pytest.raises(Exception, match=r"[Pp]rotobuf|Load model|NO_SUCHFILE|INVALID") as raised:
        ort_roialign.InferenceSession(model, CPU, domains=["onnx-10"])
    assert not isinstance(raised.value, InvalidArgumentError)
