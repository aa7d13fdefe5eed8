"""The operators in plain NumPy float64: slow, readable, and the truth the kernels are held to."""

from ort_roialign.reference._deform_roi_pool import deform_roi_pool, deform_roi_pool_grad
from ort_roialign.reference._multi_scale import (
    multi_scale_roi_align,
    multi_scale_roi_align_grad,
    multi_scale_roi_align_rotated,
    multi_scale_roi_align_rotated_grad,
)
from ort_roialign.reference._paste_masks import paste_masks
from ort_roialign.reference._pr_roi_pool import pr_roi_pool, pr_roi_pool_grad
from ort_roialign.reference._ps_roi_align import ps_roi_align, ps_roi_align_grad
from ort_roialign.reference._ps_roi_pool import ps_roi_pool, ps_roi_pool_grad
from ort_roialign.reference._roi_align import roi_align, roi_align_grad
from ort_roialign.reference._roi_align_rotated import roi_align_rotated, roi_align_rotated_grad
from ort_roialign.reference._roi_pool import roi_pool, roi_pool_grad

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
