"""What the operators of the domain `ort_roialign` take, for the Python code that calls them.

The library is the truth of it, and checks what it is given; a test holds this table against it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

Default = int | float | str | tuple[float, ...] | type[float] | None


@dataclass(frozen=True)
class Signature:
    """Inputs and attributes of an operator; what is said of gradients goes for RoI operators.

    Attributes:
        name: in the domain, such as "RoiAlign". Its gradient is `name + "Grad"`, and takes the
            gradient `dY` for the first output, then the same inputs and attributes.
        inputs: their names, in the operator's order.
        attributes: name -> default, whose type is the attribute's: a tuple stands for a list of
            floats. An empty tuple has to be given; None is an integer that the library derives
            from the other attributes; the type float stands for one that may be absent.
        optional_inputs: those of `inputs` that may be left out.
        variadic: whether the last input is a list of one tensor or more.
        gradients: those of `inputs` that the gradient operator gives gradients for, in its order.
        channel_per_bin: whether each bin reads channels of its own, so that the output has fewer
            than the map by a factor of output_height * output_width.
    """

    name: str
    inputs: tuple[str, ...]
    attributes: Mapping[str, Default]
    optional_inputs: tuple[str, ...] = ()
    variadic: bool = False
    gradients: tuple[str, ...] = ("X",)
    channel_per_bin: bool = False

    def gradient_reads_maps(self, attributes: Mapping[str, object]) -> bool:
        """Whether the gradient depends on the maps' values, not on their sizes alone."""
        linear = "mode" in self.attributes or self.channel_per_bin
        return not linear or attributes.get("mode") == "max"

    @property
    def function_name(self) -> str:
        """The name in snake_case, that Python functions have: "roi_align"."""
        return re.sub(r"(?<!^)(?=[A-Z])", "_", self.name).lower()


_ONE_MAP = ("X", "rois", "batch_indices")
_MAPS = ("rois", "batch_indices", "X")
_SIZE: Mapping[str, Default] = {"output_height": 1, "output_width": 1}
_POOL: Mapping[str, Default] = {**_SIZE, "spatial_scale": 1.0}
_LEVELS: Mapping[str, Default] = {
    "spatial_scales": (),
    "canonical_scale": 224.0,
    "canonical_level": 4,
    "min_level": None,
    "max_level": None,
    "log_epsilon": 0.0,
    "level_epsilon": 1e-6,
}
_ALIGN_ON_LEVELS: Mapping[str, Default] = {"mode": "avg", **_SIZE, "sampling_ratio": 0}
_ORIGIN: Mapping[str, Default] = {"coordinate_transformation_mode": "half_pixel"}
_ANGLE: Mapping[str, Default] = {"angle_unit": "radians", "clockwise": 0}
_ALIGN: Mapping[str, Default] = {**_ALIGN_ON_LEVELS, "spatial_scale": 1.0, **_ORIGIN}
_GRID: Mapping[str, Default] = {**_SIZE, "sampling_ratio": 0, "spatial_scale": 1.0}

_SIGNATURES = (
    Signature("RoiAlign", _ONE_MAP, _ALIGN),
    Signature(
        "MultiScaleRoiAlign",
        _MAPS,
        {**_LEVELS, **_ALIGN_ON_LEVELS, **_ORIGIN},
        variadic=True,
    ),
    Signature("RoiAlignRotated", _ONE_MAP, {**_ALIGN, **_ANGLE}),
    Signature(
        "MultiScaleRoiAlignRotated",
        _MAPS,
        {**_LEVELS, **_ALIGN_ON_LEVELS, **_ORIGIN, **_ANGLE},
        variadic=True,
    ),
    Signature("RoiPool", _ONE_MAP, _POOL),
    Signature("PsRoiAlign", _ONE_MAP, _GRID, channel_per_bin=True),
    Signature("PsRoiPool", _ONE_MAP, _POOL, channel_per_bin=True),
    Signature("PrRoiPool", _ONE_MAP, _POOL, gradients=("X", "rois")),
    Signature(
        "DeformRoiPool",
        (*_ONE_MAP, "offset"),
        {**_GRID, **_ORIGIN, "gamma": 0.1},
        optional_inputs=("offset",),
        gradients=("X", "offset"),
    ),
)

# Those that pool RoIs, each with its gradient.
OPERATORS: Mapping[str, Signature] = MappingProxyType(
    {signature.name: signature for signature in _SIGNATURES}
)

PASTE_MASKS = Signature(
    "PasteMasks",
    ("masks", "boxes", "image_size"),
    {"padding": 1, "threshold": float},
    gradients=(),
)

# All forward operators.
SIGNATURES: Mapping[str, Signature] = MappingProxyType({**OPERATORS, "PasteMasks": PASTE_MASKS})
