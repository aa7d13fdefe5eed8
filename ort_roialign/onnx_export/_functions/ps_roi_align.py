"""`PsRoiAlign` in standard ONNX operators, for runtimes that do not have the plugin.

Source: R-FCN (Dai et al. 2016), section 2, with RoIAlign's samples; torchvision's `ps_roi_align`.
"""

from __future__ import annotations

from ort_roialign.onnx_export._functions import _samples
from ort_roialign.onnx_export._functions._text import function


def text(opset: int, num_inputs: int) -> str:
    """Return the function in ONNX's text form.

    Args:
        opset: default-domain opset of the model that will hold the function.
        num_inputs: 3.
    """
    nodes = f"""
  {_samples.CONSTANTS}
  is_half_pixel = Cast<to = 9>(one)
  {_samples.UPRIGHT_BOXES}
  size = Identity(size_given)
  {_samples.sampled_text(opset, channel_per_bin=True)}
  Y = CastLike(Y_sampled, X)
"""
    inputs = ("X", "rois", "batch_indices")
    return function("PsRoiAlign", _samples.GRID, inputs, ("Y",), nodes, opset)
