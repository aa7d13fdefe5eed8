"""The operators' CPU kernels on NumPy arrays, without a session.

Functions and arguments are those of `ort_roialign.reference`; the kernels are those that sessions
run. All are deterministic to the bit, for any number of threads.
"""

from ort_roialign.ops._align import (
    roi_align,
    roi_align_grad,
    roi_align_rotated,
    roi_align_rotated_grad,
)
from ort_roialign.ops._multi_scale import (
    multi_scale_roi_align,
    multi_scale_roi_align_grad,
    multi_scale_roi_align_rotated,
    multi_scale_roi_align_rotated_grad,
)
from ort_roialign.ops._paste_masks import paste_masks
from ort_roialign.ops._pool import (
    deform_roi_pool,
    deform_roi_pool_grad,
    pr_roi_pool,
    pr_roi_pool_grad,
    ps_roi_align,
    ps_roi_align_grad,
    ps_roi_pool,
    ps_roi_pool_grad,
    roi_pool,
    roi_pool_grad,
)

__all__ = [
    "deform_roi_pool",
    "deform_roi_pool_grad",
    "multi_scale_roi_align",
    "multi_scale_roi_align_grad",
    "multi_scale_roi_align_rotated",
    "multi_scale_roi_align_rotated_grad",
    "paste_masks",
    "pr_roi_pool",
    "pr_roi_pool_grad",
    "ps_roi_align",
    "ps_roi_align_grad",
    "ps_roi_pool",
    "ps_roi_pool_grad",
    "roi_align",
    "roi_align_grad",
    "roi_align_rotated",
    "roi_align_rotated_grad",
    "roi_pool",
    "roi_pool_grad",
]
