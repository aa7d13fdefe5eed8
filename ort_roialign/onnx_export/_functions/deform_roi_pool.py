"""`DeformRoiPool` in standard ONNX operators, for runtimes that do not have the plugin.

Source: Deformable Convolutional Networks (Dai et al. 2017), section 2.2, with RoIAlign's samples as
in mmcv's `DeformRoIPool`.
"""

from __future__ import annotations

from ort_roialign.onnx_export._functions import _samples
from ort_roialign.onnx_export._functions._text import function, of_one_roi, string_equals

# How far each bin moves, in cells.
_MOVES = """
  gamma_f32 = Constant<value_float: float = @gamma>()
  gamma = CastLike(gamma_f32, rois)
  step = Mul(size, gamma)                                             # [R, A]
  bin_axes = Constant<value_ints = [2, 3]>()
  step_of_bins = Unsqueeze(step, bin_axes)
  offset_wide = CastLike(offset, rois)
  moves = Mul(step_of_bins, offset_wide)                              # [R, A, PH, PW]
"""

_MOVED_STARTS = f"""
{of_one_roi("moves")}
    moved_from_x = Add(start_x, moves_x)                              # [PH, PW]
    moved_from_y = Add(start_y, moves_y)
    moved_rows_x = Gather<axis = 0>(moved_from_x, bin_y)
    moved_rows_y = Gather<axis = 0>(moved_from_y, bin_y)
    moved_x = Gather<axis = 1>(moved_rows_x, bin_x)                   # [S_y, S_x]
    moved_y = Gather<axis = 1>(moved_rows_y, bin_x)
"""


def text(opset: int, num_inputs: int) -> str:
    """Return the function in ONNX's text form.

    Args:
        opset: default-domain opset of the model that will hold the function.
        num_inputs: 4, or 3 without the offset: then no bin moves.
    """
    has_offset = num_inputs == 4
    sampled = _samples.sampled_text(
        opset,
        before_coordinates=_MOVED_STARTS if has_offset else "",
        begin="moved" if has_offset else "start",
    )
    nodes = f"""
  {string_equals("is_half_pixel", "coordinate_transformation_mode", "half_pixel")}
  {_samples.CONSTANTS}
  {_samples.UPRIGHT_BOXES}
  {_samples.SIZE}
  {_MOVES if has_offset else ""}
  {sampled}
  Y = CastLike(Y_sampled, X)
"""
    attributes = (*_samples.GRID, *_samples.FRAME, "gamma: float = 0.1")
    inputs = ("X", "rois", "batch_indices", "offset")[:num_inputs]
    return function("DeformRoiPool", attributes, inputs, ("Y",), nodes, opset)
