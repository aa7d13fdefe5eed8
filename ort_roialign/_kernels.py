"""Calls the library's kernels without a session: on memory that is described by pointers."""

from __future__ import annotations

import ctypes
import functools
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ort_roialign._library import LIBRARY_VARIABLE, get_library_path
from ort_roialign.errors import InvalidArgumentError, OrtRoiAlignError

# As the library numbers them.
TYPE_NAMES = ("float32", "float64", "float16", "bfloat16", "int64", "uint8")
_MOST_AXES = 4
_INTEGER, _REAL, _TEXT, _REALS, _INTEGERS, _OTHER = range(6)
_BROKEN_CONTRACT = 1


class Unreadable(NamedTuple):
    """The value of an attribute that no operator reads: one that does refuses it, and says what."""

    what: str


class Integers(NamedTuple):
    """An attribute of integers, where other sequences are of floats."""

    values: tuple[int, ...]


Attribute = int | float | str | Sequence[float] | Integers | Unreadable

_HASHABLE = (int, float, str, Integers, Unreadable)

# ctypes makes such a type anew, or looks for it, wherever `type * number` is written.
_Shape = ctypes.c_int64 * _MOST_AXES
_ErrorText = ctypes.c_char * 1024


class Tensor(NamedTuple):
    """Contiguous memory that a kernel reads or writes.

    Attributes:
        pointer: its address, on the host or on the device; 0 for a tensor that is left out.
        type_name: one of `TYPE_NAMES`.
        shape: sizes of at most four axes; none for a tensor that is left out.
    """

    pointer: int
    type_name: str
    shape: tuple[int, ...]


ABSENT = Tensor(0, "float32", ())
_TYPE_NUMBERS = {name: number for number, name in enumerate(TYPE_NAMES)}


class _CAttribute(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("kind", ctypes.c_int32),
        ("integer", ctypes.c_int64),
        ("real", ctypes.c_float),
        ("text", ctypes.c_char_p),
        ("reals", ctypes.POINTER(ctypes.c_float)),
        ("integers", ctypes.POINTER(ctypes.c_int64)),
        ("num_values", ctypes.c_int64),
    )


class _CTensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("type", ctypes.c_int32),
        ("rank", ctypes.c_int32),
        ("shape", _Shape),
    )


class _CCall(ctypes.Structure):
    _fields_ = (
        ("op", ctypes.c_char_p),
        ("on_cuda", ctypes.c_int32),
        ("stream", ctypes.c_void_p),
        ("threads", ctypes.c_int32),
        ("attributes", ctypes.POINTER(_CAttribute)),
        ("num_attributes", ctypes.c_int64),
        ("inputs", ctypes.POINTER(_CTensor)),
        ("num_inputs", ctypes.c_int64),
        ("outputs", ctypes.POINTER(_CTensor)),
        ("num_outputs", ctypes.c_int64),
    )


_OF_CALL = (ctypes.POINTER(_CCall), ctypes.c_char_p, ctypes.c_size_t)
_ARGUMENTS = {
    "ort_roialign_infer": _OF_CALL,
    "ort_roialign_run": _OF_CALL,
    "ort_roialign_translate": (
        ctypes.c_char_p,
        ctypes.POINTER(_CCall),
        ctypes.POINTER(ctypes.c_char_p),
        *_OF_CALL[1:],
    ),
}


class Call:
    """A call of a kernel in the library's own form, made once for its checks and for its run.

    Args:
        operator: name in the domain `ort_roialign`, such as "RoiAlign" or "RoiAlignGrad".
        attributes: name -> value; absent ones have the operator's default.
        inputs: of the operator, in its order; `ABSENT` for an optional one.
        num_outputs: how many of the first outputs are wanted.

    Raises:
        InvalidArgumentError: if the library cannot be told of an attribute or a tensor.
    """

    def __init__(
        self,
        operator: str,
        attributes: Mapping[str, Attribute],
        inputs: Sequence[Tensor],
        num_outputs: int,
    ) -> None:
        self._operator = operator
        c_attributes = _c_attributes_of(operator, attributes)
        c_inputs = (_CTensor * len(inputs))(*[_c_tensor(operator, each) for each in inputs])
        self._outputs = (_CTensor * num_outputs)()
        # ctypes structures hold what they point to, so the call keeps all of it alive.
        self._call = _CCall(
            op=operator.encode(),
            attributes=c_attributes,
            num_attributes=len(c_attributes),
            inputs=c_inputs,
            num_inputs=len(inputs),
            outputs=self._outputs,
            num_outputs=num_outputs,
        )

    def infer(self) -> list[Tensor]:
        """Return types and shapes of the outputs, without memory.

        Raises:
            InvalidArgumentError: if types, shapes or attributes break the operator's contract.
        """
        _check("ort_roialign_infer", ctypes.byref(self._call))
        return [
            Tensor(0, TYPE_NAMES[output.type], tuple(output.shape[: output.rank]))
            for output in self._outputs
        ]

    def run(
        self, outputs: Sequence[Tensor], *, threads: int = 0, cuda_stream: int | None = None
    ) -> None:
        """Run the kernel.

        Args:
            outputs: memory of the types and shapes that `infer` gives; `ABSENT` for an optional
                one.
            threads: of the CPU kernels; 0: one a core that this process may use.
            cuda_stream: the stream that tensors on the current CUDA device belong to; None: all
                tensors are in the host's memory.

        Raises:
            InvalidArgumentError: if the call breaks the operator's contract.
            OrtRoiAlignError: if it fails for another reason.
        """
        for number, output in enumerate(outputs):
            self._outputs[number] = _c_tensor(self._operator, output)
        self._call.threads = threads or len(os.sched_getaffinity(0))
        self._call.on_cuda = cuda_stream is not None
        self._call.stream = cuda_stream
        _check("ort_roialign_run", ctypes.byref(self._call))


def translate(
    domain: str, operator: str, attributes: Mapping[str, Attribute], num_inputs: int
) -> tuple[str, dict[str, Attribute]]:
    """Tell an operator of another domain in terms of this package's.

    Args:
        domain: as models name it, such as "mmcv".
        operator: its name there.
        attributes: its attributes; those that are not known do not count.
        num_inputs: how many inputs it has.

    Returns:
        This package's operator, and all its attributes that differ from its defaults.

    Raises:
        InvalidArgumentError: if attributes or the number of inputs break the operator's contract,
            or no operator of this package does the same.
    """
    c_attributes = _c_attributes_of(operator, attributes)
    call = _CCall(
        op=operator.encode(),
        attributes=c_attributes,
        num_attributes=len(c_attributes),
        num_inputs=num_inputs,
    )
    answer = ctypes.c_char_p()
    _check("ort_roialign_translate", domain.encode(), ctypes.byref(call), ctypes.byref(answer))
    translated = json.loads(answer.value or b"")
    return translated["operator"], translated["attributes"]


@functools.cache  # looking for the library takes longer than a small call
def _function_of(_override: str | None, name: str) -> Any:
    path = get_library_path()
    try:
        function = getattr(ctypes.CDLL(path), name)
    except (OSError, AttributeError) as error:
        raise OrtRoiAlignError(f"{path} is not a library of ort_roialign: {error}") from error
    function.restype = ctypes.c_int32
    function.argtypes = _ARGUMENTS[name]
    return function


def _check(name: str, *arguments: Any) -> None:
    function = _function_of(os.environ.get(LIBRARY_VARIABLE), name)
    error = _ErrorText()
    status = function(*arguments, error, len(error))
    if status == 0:
        return
    text = error.value.decode(errors="replace")
    raise (InvalidArgumentError if status == _BROKEN_CONTRACT else OrtRoiAlignError)(text)


def _c_attributes_of(
    operator: str, attributes: Mapping[str, Attribute]
) -> ctypes.Array[_CAttribute]:
    hashable = (
        (name, type(value), value if isinstance(value, _HASHABLE) else tuple(value))
        for name, value in attributes.items()
    )
    return _c_attributes(operator, tuple(hashable))


# A layer's attributes are the same in every call. The types are part of the key because 1 == 1.0.
@functools.lru_cache(maxsize=256)
def _c_attributes(
    operator: str, attributes: tuple[tuple[str, type, Attribute], ...]
) -> ctypes.Array[_CAttribute]:
    c_attributes = [_c_attribute(operator, name, value) for name, _, value in attributes]
    return (_CAttribute * len(c_attributes))(*c_attributes)


def _c_attribute(operator: str, name: str, value: Attribute) -> _CAttribute:
    attribute = _CAttribute(name=name.encode())
    if isinstance(value, str):
        if "\0" in value:
            raise InvalidArgumentError(
                f"{operator}: attribute {name} must be text without NUL; got {value!r}"
            )
        attribute.kind, attribute.text = _TEXT, value.encode()
    elif isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise InvalidArgumentError(
                f"{operator}: attribute {name} must be an integer of 64 bits; got {value}"
            )
        attribute.kind, attribute.integer = _INTEGER, value
    elif isinstance(value, float):
        attribute.kind, attribute.real = _REAL, value
    elif isinstance(value, Unreadable):
        attribute.kind, attribute.text = _OTHER, value.what.encode()
    elif isinstance(value, Integers):
        attribute.kind, attribute.num_values = _INTEGERS, len(value.values)
        attribute.integers = (ctypes.c_int64 * len(value.values))(*value.values)
    else:
        attribute.kind, attribute.num_values = _REALS, len(value)
        attribute.reals = (ctypes.c_float * len(value))(*value)
    return attribute


def _c_tensor(operator: str, tensor: Tensor) -> _CTensor:
    if len(tensor.shape) > _MOST_AXES:
        raise InvalidArgumentError(
            f"{operator}: tensors must have at most {_MOST_AXES} axes; got {list(tensor.shape)}"
        )
    return _CTensor(
        tensor.pointer or None,
        _TYPE_NUMBERS[tensor.type_name],
        len(tensor.shape),
        _Shape(*tensor.shape),
    )
