"""Operators of other domains that the kernels stand in for: ONNX's, mmcv's and mmdeploy's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import tolerances
from numpy.testing import assert_allclose
from onnx import helper
from plugin import ELEMENT_TYPES, Device, make_session, random_inputs

import ort_roialign
from ort_roialign import reference

Array = np.ndarray[Any, Any]
SIZE = {"output_height": 3, "output_width": 4}
SCALE = 0.25
SAMPLED = {**SIZE, "sampling_ratio": 2}
PYRAMID_RULE = {
    "canonical_scale": 56.0,
    "canonical_level": 0,
    "min_level": 0,
    "log_epsilon": 1e-6,
    "level_epsilon": 0.0,
}


def model_of(
    operator: str,
    domain: str,
    inputs: Mapping[str, Array],
    attributes: Mapping[str, Any],
    opset: int = 16,
) -> onnx.ModelProto:
    """Make a model of one node."""
    values = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(array.dtype), [None] * array.ndim
        )
        for name, array in inputs.items()
    ]
    node = helper.make_node(operator, list(inputs), ["Y"], domain=domain, **attributes)
    element_type = helper.np_dtype_to_tensor_dtype(next(iter(inputs.values())).dtype)
    output = helper.make_tensor_value_info("Y", element_type, None)
    imports = [helper.make_opsetid("", opset)]
    if domain:
        imports.append(helper.make_opsetid(domain, 1))
    graph = helper.make_graph([node], "one_node", values, [output])
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def run(
    device: Device,
    domains: str,
    operator: str,
    domain: str,
    inputs: Mapping[str, Array],
    opset: int = 16,
    **attributes: Any,
) -> Array:
    """Run one operator of another domain into poisoned memory."""
    model = model_of(operator, domain, inputs, attributes, opset)
    session = make_session(model, device, domains=domains)
    (first,) = session.run(None, dict(inputs))
    assert session.get_outputs()[0].shape[2:] == list(first.shape[2:])
    binding = session.io_binding()
    for name, array in inputs.items():
        binding.bind_cpu_input(name, np.ascontiguousarray(array))
    again = np.full_like(first, np.nan)
    value = onnxruntime.OrtValue.ortvalue_from_numpy(again)
    binding.bind_ortvalue_output("Y", value)
    session.run_with_iobinding(binding)
    np.testing.assert_array_equal(again, first)
    return again


def with_image(rois: Array, batch_indices: Array) -> Array:
    """Put each box's image in front of it."""
    return np.concatenate([batch_indices[:, None].astype(rois.dtype), rois], axis=1)


def coordinates(aligned: int) -> dict[str, str]:
    return {"coordinate_transformation_mode": "half_pixel" if aligned else "output_half_pixel"}


@pytest.fixture
def inputs(rng: np.random.Generator) -> dict[str, Array]:
    return random_inputs(rng, "float32", spatial_scale=SCALE, num_rois=30)


@pytest.fixture
def packed(inputs: dict[str, Array]) -> dict[str, Array]:
    return {"X": inputs["X"], "rois": with_image(inputs["rois"], inputs["batch_indices"])}


@pytest.fixture
def rotated(rng: np.random.Generator, inputs: dict[str, Array]) -> Array:
    """Boxes with angles; some are smaller than a cell."""
    sides = np.exp(rng.uniform(-2, 4, (30, 2)))
    angles = rng.uniform(-4, 4, (30, 1))
    return np.concatenate([inputs["rois"][:, :2], sides, angles], axis=1).astype(np.float32)


@pytest.fixture
def pyramid(rng: np.random.Generator, inputs: dict[str, Array]) -> dict[str, Array]:
    shapes = [(3, 3, 16, 20), (3, 3, 8, 10), (3, 3, 4, 5)]
    maps = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    return {f"X{number}": each for number, each in enumerate(maps)}


PYRAMID_SCALES = (0.25, 0.125, 0.0625)
STRIDES = [4.0, 8.0, 16.0]


@pytest.mark.parametrize("aligned", [0, 1])
@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
@pytest.mark.parametrize("type_name", ["float32", "float64", "float16"])
def test_mmcv_roi_align(device, inputs, packed, aligned, mode, sampling_ratio, type_name):
    attributes = {**SIZE, "sampling_ratio": sampling_ratio, "spatial_scale": SCALE, "mode": mode}
    cast = {name: array.astype(ELEMENT_TYPES[type_name]) for name, array in packed.items()}
    actual = run(device, "mmcv", "MMCVRoiAlign", "mmcv", cast, aligned=aligned, **attributes)
    x, rois = cast["X"], np.ascontiguousarray(cast["rois"][:, 1:])
    expected = reference.roi_align(
        x, rois, inputs["batch_indices"], **coordinates(aligned), **attributes
    )
    assert_allclose(actual, expected, *tolerances.KERNEL[type_name])


@pytest.mark.parametrize("aligned", [0, 1])
@pytest.mark.parametrize("clockwise", [0, 1])
def test_mmdeploy_roi_align_rotated(device, inputs, rotated, aligned, clockwise):
    attributes = {**SAMPLED, "spatial_scale": SCALE, "clockwise": clockwise}
    batch_indices = inputs["batch_indices"]
    given = {"X": inputs["X"], "rois": with_image(rotated, batch_indices)}
    actual = run(
        device, "mmdeploy", "MMCVRoIAlignRotated", "mmdeploy", given, aligned=aligned, **attributes
    )
    expected = reference.roi_align_rotated(
        inputs["X"], rotated, batch_indices, **coordinates(aligned), **attributes
    )
    assert_allclose(actual, expected, *tolerances.KERNEL["float32"])


@pytest.mark.parametrize("aligned", [0, 1])
@pytest.mark.parametrize("pool_mode", [0, 1])
def test_mmdeploy_multi_level_roi_align(device, inputs, pyramid, aligned, pool_mode):
    batch_indices = inputs["batch_indices"]
    given = {"rois": with_image(inputs["rois"] * 2, batch_indices), **pyramid}
    actual = run(
        device,
        "mmdeploy",
        "MMCVMultiLevelRoiAlign",
        "mmdeploy",
        given,
        aligned=aligned,
        pool_mode=pool_mode,
        finest_scale=56,
        featmap_strides=STRIDES,
        roi_scale_factor=1.0,
        **SAMPLED,
    )
    expected = reference.multi_scale_roi_align(
        inputs["rois"] * 2,
        batch_indices,
        *pyramid.values(),
        spatial_scales=PYRAMID_SCALES,
        mode="avg" if pool_mode else "max",
        max_level=2,
        **PYRAMID_RULE,
        **coordinates(aligned),
        **SAMPLED,
    )
    assert_allclose(actual, expected, *tolerances.KERNEL["float32"])


@pytest.mark.parametrize("aligned", [0, 1])
def test_mmdeploy_multi_level_rotated_roi_align_counts_a_cell_at_least(
    device, inputs, rotated, pyramid, aligned
):
    batch_indices = inputs["batch_indices"]
    # Level by level, so that boxes smaller than a cell of their level can be enlarged by hand.
    area = rotated[:, 2] * rotated[:, 3]
    levels = np.clip(np.floor(np.log2(np.sqrt(area) / 56 + 1e-6)), 0, 2).astype(int)
    assert (rotated[:, 2:4] * np.array(PYRAMID_SCALES)[levels, None] < 1).any()
    expected = np.empty((30, 3, 3, 4))
    for level, (scale, x) in enumerate(zip(PYRAMID_SCALES, pyramid.values(), strict=True)):
        of_level = levels == level
        boxes = rotated[of_level].astype(np.float64)
        boxes[:, 2:4] = np.maximum(boxes[:, 2:4], 1 / scale)
        expected[of_level] = reference.roi_align_rotated(
            x.astype(np.float64),
            boxes,
            batch_indices[of_level],
            spatial_scale=scale,
            clockwise=1,
            **coordinates(aligned),
            **SAMPLED,
        )
    actual = run(
        device,
        "mmdeploy",
        "MMCVMultiLevelRotatedRoiAlign",
        "mmdeploy",
        {"rois": with_image(rotated, batch_indices), **pyramid},
        aligned=aligned,
        clockwise=1,
        finest_scale=56,
        featmap_strides=STRIDES,
        **SAMPLED,
    )
    assert_allclose(actual, expected, *tolerances.KERNEL["float32"])


def test_mmcv_pr_roi_pool(device, inputs, packed):
    pooled = {"pooled_height": 3, "pooled_width": 4, "spatial_scale": SCALE}
    actual = run(device, "mmcv", "PrRoIPool", "mmcv", packed, **pooled)
    expected = reference.pr_roi_pool(*inputs.values(), spatial_scale=SCALE, **SIZE)
    assert_allclose(actual, expected, *tolerances.KERNEL["float32"])


@pytest.mark.parametrize("has_offset", [False, True])
def test_mmcv_deform_roi_pool(device, rng, inputs, packed, has_offset):
    attributes = {**SIZE, "spatial_scale": SCALE, "gamma": 0.3}
    offset = rng.standard_normal((30, 2, 3, 4)).astype(np.float32) if has_offset else None
    given = {**packed, "offset": offset} if has_offset else packed
    actual = run(
        device, "mmcv", "MMCVDeformRoIPool", "mmcv", given, sampling_ratio=2.0, **attributes
    )
    expected = reference.deform_roi_pool(*inputs.values(), offset, sampling_ratio=2, **attributes)
    assert_allclose(actual, expected, *tolerances.KERNEL["float32"])


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
    device = Device("cpu", "", "CPUExecutionProvider")
    attributes = {**SAMPLED, "spatial_scale": SCALE, "mode": "max"}
    model = model_of("RoiAlign", "", inputs, attributes, 21)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    own = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=[device.provider]
    )
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


def mmcv_numbers() -> list[Any]:
    """Hand-checked results of mmcv's tests (tests/test_ops): a 2 x 2 map, the box of all of it."""
    x = np.array([[[[1, 2], [3, 4]]]], np.float32)
    box = np.array([[0, 0, 0, 1, 1]], np.float32)
    turned = np.array([[0, 0.5, 0.5, 1, 1, np.pi / 2]], np.float32)
    size = {"output_height": 2, "output_width": 2, "spatial_scale": 1.0}
    aligned = {**size, "sampling_ratio": 2, "aligned": 1}
    pooled = {"pooled_height": 2, "pooled_width": 2, "spatial_scale": 1.0}
    return [
        ("MMCVRoiAlign", "mmcv", x, box, {**aligned, "mode": "avg"}, [[1, 1.25], [1.5, 1.75]]),
        (
            "MMCVRoIAlignRotated",
            "mmdeploy",
            x,
            turned,
            {**aligned, "clockwise": 0},
            [[1.5, 1], [1.75, 1.25]],
        ),
        (
            "MMCVRoIAlignRotated",
            "mmdeploy",
            x,
            turned * [1, 1, 1, 1, 1, -1],
            {**aligned, "clockwise": 1},
            [[1.5, 1], [1.75, 1.25]],
        ),
        ("PrRoIPool", "mmcv", x, box, pooled, [[1.75, 2.25], [2.75, 3.25]]),
        (
            "MMCVDeformRoIPool",
            "mmcv",
            x,
            box,
            {**size, "sampling_ratio": 2.0},
            [[1, 1.25], [1.5, 1.75]],
        ),
    ]


@pytest.mark.parametrize(
    ("operator", "domain", "x", "rois", "attributes", "expected"), mmcv_numbers()
)
def test_numbers_of_mmcv(device, operator, domain, x, rois, attributes, expected):
    given = {"X": x, "rois": rois.astype(np.float32)}
    actual = run(device, "mmcv,mmdeploy", operator, domain, given, **attributes)
    assert_allclose(actual[0, 0], expected, *tolerances.KERNEL["float32"])


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
            "featmap_strides must be finite and greater than 0; got -8",
        ),
        ("MMCVMultiLevelRoiAlign", "mmdeploy", {}, "featmap_strides must have one number for each"),
        (
            "MMCVMultiLevelRoiAlign",
            "mmdeploy",
            {"featmap_strides": [4.0], "roi_scale_factor": 2.0},
            "roi_scale_factor must be 1, or 0 or less, for boxes pooled as they are; got 2",
        ),
        ("MaxRoiPool", "", {}, "pooled_shape must be height and width; got 0 numbers"),
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
