"""`PsRoiPool` in standard ONNX operators, for runtimes that do not have the plugin.

Source: R-FCN (Dai et al. 2016), section 2, with torchvision's rounding (`ps_roi_pool`): corners
rounded half away from zero, the end exclusive, at least one cell, the map's last row and column
left out, an empty bin 0.
"""

from __future__ import annotations

from ort_roialign.onnx_export._functions import _windows
from ort_roialign.onnx_export._functions._text import function

_AVERAGE = """
    value = Where(in_bin_column, value_or_beyond, zero_f)
    total = ReduceSum<keepdims = 0>(value, axis_2)                    # [PH, PW, C]
    in_bin_f = CastLike(in_bin, rois)
    num_cells_in_bin = ReduceSum<keepdims = 1>(in_bin_f, axis_2)      # [PH, PW, 1]
    is_full = Greater(num_cells_in_bin, zero_f)
    average = Div(total, num_cells_in_bin)
    Y_r = Where(is_full, average, zero_f)
"""


def text(opset: int, num_inputs: int) -> str:
    """Return the function in ONNX's text form.

    Args:
        opset: default-domain opset of the model that will hold the function.
        num_inputs: 3.
    """
    loop = _windows.loop(
        opset,
        results="rows",
        outputs="Y_r",
        bins=_windows.rounded_bins(cells_left_out=1),
        pool=_AVERAGE,
        channel_per_bin=True,
    )
    nodes = f"""
  {_windows.CONSTANTS}
  {_windows.rounded_boxes(end_belongs=False)}
  {loop}
  {_windows.in_output_order("rows", "Y_wide")}
  Y = CastLike(Y_wide, X)
"""
    inputs = ("X", "rois", "batch_indices")
    return function("PsRoiPool", _windows.ATTRIBUTES, inputs, ("Y",), nodes, opset)
