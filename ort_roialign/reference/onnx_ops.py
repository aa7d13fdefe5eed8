"""The operators as `onnx.reference` operators, to run models without ONNX Runtime.

Example:
    evaluator = ReferenceEvaluator(model, new_ops=list(ONNX_OPS))
    outputs = evaluator.run(None, inputs)

An operator of `ONNX_OPS` is used also where the model holds a local function of the same name.
`onnx.reference.ReferenceEvaluator` does not look for `new_ops` inside a model's functions, though:
`RoiReferenceEvaluator` does, and needs no `new_ops`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy.typing as npt

from ort_roialign.errors import MissingDependencyError
from ort_roialign.reference._roi_align import roi_align, roi_align_grad
from ort_roialign.reference._roi_pool import roi_pool, roi_pool_grad

try:
    from onnx.reference import ReferenceEvaluator
    from onnx.reference.op_run import OpRun
except ImportError as error:
    raise MissingDependencyError(
        "ort_roialign.reference.onnx_ops needs the package onnx; install it with: pip install onnx"
    ) from error

Array = npt.NDArray[Any]


class _RoiOp(OpRun):
    """Base of the operators: their domain, and no schema."""

    op_domain = "ort_roialign"
    # Without this the evaluator takes the schema of ONNX's own operator of the same name. The
    # reference functions know the defaults of absent attributes.
    op_schema = None


class RoiAlign(_RoiOp):
    """`ort_roialign.reference.roi_align`, its result in the type of X."""

    def _run(self, x: Array, rois: Array, batch_indices: Array, **attributes: Any) -> tuple[Array]:
        return (roi_align(x, rois, batch_indices, **attributes).astype(x.dtype),)


class RoiAlignGrad(_RoiOp):
    """`ort_roialign.reference.roi_align_grad`, its result in the type of X."""

    def _run(
        self, dy: Array, x: Array, rois: Array, batch_indices: Array, **attributes: Any
    ) -> tuple[Array]:
        return (roi_align_grad(dy, x, rois, batch_indices, **attributes).astype(x.dtype),)


class RoiPool(_RoiOp):
    """`ort_roialign.reference.roi_pool`, its maxima in the type of X; the cells are optional."""

    def _run(
        self, x: Array, rois: Array, batch_indices: Array, **attributes: Any
    ) -> tuple[Array, ...]:
        y, argmax = roi_pool(x, rois, batch_indices, **attributes)
        return (y.astype(x.dtype), argmax)[: len(self.output)]


class RoiPoolGrad(_RoiOp):
    """`ort_roialign.reference.roi_pool_grad`, its result in the type of X."""

    def _run(
        self, dy: Array, x: Array, rois: Array, batch_indices: Array, **attributes: Any
    ) -> tuple[Array]:
        return (roi_pool_grad(dy, x, rois, batch_indices, **attributes).astype(x.dtype),)


ONNX_OPS: tuple[type[OpRun], ...] = (RoiAlign, RoiAlignGrad, RoiPool, RoiPoolGrad)


class RoiReferenceEvaluator(ReferenceEvaluator):
    """`onnx.reference.ReferenceEvaluator` that knows `ONNX_OPS`, also inside local functions.

    Takes the same arguments, all but the first by keyword; operators in `new_ops` come before
    those of `ONNX_OPS`.
    """

    def __init__(
        self, proto: Any, *, new_ops: Sequence[type[OpRun]] | None = None, **kwargs: Any
    ) -> None:
        # The base class makes the evaluators of functions from its own class, without `new_ops`.
        super().__init__(proto, new_ops=[*(new_ops or ()), *ONNX_OPS], **kwargs)
