"""Input that breaks the contract: an error that says what is wrong, word by word.

Where a CUDA kernel finds out, on the device, it cannot fail without stopping the stream: the RoI's
results are NaN and those of the others are right.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument
from plugin import ELEMENT_TYPES, INPUTS, Device, make_model, make_session, random_inputs, run

FORWARD = ("RoiAlign", "RoiPool")
# The others share their checks; what is theirs alone is in test_bad_input_family.py.
OPERATORS = ("RoiAlign", "RoiPool", "RoiAlignGrad", "RoiPoolGrad")
SIZE = {"output_height": 7, "output_width": 5}


def good_inputs(operator: str, rng: np.random.Generator, type_name: str = "float32") -> Any:
    """Three images and eight RoIs; dY belongs to 7x5 bins."""
    inputs = random_inputs(rng, type_name, spatial_scale=1.0)
    if operator.endswith("Grad"):
        dy = rng.standard_normal((8, 3, 7, 5)).astype(inputs["X"].dtype)
        inputs = {"dY": dy, **inputs}
    return inputs


def message(error: BaseException) -> str:
    """The text without what onnxruntime puts in front."""
    for prefix in ("Status Message: ", "Exception during initialization: "):
        _, found, after = str(error).partition(prefix)
        if found:
            return after
    raise AssertionError(f"not an error of the library: {error}")


def creation_error(device: Device, operator: str, types: Any = None, **attributes: Any) -> str:
    """What a session says when it is created; it is never run."""
    float32 = ELEMENT_TYPES["float32"]
    all_types = dict.fromkeys(INPUTS[operator], float32) | {"batch_indices": np.dtype(np.int64)}
    model = make_model(operator, attributes, all_types | (types or {}))
    with pytest.raises(Exception, match="Exception during initialization") as raised:
        make_session(model, device)
    return message(raised.value)


def run_error(device: Device, operator: str, inputs: Any, **attributes: Any) -> str:
    with pytest.raises(InvalidArgument) as raised:
        run(device, operator, inputs, **attributes)
    return message(raised.value)


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize(
    ("name", "array", "text"),
    [
        (
            "X",
            np.ones((3, 9, 13), np.float32),
            "X must have shape [num_images, channels, height, width]; got [3, 9, 13]",
        ),
        (
            "X",
            np.float32(1),
            "X must have shape [num_images, channels, height, width]; got []",
        ),
        ("rois", np.ones((8, 5), np.float32), "rois must have shape [num_rois, 4]; got [8, 5]"),
        ("rois", np.ones(4, np.float32), "rois must have shape [num_rois, 4]; got [4]"),
        (
            "rois",
            np.ones((12, 4), np.float32),
            "batch_indices must have shape [num_rois] = [12]; got [8]",
        ),
        (
            "batch_indices",
            np.zeros(7, np.int64),
            "batch_indices must have shape [num_rois] = [8]; got [7]",
        ),
        (
            "batch_indices",
            np.zeros((8, 1), np.int64),
            "batch_indices must have shape [num_rois] = [8]; got [8, 1]",
        ),
        (
            "X",
            np.ones((3, 3, 0, 5), np.float32),
            "X must have height and width of at least 1; got [3, 3, 0, 5]",
        ),
        (
            "X",
            np.ones((3, 3, 5, 0), np.float32),
            "X must have height and width of at least 1; got [3, 3, 5, 0]",
        ),
        (
            "X",
            np.ones((1, 0, 1, 2**30 + 1), np.float32),
            "X must have height and width of at most 1073741824; got [1, 0, 1, 1073741825]",
        ),
    ],
)
def test_shapes(device, rng, operator, name, array, text):
    inputs = good_inputs(operator, rng) | {name: array}
    assert run_error(device, operator, inputs, **SIZE) == f"{operator}: {text}"


@pytest.mark.parametrize("operator", ["RoiAlignGrad", "RoiPoolGrad"])
@pytest.mark.parametrize("shape", [(8, 3, 5, 7), (7, 3, 7, 5), (8, 3, 35), (8, 2, 7, 5)])
def test_shape_of_the_output_gradient(device, rng, operator, shape):
    inputs = good_inputs(operator, rng) | {"dY": np.ones(shape, np.float32)}
    given = ", ".join(map(str, shape))
    assert run_error(device, operator, inputs, **SIZE) == (
        f"{operator}: dY must have shape [num_rois, channels, output_height, output_width]"
        f" = [8, 3, 7, 5]; got [{given}]"
    )


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize(
    ("attributes", "text"),
    [
        ({"output_height": 0}, "attribute output_height must be at least 1; got 0"),
        ({"output_width": -3}, "attribute output_width must be at least 1; got -3"),
        (
            {"output_width": 2**31},
            "attribute output_width must be at most 2147483647; got 2147483648",
        ),
        (
            {"spatial_scale": 0.0},
            "attribute spatial_scale must be finite and greater than 0; got 0",
        ),
        (
            {"spatial_scale": -0.25},
            "attribute spatial_scale must be finite and greater than 0; got -0.25",
        ),
        (
            {"spatial_scale": float("inf")},
            "attribute spatial_scale must be finite and greater than 0; got inf",
        ),
        (
            {"spatial_scale": float("nan")},
            "attribute spatial_scale must be finite and greater than 0; got nan",
        ),
        # onnxruntime itself takes an attribute of another type for absent.
        ({"output_height": 7.0}, "attribute output_height must be an integer; got the float 7"),
        ({"spatial_scale": 1}, "attribute spatial_scale must be a float; got the integer 1"),
        (
            {"output_width": "7"},
            'attribute output_width must be an integer; got the string "7"',
        ),
        (
            {"output_height": [7, 7]},
            "attribute output_height must be an integer; got a list",
        ),
        (
            {"spatial_scale": [0.25, 0.5, 1.0]},
            "attribute spatial_scale must be a float; got a list",
        ),
    ],
)
def test_attributes(device, operator, attributes, text):
    assert creation_error(device, operator, **attributes) == f"{operator}: {text}"


@pytest.mark.parametrize("operator", ["RoiAlign", "RoiAlignGrad"])
@pytest.mark.parametrize(
    ("attributes", "text"),
    [
        ({"sampling_ratio": -1}, "attribute sampling_ratio must be at least 0; got -1"),
        (
            {"sampling_ratio": 2.0},
            "attribute sampling_ratio must be an integer; got the float 2",
        ),
        ({"mode": "median"}, 'attribute mode must be "avg" or "max"; got "median"'),
        ({"mode": "Max"}, 'attribute mode must be "avg" or "max"; got "Max"'),
        ({"mode": ""}, 'attribute mode must be "avg" or "max"; got ""'),
        # Longer than any buffer that holds the allowed values.
        ({"mode": "x" * 300}, f'attribute mode must be "avg" or "max"; got "{"x" * 300}"'),
        ({"mode": 1}, "attribute mode must be a string; got the integer 1"),
        ({"mode": ["max"]}, "attribute mode must be a string; got a list"),
        (
            {"coordinate_transformation_mode": "asymmetric"},
            'attribute coordinate_transformation_mode must be "half_pixel" or "output_half_pixel";'
            ' got "asymmetric"',
        ),
    ],
)
def test_attributes_of_roi_align(device, operator, attributes, text):
    assert creation_error(device, operator, **attributes) == f"{operator}: {text}"


WRONG_PAIRS = [
    ("float32", "float64"),
    ("float32", "float16"),
    ("float32", "bfloat16"),
    ("float64", "float32"),
    ("float64", "float16"),
    ("float64", "bfloat16"),
    ("float16", "bfloat16"),
    ("float16", "float64"),
    ("bfloat16", "float16"),
    ("bfloat16", "float64"),
]


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize(("x_type", "rois_type"), WRONG_PAIRS)
def test_types_that_do_not_go_together(device, operator, x_type, rois_type):
    types = {"X": ELEMENT_TYPES[x_type], "rois": ELEMENT_TYPES[rois_type]}
    if operator.endswith("Grad"):
        types["dY"] = types["X"]
    also = ", or float32" if x_type in ("float16", "bfloat16") else ""
    assert creation_error(device, operator, types) == (
        f"{operator}: rois must be of type {x_type}, as X{also}; got {rois_type}"
    )


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("X", np.int32), ("rois", np.int64), ("batch_indices", np.int32), ("dY", np.float64)],
)
def test_types_that_no_operator_takes(cpu_device, name, dtype):
    types = dict.fromkeys(("dY", "X", "rois"), ELEMENT_TYPES["float32"])
    types |= {"batch_indices": np.dtype(np.int64), name: np.dtype(dtype)}
    with pytest.raises(Exception, match="RoiAlignGrad"):  # in onnxruntime's words
        make_session(make_model("RoiAlignGrad", {}, types), cpu_device)


BAD_ROIS = [
    ("batch_indices", 3, "batch_indices[5] must be in [0, 3); got 3"),
    ("batch_indices", -1, "batch_indices[5] must be in [0, 3); got -1"),
    ("batch_indices", 2**40, "batch_indices[5] must be in [0, 3); got 1099511627776"),
    ("batch_indices", -(2**63), "batch_indices[5] must be in [0, 3); got -9223372036854775808"),
    ("rois", [0, 1.5, np.inf, 2], "rois[5] must have finite coordinates; got [0, 1.5, inf, 2]"),
    ("rois", [-np.inf, 0, 1, 2], "rois[5] must have finite coordinates; got [-inf, 0, 1, 2]"),
    ("rois", [4, np.nan, 1, 2], "rois[5] must have finite coordinates; got [4, nan, 1, 2]"),
    ("rois", [4, 3, 1, -np.inf], "rois[5] must have finite coordinates; got [4, 3, 1, -inf]"),
]
MODES_OF = {"RoiAlign": ("avg", "max"), "RoiPool": (None,)}
FORWARD_MODES = [(op, mode) for op in FORWARD for mode in MODES_OF[op]]


def attributes_of(mode: str | None) -> dict[str, Any]:
    return SIZE | ({"mode": mode} if mode else {})


@pytest.mark.parametrize(("operator", "mode"), FORWARD_MODES)
@pytest.mark.parametrize("type_name", list(ELEMENT_TYPES))
@pytest.mark.parametrize(("name", "value", "text"), BAD_ROIS)
def test_bad_roi(device, rng, operator, mode, type_name, name, value, text):
    inputs = good_inputs(operator, rng, type_name)
    good = run(device, operator, inputs, **attributes_of(mode))
    inputs[name][5] = value
    if device.fails_on_bad_rois:
        error = run_error(device, operator, inputs, **attributes_of(mode))
        assert error == f"{operator}: {text}"
        return
    y, *argmax = run(device, operator, inputs, **attributes_of(mode))
    assert np.isnan(y[5].astype(np.float64)).all()
    others = np.arange(8) != 5
    assert_array_equal(y[others], good[0][others])
    if argmax:
        assert (argmax[0][5] == -1).all()
        assert_array_equal(argmax[0][others], good[1][others])


@pytest.mark.parametrize(("operator", "mode"), FORWARD_MODES)
@pytest.mark.parametrize(("name", "value", "text"), BAD_ROIS)
def test_bad_roi_in_a_gradient(device, rng, operator, mode, name, value, text):
    operator += "Grad"
    inputs = good_inputs(operator, rng)
    inputs[name][5] = value
    if device.fails_on_bad_rois:
        error = run_error(device, operator, inputs, **attributes_of(mode))
        assert error == f"{operator}: {text}"
        return
    (dx,) = run(device, operator, inputs, **attributes_of(mode))
    without = {
        key: array if key == "X" else np.delete(array, 5, axis=0) for key, array in inputs.items()
    }
    assert_array_equal(dx, run(device, operator, without, **attributes_of(mode))[0])


@pytest.mark.parametrize("operator", FORWARD)
def test_no_image_to_belong_to(device, rng, operator):
    inputs = good_inputs(operator, rng)
    inputs["X"] = inputs["X"][:0]
    if device.fails_on_bad_rois:
        inputs["batch_indices"][0] = 2
        error = run_error(device, operator, inputs)
        assert error == f"{operator}: batch_indices[0] must be in [0, 0); got 2"
    else:
        y, *_ = run(device, operator, inputs)
        assert np.isnan(y).all()


def test_a_session_works_on_after_an_error(cpu_device, rng):
    inputs = good_inputs("RoiAlign", rng)
    types = {name: array.dtype for name, array in inputs.items()}
    session = make_session(make_model("RoiAlign", SIZE, types), cpu_device)
    (expected,) = session.run(None, inputs)
    for _ in range(3):
        with pytest.raises(InvalidArgument):
            session.run(None, inputs | {"batch_indices": np.full(8, 9)})
        assert_array_equal(session.run(None, inputs)[0], expected)
