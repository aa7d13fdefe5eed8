"""Element types of maps, as NumPy arrays hold them and as ONNX numbers them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from onnx import TensorProto

from ort_roialign.benchmarks.problems import Array


@dataclass(frozen=True)
class ElementType:
    """An element type.

    Attributes:
        onnx_type: its number in ONNX.
        storage: the NumPy type of the same size that holds its bits.
        tolerance: largest difference to a float32 result, as a part of the map's largest value;
            the inputs are rounded to the type as well.
    """

    onnx_type: int
    storage: np.dtype[Any]
    tolerance: float

    def encode(self, values: Array) -> Array:
        """Return float32 values, rounded to this type, in its storage."""
        if self.onnx_type != TensorProto.BFLOAT16:
            return values.astype(self.storage)
        # The upper half of a float32, rounded to the nearest, ties to even.
        bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)

    def decode(self, stored: Array) -> Array:
        """Return what the storage holds as float32 or float64 values."""
        if self.onnx_type == TensorProto.BFLOAT16:
            return (stored.astype(np.uint32) << 16).view(np.float32)
        return stored.astype(np.promote_types(self.storage, np.float32))

    @property
    def not_a_number(self) -> Any:
        """A NaN as the storage holds it."""
        return 0x7FC0 if self.onnx_type == TensorProto.BFLOAT16 else np.nan

    @property
    def roi_type(self) -> np.dtype[Any]:
        """The type of boxes: float32 also for narrower maps, as the exporters write it."""
        wide = self.onnx_type == TensorProto.DOUBLE
        return np.dtype(np.float64 if wide else np.float32)


# Sums of some hundreds of products in another order differ by about 1e-6 of the largest; the rest
# is room for samples that lie at a border by one rounding and behind it by another.
FLOAT32 = ElementType(TensorProto.FLOAT, np.dtype(np.float32), 1e-4)
ELEMENT_TYPES: Mapping[str, ElementType] = MappingProxyType(
    {
        "float32": FLOAT32,
        "float64": ElementType(TensorProto.DOUBLE, np.dtype(np.float64), 1e-4),
        # 2^-11 for the map and 2^-11 for the result.
        "float16": ElementType(TensorProto.FLOAT16, np.dtype(np.float16), 1.1e-3),
        # 2^-8 for the map and 2^-8 for the result.
        "bfloat16": ElementType(TensorProto.BFLOAT16, np.dtype(np.uint16), 8e-3),
    }
)
