"""Calls a kernel with a function's arguments: arrays to pointers, and back to arrays."""

from __future__ import annotations

import operator
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ort_roialign._kernels import ABSENT, TYPE_NAMES, Attribute, Call, Tensor
from ort_roialign._signatures import OPERATORS, SIGNATURES, Default, Signature
from ort_roialign.errors import InvalidArgumentError

Array = npt.NDArray[Any]
_MOST_THREADS = 2**31 - 1  # that the C interface can be told of
_INTEGERS = ("batch_indices", "image_size")  # inputs
_NUMBERS = "biufV"  # kinds of types; V has bfloat16, and text would become numbers unasked


def forward(name: str, arguments: Mapping[str, Any], num_outputs: int = 1) -> list[Array]:
    """Run an operator.

    Args:
        name: in the domain `ort_roialign`.
        arguments: those of the Python function: the inputs in small letters, the attributes, and
            `threads`; the maps of a multi-scale operator are `maps`.
        num_outputs: how many are wanted.

    Raises:
        InvalidArgumentError: if the call breaks the operator's contract.
    """
    signature = SIGNATURES[name]
    outputs = ("Y", "argmax")[:num_outputs]
    return _call(name, signature, _inputs(signature, arguments), arguments, outputs)


def gradient(name: str, arguments: Mapping[str, Any]) -> list[Array]:
    """Run an operator's gradient operator: as `forward`, with `dy` among the arguments.

    Returns:
        All of its outputs.
    """
    signature = OPERATORS[name]
    inputs = _inputs(signature, arguments)
    outputs = [f"d{input_name}" for input_name, _ in inputs if input_name in signature.gradients]
    inputs = [("dY", arguments["dy"]), *inputs]
    return _call(f"{name}Grad", signature, inputs, arguments, outputs)


def _inputs(signature: Signature, arguments: Mapping[str, Any]) -> list[tuple[str, Any]]:
    names = signature.inputs[:-1] if signature.variadic else signature.inputs
    inputs = [(name, arguments[name.lower()]) for name in names]
    return inputs + [(signature.inputs[-1], each) for each in arguments.get("maps", ())]


def _call(
    name: str,
    signature: Signature,
    inputs: list[tuple[str, Any]],
    arguments: Mapping[str, Any],
    output_names: Sequence[str],
) -> list[Array]:
    threads = _integer(name, "threads", arguments["threads"])
    if not 0 <= threads <= _MOST_THREADS:
        raise InvalidArgumentError(
            f"{name}: threads must be in [0, {_MOST_THREADS}]; got {threads}"
        )
    attributes: dict[str, Attribute] = {
        attribute: _attribute(name, attribute, default, arguments[attribute])
        for attribute, default in signature.attributes.items()
        if arguments[attribute] is not None or default not in (None, float)
    }
    arrays = _arrays(name, inputs)
    tensors = [ABSENT if array is None else _tensor(array) for array in arrays]
    # Only the types of the maps and of the boxes can be ones that NumPy does not know by name.
    types = {array.dtype.name: array.dtype for array in arrays if array is not None}
    types["uint8"] = np.dtype(np.uint8)
    call = Call(name, attributes, tensors, len(output_names))
    outputs = [
        _memory(name, output_name, output.shape, types[output.type_name])
        for output_name, output in zip(output_names, call.infer(), strict=True)
    ]
    call.run([_tensor(output) for output in outputs], threads=threads)
    return outputs


def _memory(name: str, output_name: str, shape: tuple[int, ...], type_: np.dtype[Any]) -> Array:
    try:
        return np.empty(shape, type_)
    except (MemoryError, ValueError) as error:  # the second one beyond what NumPy can count
        raise InvalidArgumentError(
            f"{name}: {output_name} must fit into memory; got shape {list(shape)} of type {type_}"
        ) from error


def _arrays(name: str, inputs: list[tuple[str, Any]]) -> list[Array | None]:
    """The inputs as arrays that a kernel can read; numbers that are no array become the maps'."""
    map_type = next(
        (
            _array(name, input_name, value).dtype
            for input_name, value in inputs
            if input_name in ("X", "masks")
        ),
        None,
    )
    boxes_type = map_type if map_type == np.float64 else np.dtype(np.float32)
    wanted = dict.fromkeys(("dY", "X", "offset", "masks"), map_type)
    wanted |= dict.fromkeys(("rois", "boxes"), boxes_type)
    arrays: list[Array | None] = []
    for input_name, value in inputs:
        if value is None:
            arrays.append(None)
            continue
        array = _array(name, input_name, value)
        if input_name in wanted and not hasattr(value, "dtype") and array.dtype.kind in _NUMBERS:
            array = array.astype(wanted[input_name], copy=False)
        if input_name in _INTEGERS and (array.dtype.kind in "iu" or not array.size):
            array = _int64(name, input_name, array)
        _check_array(name, input_name, array)
        native = array.dtype.newbyteorder("=")
        arrays.append(np.require(array, native, ["C_CONTIGUOUS", "ALIGNED"]))
    return arrays


def _int64(name: str, input_name: str, array: Array) -> Array:
    largest = array.max() if array.dtype == np.uint64 and array.size else 0
    if largest > np.iinfo(np.int64).max:
        raise InvalidArgumentError(
            f"{name}: {input_name} must be integers that int64 holds; got {largest}"
        )
    return array.astype(np.int64, copy=False)


def _array(name: str, input_name: str, value: Any) -> Array:
    try:
        return np.asarray(value)
    except ValueError as error:
        raise InvalidArgumentError(
            f"{name}: {input_name} must be an array, or lists that are equally long; "
            f"got {reprlib.repr(value)}"
        ) from error


def _check_array(name: str, input_name: str, array: Array) -> None:
    """Raises `InvalidArgumentError` for what the library cannot be told of."""
    if array.dtype.name not in TYPE_NAMES:
        required = "int64" if input_name in _INTEGERS else "float32, float64, float16 or bfloat16"
        raise InvalidArgumentError(
            f"{name}: {input_name} must be of type {required}; got {array.dtype.name}"
        )
    if array.ndim == 0:  # to the library, a tensor without axes is one that is left out
        raise InvalidArgumentError(f"{name}: {input_name} must be an array; got one number")


def _tensor(array: Array) -> Tensor:
    return Tensor(array.ctypes.data, array.dtype.name, array.shape)


def _attribute(name: str, attribute: str, default: Default, value: Any) -> Attribute:
    """The value in the attribute's type, so that 1 is a float where a float is required."""
    if isinstance(default, str):
        if isinstance(value, str):
            return value
        raise InvalidArgumentError(f"{name}: attribute {attribute} must be a string; got {value!r}")
    if isinstance(default, int) or default is None:
        return _integer(name, f"attribute {attribute}", value)
    try:
        if not isinstance(default, tuple):
            return float(value)
        return [float(number) for number in value]
    except (OverflowError, TypeError, ValueError) as error:
        required = "a list of floats" if isinstance(default, tuple) else "a float"
        raise InvalidArgumentError(
            f"{name}: attribute {attribute} must be {required}; got {value!r}"
        ) from error


def _integer(name: str, argument: str, value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError as error:
        raise InvalidArgumentError(
            f"{name}: {argument} must be an integer; got {value!r}"
        ) from error
