"""Numbers that stand for the sizes of tensors that are traced, so that the library can check them.

A size that may vary is a symbol. The compiler knows its value in the example that it traces (its
hint), unless the size depends on data, as the number of boxes after a threshold does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

# Axes with the same letter have the same size: K boxes, N images, C a map's channels, D the
# output's, P and Q output bins, R a box's numbers, T the two ways of an offset.
_AXES = {"X": "NCHW", "rois": "KR", "batch_indices": "K", "offset": "KTPQ", "dY": "KDPQ"}


def numbers_of_sizes(
    tensors: Sequence[tuple[str, torch.Tensor | None]], stand_ins: Mapping[str, int]
) -> list[tuple[int, ...]]:
    """Return the tensors' shapes in numbers, without a guard: nothing is decided by a symbol.

    Args:
        tensors: an operator's inputs with their names; None for one that is left out.
        stand_ins: size of the axes that depend on data, 1 where there is none: axis letter ->
            number. It counts for all axes with that letter as soon as one of them needs it, because
            a number from elsewhere may differ from it.

    Returns:
        The shapes of those that are there.
    """
    shapes = [
        [
            (axis, number_of_size(size))
            for axis, size in zip(_axes(name, tensor), tensor.shape, strict=True)
        ]
        for name, tensor in tensors
        if tensor is not None
    ]
    unknown = {axis for shape in shapes for axis, number in shape if number is None}
    if unknown & set("CD"):  # either follows from the other
        unknown |= set("CD")
    return [
        tuple(
            stand_ins.get(axis, 1) if number is None or axis in unknown else number
            for axis, number in shape
        )
        for shape in shapes
    ]


def _axes(name: str, tensor: torch.Tensor) -> str:
    """The letters of a tensor's axes; where it has too few or too many, the library says so."""
    return _AXES[name][: tensor.dim()].ljust(tensor.dim(), "?")


def number_of_size(size: int | torch.SymInt) -> int | None:
    """Return a size, or a symbol's value in the example; None if it depends on data."""
    if not isinstance(size, torch.SymInt):
        return int(size)  # while TorchScript traces, it is a tensor
    hint = size.node.hint  # public functions for it differ between PyTorch 2.9 and 2.14
    return hint if isinstance(hint, int) else None
