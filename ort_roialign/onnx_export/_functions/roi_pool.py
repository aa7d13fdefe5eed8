"""`RoiPool` in standard ONNX operators, for runtimes that do not have the plugin.

Source: Fast R-CNN (Girshick 2015), section 2.1, with torchvision's rounding (`roi_pool`): corners
rounded half away from zero, the end inclusive, at least one cell, an empty bin 0. ONNX's own
MaxRoiPool is not used: it has no argmax, and onnxruntime has it in float32 only.
"""

from __future__ import annotations

from ort_roialign.onnx_export._functions import _windows
from ort_roialign.onnx_export._functions._text import function

_CONSTANTS = """
  no_cell = Constant<value_int = -1>()
  lowest_f32 = Log(zero_f32)                                          # -inf
  lowest = CastLike(lowest_f32, rois)
"""

_MAXIMUM = """
    value = Where(in_bin_column, value_or_beyond, lowest)
    # The first NaN wins over all: neither ReduceMax nor ArgMax can be relied on to see it.
    is_nan = IsNaN(value)
    nan_int = Cast<to = 6>(is_nan)
    num_nan = ReduceSum<keepdims = 0>(nan_int, axis_2)
    has_nan = Cast<to = 9>(num_nan)
    first_nan = ArgMax<axis = 2, keepdims = 0>(nan_int)
    first_largest = ArgMax<axis = 2, keepdims = 0>(value)
    winner = Where(has_nan, first_nan, first_largest)                 # [PH, PW, C]
    winner_row = Unsqueeze(winner, axis_2)
    maximum_row = GatherElements<axis = 2>(value, winner_row)
    maximum = Squeeze(maximum_row, axis_2)
    winner_cell = GatherElements<axis = 2>(cell, winner)
    in_bin_int = Cast<to = 7>(in_bin)
    num_cells_in_bin = ReduceSum<keepdims = 1>(in_bin_int, axis_2)    # [PH, PW, 1]
    is_full = Greater(num_cells_in_bin, zero)
    Y_r = Where(is_full, maximum, zero_f)
    argmax_r = Where(is_full, winner_cell, no_cell)
"""


def text(opset: int, num_inputs: int) -> str:
    """Return the function in ONNX's text form.

    Args:
        opset: default-domain opset of the model that will hold the function.
        num_inputs: 3.
    """
    loop = _windows.loop(
        opset,
        results="rows, argmax_rows",
        outputs="Y_r, int64[a, b, c] argmax_r",
        bins=_windows.rounded_bins(cells_left_out=0),
        pool=_MAXIMUM,
    )
    nodes = f"""
  {_windows.CONSTANTS}
  {_CONSTANTS}
  {_windows.rounded_boxes(end_belongs=True)}
  {loop}
  {_windows.in_output_order("rows", "Y_wide")}
  {_windows.in_output_order("argmax_rows", "argmax")}
  Y = CastLike(Y_wide, X)
"""
    inputs = ("X", "rois", "batch_indices")
    return function("RoiPool", _windows.ATTRIBUTES, inputs, ("Y", "argmax"), nodes, opset)
