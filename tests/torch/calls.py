"""One call of each operator in PyTorch, on random data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

import ort_roialign.torch  # noqa: F401  registers the operators
from ort_roialign._signatures import OPERATORS

SCALE = 0.25
SIZE = {"output_height": 2, "output_width": 3}
ATTRIBUTES: dict[str, Any] = {
    **SIZE,
    "mode": "avg",
    "sampling_ratio": 2,
    "spatial_scale": SCALE,
    "coordinate_transformation_mode": "half_pixel",
    "angle_unit": "radians",
    "clockwise": 0,
    "spatial_scales": [SCALE, SCALE / 2],
    "canonical_scale": 16.0,
    "canonical_level": 3,
    "min_level": 2,
    "max_level": 3,
    "log_epsilon": 0.0,
    "level_epsilon": 1e-6,
    "gamma": 0.5,
}
# Every operator and reduction.
VARIANTS = [
    (name, mode)
    for name, signature in OPERATORS.items()
    for mode in (("avg", "max") if "mode" in signature.attributes else ("avg",))
]


@dataclass
class Call:
    """The arguments of an operator: its tensors, then the attributes."""

    name: str
    tensors: list[Any]
    attributes: list[Any]

    @property
    def operator(self) -> Any:
        return getattr(torch.ops.ort_roialign, OPERATORS[self.name].function_name).default

    @property
    def gradient_operator(self) -> Any:
        name = f"{OPERATORS[self.name].function_name}_grad"
        return getattr(torch.ops.ort_roialign, name).default

    @property
    def arguments(self) -> tuple[Any, ...]:
        return (*self.tensors, *self.attributes)

    @property
    def all_wanted(self) -> list[bool]:
        """The gradient operator's last arguments, which say that all gradients are wanted."""
        gradients = OPERATORS[self.name].gradients
        return [True] * len(gradients) if len(gradients) > 1 else []

    @property
    def gradient_arguments(self) -> tuple[Any, ...]:
        """Those of the gradient operator, with a random `dy`."""
        y = self.operator(*self.arguments).detach()
        return (_random_like(y), *self.arguments, *self.all_wanted)

    def variables(self) -> list[torch.Tensor]:
        """The tensors that the operator has a gradient for."""
        names = OPERATORS[self.name].gradients
        chosen = [self.tensors[OPERATORS[self.name].inputs.index(name)] for name in names]
        return [
            each for value in chosen for each in (value if isinstance(value, list) else [value])
        ]

    def of_variables(self) -> Callable[..., torch.Tensor]:
        """The operator as a function of `variables()`."""
        places = {id(tensor): number for number, tensor in enumerate(self.variables())}

        def pick(value: Any, variables: Sequence[torch.Tensor]) -> Any:
            if isinstance(value, list):
                return [pick(each, variables) for each in value]
            return variables[places[id(value)]] if id(value) in places else value

        def function(*variables: torch.Tensor) -> torch.Tensor:
            tensors = [pick(value, variables) for value in self.tensors]
            result: torch.Tensor = self.operator(*tensors, *self.attributes)
            return result

        return function


def make_call(
    rng: np.random.Generator,
    name: str,
    *,
    x_type: torch.dtype = torch.float64,
    rois_type: torch.dtype | None = None,
    images: int = 2,
    channels: int = 1,
    height: int = 5,
    width: int = 7,
    num_rois: int = 3,
    **attributes: Any,
) -> Call:
    """Draws a call. Cells of a map differ by 1/8 at least, so that no two are a maximum.

    Args:
        rng: where the numbers come from.
        name: of an operator.
        x_type: of the maps.
        rois_type: of the boxes, by default that of the maps.
        images: extent of the maps, like the next three; the second map of a pyramid is half as high
            and wide.
        channels: of the output.
        height: in cells.
        width: in cells.
        num_rois: number of boxes.
        **attributes: other values than those of `ATTRIBUTES`.
    """
    signature, chosen = OPERATORS[name], {**ATTRIBUTES, **attributes}
    bins = chosen["output_height"] * chosen["output_width"]
    map_channels = channels * (bins if signature.channel_per_bin else 1)
    maps = [
        distinct_numbers(rng, (images, map_channels, -(-height // step), -(-width // step)), x_type)
        for step in ((1, 2) if signature.variadic else (1,))
    ]
    centres = rng.uniform(-0.1, 1.1, (num_rois, 2)) * (width / SCALE, height / SCALE)
    sides = rng.uniform(8, 24, (num_rois, 2))  # pixels: 2 to 6 cells, of both levels
    boxes = np.column_stack([centres - sides / 2, centres + sides / 2])
    if "angle_unit" in signature.attributes:
        boxes = np.column_stack([centres, sides, rng.uniform(-4, 4, num_rois)])
    given = {
        "X": maps if signature.variadic else maps[0],
        "rois": torch.tensor(boxes).to(rois_type or x_type),
        "batch_indices": torch.tensor(rng.integers(0, images, num_rois)),
        "offset": torch.tensor(
            rng.uniform(-1, 1, (num_rois, 2, chosen["output_height"], chosen["output_width"]))
        ).to(x_type),
    }
    tensors = [given[input_name] for input_name in signature.inputs]
    return Call(name, tensors, [chosen[attribute] for attribute in signature.attributes])


def distinct_numbers(
    rng: np.random.Generator, shape: tuple[int, ...], type_: torch.dtype
) -> torch.Tensor:
    """Numbers around 0, none of which is 0 or equal to another."""
    count = int(np.prod(shape))
    return torch.tensor((rng.permutation(count) - count // 2 + 0.5) / 8).to(type_).reshape(shape)


def _random_like(tensor: torch.Tensor) -> torch.Tensor:
    generator = torch.Generator().manual_seed(tensor.numel())
    return torch.randn(tensor.shape, generator=generator, dtype=torch.float64).to(tensor.dtype)
