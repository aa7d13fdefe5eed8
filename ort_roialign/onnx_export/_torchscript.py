"""Translations for PyTorch's TorchScript exporter (`dynamo=False`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torchvision  # noqa: F401  registers its own symbolics, which must come before ours

# There is no public way to ask which symbolic is registered, and torchvision's own would be lost
# if it were not put back.
from torch.onnx._internal.torchscript_exporter.registration import registry
from torch.onnx.utils import register_custom_op_symbolic, unregister_custom_op_symbolic

from ort_roialign.onnx_export._operators import TRANSLATIONS

# (PyTorch operator, opset) -> the custom symbolic that ours replaced, None where there was none.
_replaced: dict[tuple[str, int], Callable[..., Any] | None] = {}


def register_symbolics(opset: int) -> None:
    """Make the TorchScript exporter write this package's operators from an opset on.

    Applies to `torch.onnx.export(..., dynamo=False, opset_version=v)` for every `v` from `opset` up
    to the next opset with a symbolic of its own (torchvision registers at 11 and 16), until
    `unregister_symbolics(opset)`. Calling it again changes nothing. Covers what `translation_table`
    covers.

    Args:
        opset: default-domain opset; the one that will be exported is the safe choice.
    """
    for translation in TRANSLATIONS:
        key = (translation.torch_name, opset)
        if key not in _replaced:
            _replaced[key] = _custom_symbolic(*key)
            register_custom_op_symbolic(translation.torch_name, translation.torchscript, opset)


def unregister_symbolics(opset: int) -> None:
    """Put back what `register_symbolics(opset)` replaced; nothing happens if it was not called.

    Args:
        opset: as given to `register_symbolics`.
    """
    for translation in TRANSLATIONS:
        key = (translation.torch_name, opset)
        if key not in _replaced:
            continue
        previous = _replaced.pop(key)
        unregister_custom_op_symbolic(*key)
        if previous is not None:
            register_custom_op_symbolic(translation.torch_name, previous, opset)


@contextmanager
def registered_symbolics(opset: int) -> Iterator[None]:
    """Register the symbolics for a while; those that the caller registered before stay."""
    registered_before = all((t.torch_name, opset) in _replaced for t in TRANSLATIONS)
    register_symbolics(opset)
    try:
        yield
    finally:
        if not registered_before:
            unregister_symbolics(opset)


def is_torchscript_tracing() -> bool:
    """Return whether the TorchScript exporter is tracing right now."""
    jit: Any = torch.jit  # it has no type hints
    return bool(jit.is_tracing())


def _custom_symbolic(name: str, opset: int) -> Callable[..., Any] | None:
    """Return the custom symbolic registered for exactly this opset."""
    group = registry.get_function_group(name)
    if group is None or not group._functions.overridden(opset):
        return None
    return group.get(opset)
