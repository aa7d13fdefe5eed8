"""The opset of a model, without the package onnx and without reading weights.

Source: onnx.proto (`ModelProto.opset_import`, `OperatorSetIdProto`), and protobuf's encoding.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from typing import BinaryIO

from ort_roialign._domains import STANDARD_DOMAINS

# From this opset on ONNX's RoiAlign has coordinate_transformation_mode, whose default moves boxes.
COORDINATE_MODE_SINCE = 16
_OPSET_IMPORT = 8  # of a model
_DOMAIN, _VERSION = 1, 2  # of an opset_import
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_MOST_BYTES = 256  # of an opset_import, which is a short name and a number


def default_opset(model: object) -> int | None:
    """Return the version of the standard domain.

    Args:
        model: path of an ONNX file, its bytes, or an `onnx.ModelProto`.

    Returns:
        The version, or None if the model says none or is something else, such as a file of
        onnxruntime's own format.
    """
    if hasattr(model, "opset_import"):
        imports = [(each.domain, each.version) for each in model.opset_import]
    elif isinstance(model, bytes):
        imports = _read_imports(io.BytesIO(model))
    elif isinstance(model, str | os.PathLike) and os.path.isfile(model):
        with open(model, "rb") as file:
            imports = _read_imports(file)
    else:
        return None
    return max((version for domain, version in imports if domain in STANDARD_DOMAINS), default=None)


def _read_imports(file: BinaryIO) -> list[tuple[str, int]]:
    imports = []
    try:
        for number, value in _fields(file):
            if number != _OPSET_IMPORT or not isinstance(value, bytes):
                continue
            fields = dict(_fields(io.BytesIO(value)))
            domain, version = fields.get(_DOMAIN, b""), fields.get(_VERSION, 0)
            if isinstance(domain, bytes) and isinstance(version, int):
                imports.append((domain.decode(), version))
    except (ValueError, OverflowError):  # not a model: onnxruntime will say so
        return []
    return imports


def _fields(file: BinaryIO) -> Iterator[tuple[int, int | bytes]]:
    """Yield numbers and values of a message's fields; long ones are passed over."""
    while first := file.read(1):
        key = _varint(file, first)
        kind = key & 7
        if kind == _VARINT:
            yield key >> 3, _varint(file, file.read(1))
        elif kind == _LENGTH:
            length = _varint(file, file.read(1))
            if length <= _MOST_BYTES:
                yield key >> 3, file.read(length)
            else:
                file.seek(length, os.SEEK_CUR)
        elif kind in (_FIXED64, _FIXED32):
            file.seek(8 if kind == _FIXED64 else 4, os.SEEK_CUR)
        else:
            raise ValueError(f"a field of kind {kind}")


def _varint(file: BinaryIO, byte: bytes) -> int:
    value = shift = 0
    while byte:
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
        shift += 7
        byte = file.read(1) if shift < 64 else b""
    raise ValueError("an integer without an end")
