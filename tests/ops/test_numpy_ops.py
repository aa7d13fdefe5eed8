"""The kernels on NumPy arrays, without a session: results, types, layouts and errors."""

from __future__ import annotations

import inspect
import subprocess
import sys
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from family import CASES, Case
from numpy.testing import assert_allclose, assert_array_equal
from plugin import ELEMENT_TYPES
from tolerances import KERNEL, gradient_of_any_size

import ort_roialign
from ort_roialign import InvalidArgumentError, ops, reference
from ort_roialign._kernels import ABSENT, Call, Tensor
from ort_roialign._signatures import OPERATORS, PASTE_MASKS, SIGNATURES

X = np.array([[[[1.0, 2.0], [3.0, 4.0]]]])
ROIS = np.array([[0.0, 0.0, 1.0, 1.0]])
IMAGES = np.array([0])
FOUR_BINS = {"output_height": 2, "output_width": 2}


@pytest.fixture(params=list(CASES))
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def _forward(case: Case) -> Any:
    return getattr(ops, OPERATORS[case.operator].function_name)


def _backward(case: Case) -> Any:
    return getattr(ops, f"{OPERATORS[case.operator].function_name}_grad")


def _as_list(results: Any) -> list[Any]:
    return list(results) if isinstance(results, (tuple, list)) else [results]


def test_the_table_of_signatures_is_the_library_s() -> None:
    entries = {entry["name"]: entry for entry in ort_roialign.build_info()["operators"]}
    family = {f"{name}{suffix}" for name in OPERATORS for suffix in ("", "Grad")}
    assert set(entries) == family | {"PasteMasks"} == family | set(SIGNATURES)
    assert list(PASTE_MASKS.inputs) == entries["PasteMasks"]["inputs"]
    assert list(PASTE_MASKS.attributes) == entries["PasteMasks"]["attributes"]
    for name, signature in OPERATORS.items():
        assert signature.name == name
        forward, gradient = entries[name], entries[f"{name}Grad"]
        assert list(signature.inputs) == forward["inputs"]
        assert list(signature.attributes) == forward["attributes"] == gradient["attributes"]
        assert ["dY", *signature.inputs] == gradient["inputs"]
        assert [f"d{each}" for each in signature.gradients] == gradient["outputs"]


@pytest.mark.parametrize("name", list(OPERATORS))
def test_the_functions_defaults_are_the_table_s_and_the_library_s(
    name: str, rng: np.random.Generator
) -> None:
    signature = OPERATORS[name]
    function = getattr(ops, signature.function_name)
    parameters = inspect.signature(function).parameters
    for attribute, default in signature.attributes.items():
        wanted = inspect.Parameter.empty if default == () else default
        assert parameters[attribute].default == wanted
    case = next(case for case in CASES.values() if case.operator == name)
    given = {key: value for key, value in case.attributes.items() if key.startswith("spatial")}
    arrays = list(case.draw(rng, "float64").values())
    tensors = [Tensor(array.ctypes.data, array.dtype.name, array.shape) for array in arrays]
    if name == "DeformRoiPool":  # whose offset has the shape of more bins than the default's
        arrays[3], tensors[3] = None, ABSENT
    call = Call(name, given, tensors, 1)
    (output,) = call.infer()
    y = np.full(output.shape, np.nan)
    call.run([Tensor(y.ctypes.data, "float64", y.shape)])
    assert_array_equal(_as_list(function(*arrays, **given))[0], y)


@pytest.mark.parametrize("suffix", ["", "_grad"])
@pytest.mark.parametrize("name", ["roi_align", "roi_pool", "deform_roi_pool", "roi_align_rotated"])
def test_signatures_are_the_references(name: str, suffix: str) -> None:
    parameters = dict(inspect.signature(getattr(ops, name + suffix)).parameters)
    assert parameters.pop("threads").default == 0
    assert list(parameters.values()) == list(
        inspect.signature(getattr(reference, name + suffix)).parameters.values()
    )


@pytest.mark.parametrize("type_name", list(ELEMENT_TYPES))
def test_equals_the_reference(case: Case, type_name: str, rng: np.random.Generator) -> None:
    inputs = case.draw(rng, type_name)
    found = _as_list(_forward(case)(*inputs.values(), **case.attributes))
    for result, expected in zip(found, case.expected(inputs), strict=True):
        assert result.dtype == (np.int64 if expected.dtype == np.int64 else inputs["rois"].dtype)
        assert_allclose(result.astype(np.float64), expected, **KERNEL[type_name]._asdict())


@pytest.mark.parametrize("type_name", ["float32", "bfloat16"])
def test_gradients_equal_the_reference(
    case: Case, type_name: str, rng: np.random.Generator
) -> None:
    inputs = case.with_gradient(rng, case.draw(rng, type_name))
    found = _backward(case)(*inputs.values(), **case.attributes)
    wanted = case.backward(*inputs.values(), **case.attributes)
    assert type(found) is type(wanted)
    for gradient, expected in zip(_as_list(found), _as_list(wanted), strict=True):
        assert gradient.dtype == inputs["rois"].dtype
        assert_allclose(
            gradient.astype(np.float64), expected, *gradient_of_any_size(type_name, expected)
        )


def test_any_number_of_threads_gives_the_same_bits(case: Case, rng: np.random.Generator) -> None:
    inputs = case.with_gradient(rng, case.draw(rng, "float32", num_rois=40))
    one = _as_list(_backward(case)(*inputs.values(), **case.attributes, threads=1))
    for threads in (0, 2, 3):
        many = _as_list(_backward(case)(*inputs.values(), **case.attributes, threads=threads))
        for first, second in zip(one, many, strict=True):
            assert_array_equal(first, second)


@pytest.mark.parametrize(
    "change",
    [
        np.asfortranarray,
        lambda array: array.astype(array.dtype.newbyteorder(">")),
        lambda array: np.repeat(array, 2, axis=-1)[..., ::2],
        lambda array: np.frombuffer(b"x" + array.tobytes(), array.dtype, offset=1).reshape(
            array.shape
        ),
    ],
    ids=["fortran", "big-endian", "strided", "misaligned"],
)
def test_any_layout_in_memory(change: Any, rng: np.random.Generator) -> None:
    inputs = CASES["DeformRoiPool"].draw(rng, "float32")
    expected = ops.deform_roi_pool(*inputs.values(), **CASES["DeformRoiPool"].attributes)
    changed = [change(array) for array in inputs.values()]
    found = ops.deform_roi_pool(*changed, **CASES["DeformRoiPool"].attributes)
    assert_array_equal(found, expected)
    assert found.dtype == np.dtype("=f4")


def test_lists_take_the_type_of_the_maps() -> None:
    # The bins' centres 0, 0.5 minus half a cell, moved to 0 where they are less: x = 0, 0.25.
    expected = [[[[1, 1.25], [1.5, 1.75]]]]
    for type_ in (np.float64, np.float32, np.float16, ml_dtypes.bfloat16):
        y = ops.roi_align(
            X.astype(type_), ROIS.tolist(), [0], sampling_ratio=2, **FOUR_BINS, spatial_scale=1
        )
        assert y.dtype == type_
        assert_array_equal(y.astype(np.float64), expected)
    assert ops.roi_align(X.tolist(), ROIS.tolist(), [0]).dtype == np.float64
    assert ops.roi_align(X, np.zeros((0, 4)), []).shape == (0, 1, 1, 1)
    images = np.array([0], np.uint8)
    assert_array_equal(ops.roi_align(X, ROIS, images, sampling_ratio=2, **FOUR_BINS), expected)


def test_half_maps_and_float32_boxes() -> None:
    dy = np.ones((1, 1, 2, 2), np.float16)
    dx, drois = ops.pr_roi_pool_grad(
        dy, X.astype(np.float16), ROIS.astype(np.float32), IMAGES, **FOUR_BINS
    )
    assert (dx.dtype, drois.dtype) == (np.float16, np.float32)
    # mmcv's own numbers: see tests/torch/test_torch_functional.py.
    assert_array_equal(drois, [[2, 4, 2, 4]])


def test_no_boxes_give_a_gradient_of_zero() -> None:
    dx = ops.roi_align_grad(np.zeros((0, 1, 1, 1)), X, np.zeros((0, 4)), np.zeros(0, np.int64))
    assert_array_equal(dx, np.zeros_like(X))


@pytest.mark.parametrize(
    ("arguments", "options", "text"),
    [
        ((X, ROIS[:, :3], IMAGES), {}, r"rois must have shape \[num_rois, 4\]; got \[1, 3\]"),
        ((X[0], ROIS, IMAGES), {}, r"X must have shape \[num_images, .*; got \[1, 2, 2\]"),
        ((X[None], ROIS, IMAGES), {}, "at most 4 axes"),
        ((X, ROIS.astype(np.float32), IMAGES), {}, "rois must be of type float64, as X"),
        ((X.astype(int), ROIS, IMAGES), {}, "X must be of type float32, float64, .*; got int64"),
        ((X > 0, ROIS, IMAGES), {}, "X must be of type float32, float64, .*; got bool"),
        ((X, ROIS, np.array([0.5])), {}, "batch_indices must be of type int64; got float64"),
        ((X, ROIS, np.array([True])), {}, "batch_indices must be of type int64; got bool"),
        ((X, ROIS, 0), {}, "batch_indices must be an array; got one number"),
        ((X, ROIS, [1]), {}, r"batch_indices\[0\] must be in \[0, 1\); got 1"),
        ((X, ROIS * np.nan, [0]), {}, r"rois\[0\] must have finite coordinates"),
        ((X, ROIS, IMAGES), {"output_height": 1.5}, "output_height must be an integer; got 1.5"),
        ((X, ROIS, IMAGES), {"output_width": 0}, "output_width must be at least 1; got 0"),
        ((X, ROIS, IMAGES), {"spatial_scale": "a"}, "spatial_scale must be a float; got 'a'"),
        ((X, ROIS, IMAGES), {"mode": None}, "mode must be a string; got None"),
        ((X, ROIS, IMAGES), {"mode": 1}, "mode must be a string; got 1"),
        ((X, ROIS, IMAGES), {"mode": "sum"}, 'mode must be "avg" or "max"; got "sum"'),
        ((X, ROIS, IMAGES), {"threads": -1}, r"threads must be in \[0, 2147483647\]; got -1"),
        (
            (X, ROIS, IMAGES),
            {"threads": 2**31},
            r"threads must be in \[0, 2147483647\]; got 2147483648",
        ),
        ((X, ROIS, IMAGES), {"threads": None}, "threads must be an integer; got None"),
    ],
)
def test_errors(arguments: tuple[Any, ...], options: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidArgumentError, match=text):
        ops.roi_align(*arguments, **options)


def test_errors_of_other_functions() -> None:
    with pytest.raises(InvalidArgumentError, match=r"X must have shape .*; got none"):
        ops.multi_scale_roi_align(ROIS, IMAGES, spatial_scales=[1.0])
    with pytest.raises(InvalidArgumentError, match="spatial_scales must be a list of floats"):
        ops.multi_scale_roi_align(ROIS, IMAGES, X, spatial_scales=1)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="X must be as many maps"):
        ops.multi_scale_roi_align(ROIS, IMAGES, X, spatial_scales=[1.0, 0.5])
    with pytest.raises(InvalidArgumentError, match="DeformRoiPool: offset must be an array"):
        ops.deform_roi_pool(X, ROIS, IMAGES, 1.0)
    with pytest.raises(InvalidArgumentError, match="RoiPoolGrad: dY must have shape"):
        ops.roi_pool_grad(np.ones((1, 1, 1, 2)), X, ROIS, IMAGES)


def test_the_package_imports_without_ml_dtypes() -> None:
    code = "import sys; sys.modules['ml_dtypes'] = None; from ort_roialign import ops; " \
        "import numpy; ops.roi_align(numpy.ones((1, 1, 2, 2)), [[0, 0, 1, 1]], [0])"  # fmt: skip
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("attributes", "text"),
    [
        ({"output_height": 2**64 + 2}, "attribute output_height must be an integer of 64 bits"),
        ({"mode": "max\0zz"}, "RoiAlign: attribute mode must be text without NUL"),
        ({"mode": 1}, "RoiAlign: attribute mode must be a string; got an integer"),
        ({"level": 1}, "RoiAlign: attributes must be among mode, output_height"),
    ],
)
def test_attributes_that_c_cannot_hold_or_the_operator_lacks(
    attributes: dict[str, Any], text: str
) -> None:
    x, rois, images = np.ones((1, 1, 4, 4)), np.ones((1, 4)), np.zeros(1, np.int64)
    inputs = [Tensor(a.ctypes.data, a.dtype.name, a.shape) for a in (x, rois, images)]
    with pytest.raises(InvalidArgumentError, match=text):
        Call("RoiAlign", attributes, inputs, 1).infer()


@pytest.mark.parametrize(
    ("output", "text"),
    [
        (ABSENT, r"Y must have memory for shape \[1, 1, 1, 1\]; got none"),
        (Tensor(8, "float64", (1, 1, 1, 2)), r"\[1, 1, 1, 1\]; got type 1 and shape \[1, 1, 1, 2"),
        (Tensor(8, "float32", (1, 1, 1, 1)), r"must have type 1 and .* got type 0"),
    ],
)
def test_memory_of_another_shape_or_type_is_refused(output: Tensor, text: str) -> None:
    x, rois, images = np.ones((1, 1, 4, 4)), np.ones((1, 4)), np.zeros(1, np.int64)
    inputs = [Tensor(a.ctypes.data, a.dtype.name, a.shape) for a in (x, rois, images)]
    with pytest.raises(InvalidArgumentError, match=text):
        Call("RoiAlign", {}, inputs, 1).run([output])


@pytest.mark.parametrize(
    ("function", "arguments", "text"),
    [
        (
            ops.roi_align,
            (X, [[0, 0, 1, 1], [0]], IMAGES),
            r"RoiAlign: rois must be an array, or lists that are equally long; "
            r"got \[\[0, 0, 1, 1\], \[0\]\]",
        ),
        (ops.roi_align, ([[1.0], [1.0, 2.0]], ROIS, IMAGES), "RoiAlign: X must be an array, or"),
        (ops.roi_align, (X, ROIS, [[0], [0, 0]]), "RoiAlign: batch_indices must be an array, or"),
        (ops.roi_align_grad, ([[1], []], X, ROIS, IMAGES), "RoiAlignGrad: dY must be an array, or"),
        (ops.deform_roi_pool, (X, ROIS, IMAGES, [[1], []]), "DeformRoiPool: offset must be an arr"),
        (ops.roi_align, (X, [["a", "b", "c", "d"]], IMAGES), "rois must be of type .*; got str32"),
        (ops.roi_align, (X, [["0", "0", "1", "1"]], IMAGES), "rois must be of type .*; got str32"),
        (ops.roi_align, (X, "box", IMAGES), "rois must be of type float32, .*; got str96"),
        (ops.roi_align, ([[[["a"]]]], ROIS, IMAGES), "X must be of type float32, .*; got str32"),
        (ops.roi_align, (X, [[None] * 4], IMAGES), "rois must be of type float32, .*; got object"),
        (ops.roi_align, (X, [[10**400] * 4], IMAGES), "rois must be of type .*; got object"),
        (ops.roi_align, (X, [[1j] * 4], IMAGES), "rois must be of type .*; got complex128"),
        (ops.roi_align, (X, {}, IMAGES), "rois must be of type float32, .*; got object"),
        (
            ops.deform_roi_pool,
            (X, ROIS, IMAGES, [[[["a"]]]]),
            "DeformRoiPool: offset must be of type float32, .*; got str32",
        ),
    ],
)
def test_what_makes_no_array_of_numbers(
    function: Any, arguments: tuple[Any, ...], text: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=text):
        function(*arguments)


def test_maps_of_a_pyramid_that_make_no_array() -> None:
    text = "MultiScaleRoiAlign: X must be an array, or lists that are equally long; got "
    with pytest.raises(InvalidArgumentError, match=text):
        ops.multi_scale_roi_align(ROIS, IMAGES, X, [[1.0], []], spatial_scales=[1.0, 0.5])


@pytest.mark.unsanitized  # AddressSanitizer ends the process that asks for as much
@pytest.mark.parametrize("bins", [2**31 - 1, 2**24], ids=["beyond-numpy", "beyond-memory"])
@pytest.mark.parametrize("type_", [np.float64, ml_dtypes.bfloat16])
def test_outputs_that_no_memory_can_hold(type_: Any, bins: int) -> None:
    # 2^48 bins take more bytes than the addresses of a process have bits for.
    size = {"output_height": bins, "output_width": bins}
    text = rf"Y must fit into memory; got shape \[1, 32, {bins}, {bins}\] of type {np.dtype(type_)}"
    x, rois = np.ones((1, 32, 2, 2), type_), ROIS.astype(type_)
    with pytest.raises(InvalidArgumentError, match=f"RoiAlign: {text}"):
        ops.roi_align(x, rois, IMAGES, **size)
    with pytest.raises(InvalidArgumentError, match=f"RoiPool: {text}"):
        ops.roi_pool(x, rois, IMAGES, **size)


def test_a_number_that_is_no_float() -> None:
    with pytest.raises(InvalidArgumentError, match="spatial_scale must be a float; got 1000"):
        ops.roi_align(X, ROIS, IMAGES, spatial_scale=10**400)


@pytest.mark.parametrize("type_", [bool, int, np.uint8, np.float16, ml_dtypes.bfloat16])
def test_lists_of_any_numbers(type_: Any) -> None:
    rois = [[type_(number) for number in (0, 0, 1, 1)]]
    assert_array_equal(ops.roi_align(X, rois, IMAGES), ops.roi_align(X, ROIS, IMAGES))


@pytest.mark.parametrize("name", ["roi_align", "roi_pool", "pr_roi_pool", "deform_roi_pool"])
def test_gradients_of_maps_without_channels(name: str) -> None:
    """However large the axes of a tensor without numbers are."""
    x = np.empty((1, 0, 2**30, 2**30), np.float32)
    gradient = getattr(ops, f"{name}_grad")
    found = gradient(np.empty((1, 0, 2, 3), np.float32), x, [[0, 0, 5, 5]], [0], output_height=2,
                     output_width=3)  # fmt: skip
    dx, *others = found if isinstance(found, tuple) else (found,)
    assert dx.shape == x.shape
    for other in others:
        assert np.all(other == 0)
