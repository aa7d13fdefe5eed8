"""The operators in plain NumPy float64: slow, readable, and the truth the kernels are held to."""

from ort_roialign.reference._roi_align import roi_align, roi_align_grad
from ort_roialign.reference._roi_pool import roi_pool, roi_pool_grad

__all__ = ["roi_align", "roi_align_grad", "roi_pool", "roi_pool_grad"]
