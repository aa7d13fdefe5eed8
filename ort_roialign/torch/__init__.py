"""The operators in PyTorch, forward and backward: train with the kernels that a session runs.

Signatures are torchvision's where it has the operator, else mmcv's; `mode="max"` is new. The
operators themselves, `torch.ops.ort_roialign.*`, take the inputs and attributes of the ONNX
operators. Results and gradients are the same to the bit in every run, for any number of threads.

Needs the extra `export` (torch; torchvision for `MultiScaleRoIAlign` alone).
"""

from typing import TYPE_CHECKING, Any

from ort_roialign.torch._dependencies import require_torch

require_torch()

from ort_roialign.torch import _library_ops  # noqa: E402, F401  registers torch.ops.ort_roialign
from ort_roialign.torch._functional import (  # noqa: E402
    deform_roi_pool,
    prroi_pool,
    ps_roi_align,
    ps_roi_pool,
    roi_align,
    roi_align_rotated,
    roi_pool,
)
from ort_roialign.torch._modules import (  # noqa: E402
    DeformRoIPool,
    MultiScaleRoIAlignRotated,
    PrRoIPool,
    PSRoIAlign,
    PSRoIPool,
    RoIAlign,
    RoIAlignRotated,
    RoIPool,
)
from ort_roialign.torch._multi_scale import (  # noqa: E402
    multiscale_roi_align,
    multiscale_roi_align_rotated,
)
from ort_roialign.torch._paste_masks import paste_masks  # noqa: E402

if TYPE_CHECKING:
    from ort_roialign.torch._detector_pooler import MultiScaleRoIAlign

__all__ = [
    "DeformRoIPool",
    "MultiScaleRoIAlign",
    "MultiScaleRoIAlignRotated",
    "PSRoIAlign",
    "PSRoIPool",
    "PrRoIPool",
    "RoIAlign",
    "RoIAlignRotated",
    "RoIPool",
    "deform_roi_pool",
    "multiscale_roi_align",
    "multiscale_roi_align_rotated",
    "paste_masks",
    "prroi_pool",
    "ps_roi_align",
    "ps_roi_pool",
    "roi_align",
    "roi_align_rotated",
    "roi_pool",
]


def __getattr__(name: str) -> Any:
    # Imported when it is asked for: the rest does without torchvision.
    if name == "MultiScaleRoIAlign":
        from ort_roialign.torch import _detector_pooler

        return _detector_pooler.MultiScaleRoIAlign
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
