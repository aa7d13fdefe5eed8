"""The operators as `onnx.reference` operators, to run models without ONNX Runtime.

Example:
    evaluator = ReferenceEvaluator(model, new_ops=list(ONNX_OPS))
    outputs = evaluator.run(None, inputs)

An operator of `ONNX_OPS` is used also where the model holds a local function of the same name.
`onnx.reference.ReferenceEvaluator` does not look for `new_ops` inside a model's functions, though:
`RoiReferenceEvaluator` does, and needs no `new_ops`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy.typing as npt

from ort_roialign import reference
from ort_roialign._domains import DOMAIN
from ort_roialign.errors import MissingDependencyError

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

    op_domain = DOMAIN
    # Without this the evaluator takes the schema of ONNX's own operator of the same name. The
    # reference functions know the defaults of absent attributes.
    op_schema = None


def _operator(name: str, function: Callable[..., Any], types: Sequence[int | None]) -> type[OpRun]:
    """Make an operator of a function of this package.

    Args:
        name: of the operator.
        function: takes the inputs and the attributes, and returns float64 results.
        types: for each result the number of the input whose type it gets; None: it has its own.
    """

    def run(self: OpRun, *inputs: Array, **attributes: Any) -> tuple[Array, ...]:
        found = function(*inputs, **attributes)
        results = found if isinstance(found, (tuple, list)) else (found,)
        outputs: tuple[Array, ...] = ()
        for number, result in enumerate(results):
            # The last type goes for all of a list with a result for each feature map.
            type_ = types[min(number, len(types) - 1)]
            outputs += (result if type_ is None else result.astype(inputs[type_].dtype),)
        return outputs[: len(self.output)]

    run.__doc__ = f"{name} of `ort_roialign.reference`, its results in the type of X or of masks."
    return type(name, (_RoiOp,), {"_run": run, "__doc__": run.__doc__})


def _paste_masks(masks: Array, *inputs: Array, **attributes: Any) -> Array:
    pasted = reference.paste_masks(masks, *inputs, **attributes)
    return pasted if "threshold" in attributes else pasted.astype(masks.dtype)


# The numbers of X among the inputs of operators on one map and on several; a gradient has dY first.
_ONE, _SEVERAL = 0, 2

ONNX_OPS: tuple[type[OpRun], ...] = (
    _operator("RoiAlign", reference.roi_align, [_ONE]),
    _operator("RoiAlignGrad", reference.roi_align_grad, [_ONE + 1]),
    _operator("MultiScaleRoiAlign", reference.multi_scale_roi_align, [_SEVERAL]),
    _operator("MultiScaleRoiAlignGrad", reference.multi_scale_roi_align_grad, [_SEVERAL + 1]),
    _operator("RoiAlignRotated", reference.roi_align_rotated, [_ONE]),
    _operator("RoiAlignRotatedGrad", reference.roi_align_rotated_grad, [_ONE + 1]),
    _operator("MultiScaleRoiAlignRotated", reference.multi_scale_roi_align_rotated, [_SEVERAL]),
    _operator(
        "MultiScaleRoiAlignRotatedGrad",
        reference.multi_scale_roi_align_rotated_grad,
        [_SEVERAL + 1],
    ),
    _operator("RoiPool", reference.roi_pool, [_ONE, None]),
    _operator("RoiPoolGrad", reference.roi_pool_grad, [_ONE + 1]),
    _operator("PsRoiAlign", reference.ps_roi_align, [_ONE]),
    _operator("PsRoiAlignGrad", reference.ps_roi_align_grad, [_ONE + 1]),
    _operator("PsRoiPool", reference.ps_roi_pool, [_ONE]),
    _operator("PsRoiPoolGrad", reference.ps_roi_pool_grad, [_ONE + 1]),
    _operator("PrRoiPool", reference.pr_roi_pool, [_ONE]),
    _operator("PrRoiPoolGrad", reference.pr_roi_pool_grad, [_ONE + 1, _ONE + 2]),
    _operator("DeformRoiPool", reference.deform_roi_pool, [_ONE]),
    _operator("DeformRoiPoolGrad", reference.deform_roi_pool_grad, [_ONE + 1, _ONE + 1]),
    _operator("PasteMasks", _paste_masks, [None]),
)


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
