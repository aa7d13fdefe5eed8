"""`PrRoiPool` in standard ONNX operators, for runtimes that do not have the plugin.

Source: IoU-Net (Jiang et al. 2018), section 3.2, equation 5: the interpolated map is a sum of hats,
one a cell, so a cell's weight in a bin is a product of one integral per axis. Edges of bins are
computed in the type of rois, as in the kernels, weights in float64.
"""

from __future__ import annotations

from ort_roialign.onnx_export._functions import _windows
from ort_roialign.onnx_export._functions._text import function

_BOXES = """
  one_f64 = Constant<value = double {1.0}>()
  zero_f64 = Constant<value = double {0.0}>()
  half_f64 = Constant<value = double {0.5}>()
  minus_one_f64 = Neg(one_f64)
  scaled = Mul(rois, spatial_scale)
  first = Gather<axis = 1>(scaled, x1_y1)                             # [R, A], in cells
  last = Gather<axis = 1>(scaled, x2_y2)
  size = Sub(last, first)
  bin_size = Div(size, num_bins_f)                                    # [R, A]
"""

# The cells whose hats reach into each bin; none where the bin is empty or not on the map.
_AXIS_BINS = """
    bin_AXIS = Range(zero, BINS, one)
    next_bin_AXIS = Add(bin_AXIS, one)
    bin_f_AXIS = CastLike(bin_AXIS, rois)
    next_bin_f_AXIS = CastLike(next_bin_AXIS, rois)
    to_low_AXIS = Mul(bin_f_AXIS, bin_size_AXIS)
    to_high_AXIS = Mul(next_bin_f_AXIS, bin_size_AXIS)
    low_wide_AXIS = Add(first_AXIS, to_low_AXIS)
    high_wide_AXIS = Add(first_AXIS, to_high_AXIS)
    low_AXIS = Cast<to = 11>(low_wide_AXIS)                           # [BINS]
    high_AXIS = Cast<to = 11>(high_wide_AXIS)
    SIZE_f64 = Cast<to = 11>(SIZE)
    has_length_AXIS = Less(low_AXIS, high_AXIS)
    begins_before_AXIS = Less(low_AXIS, SIZE_f64)
    ends_after_AXIS = Greater(high_AXIS, minus_one_f64)
    meets_map_AXIS = And(begins_before_AXIS, ends_after_AXIS)
    has_cells_AXIS = And(has_length_AXIS, meets_map_AXIS)
    low_or_zero_AXIS = Where(has_cells_AXIS, low_AXIS, zero_f64)
    high_or_zero_AXIS = Where(has_cells_AXIS, high_AXIS, zero_f64)
    low_inside_AXIS = Max(low_or_zero_AXIS, zero_f64)
    high_inside_AXIS = Max(high_or_zero_AXIS, zero_f64)
    last_f64_AXIS = Sub(SIZE_f64, one_f64)
    high_up_AXIS = Ceil(high_inside_AXIS)
    last_touched_f64_AXIS = Min(high_up_AXIS, last_f64_AXIS)
    begin_or_any_AXIS = Cast<to = 7>(low_inside_AXIS)
    last_touched_AXIS = Cast<to = 7>(last_touched_f64_AXIS)
    end_or_any_AXIS = Add(last_touched_AXIS, one)
    begin_AXIS = Where(has_cells_AXIS, begin_or_any_AXIS, zero)
    end_AXIS = Where(has_cells_AXIS, end_or_any_AXIS, zero)
"""

# The integral of a hat: a trapezoid on either slope, so that small bins lose no digits. Lengths are
# taken before the cell is subtracted, which would round them, and the average is over what lies
# between the edges as they are rounded: the weights of a bin inside the map add up to 1.
_AXIS_WEIGHTS = """
    cell_f64_AXIS = Cast<to = 11>(cell_AXIS)                          # [BINS, K]
    before_AXIS = Sub(cell_f64_AXIS, one_f64)
    after_AXIS = Add(cell_f64_AXIS, one_f64)
    low_column_AXIS = Unsqueeze(low_AXIS, axis_1)
    high_column_AXIS = Unsqueeze(high_AXIS, axis_1)
    from_not_before_AXIS = Max(low_column_AXIS, before_AXIS)
    from_up_AXIS = Min(from_not_before_AXIS, cell_f64_AXIS)
    to_not_before_AXIS = Max(high_column_AXIS, before_AXIS)
    to_up_AXIS = Min(to_not_before_AXIS, cell_f64_AXIS)
    from_not_beyond_AXIS = Min(low_column_AXIS, after_AXIS)
    from_down_AXIS = Max(from_not_beyond_AXIS, cell_f64_AXIS)
    to_not_beyond_AXIS = Min(high_column_AXIS, after_AXIS)
    to_down_AXIS = Max(to_not_beyond_AXIS, cell_f64_AXIS)
    run_up_AXIS = Sub(to_up_AXIS, from_up_AXIS)
    height_at_from_up_AXIS = Sub(from_up_AXIS, before_AXIS)
    height_at_to_up_AXIS = Sub(to_up_AXIS, before_AXIS)
    heights_up_AXIS = Add(height_at_from_up_AXIS, height_at_to_up_AXIS)
    twice_up_AXIS = Mul(run_up_AXIS, heights_up_AXIS)
    run_down_AXIS = Sub(to_down_AXIS, from_down_AXIS)
    height_at_from_down_AXIS = Sub(after_AXIS, from_down_AXIS)
    height_at_to_down_AXIS = Sub(after_AXIS, to_down_AXIS)
    heights_down_AXIS = Add(height_at_from_down_AXIS, height_at_to_down_AXIS)
    twice_down_AXIS = Mul(run_down_AXIS, heights_down_AXIS)
    twice_AXIS = Add(twice_up_AXIS, twice_down_AXIS)
    integral_AXIS = Mul(twice_AXIS, half_f64)
    length_AXIS = Sub(high_column_AXIS, low_column_AXIS)
    weight_or_any_AXIS = Div(integral_AXIS, length_AXIS)
    weight_AXIS = Where(in_bin_AXIS, weight_or_any_AXIS, zero_f64)    # [BINS, K]
"""

# A cell that is not the bin's has weight 0, but may be infinite: its value is set to 0 too.
_AVERAGE = """
    weight_y_4 = Unsqueeze(weight_y, axes_y)
    weight_x_3 = Unsqueeze(weight_x, axis_1)
    weight_4 = Mul(weight_y_4, weight_x_3)
    weight_f64 = Reshape(weight_4, bins_shape)                        # [PH, PW, K]
    weight = CastLike(weight_f64, rois)
    weight_column = Unsqueeze(weight, three)
    value = Where(in_bin_column, value_or_beyond, zero_f)
    weighted = Mul(weight_column, value)
    Y_r = ReduceSum<keepdims = 0>(weighted, axis_2)                   # [PH, PW, C]
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
        bins=_AXIS_BINS,
        after_cells=_AXIS_WEIGHTS,
        pool=_AVERAGE,
    )
    nodes = f"""
  {_windows.CONSTANTS}
  {_BOXES}
  {loop}
  {_windows.in_output_order("rows", "Y_wide")}
  Y = CastLike(Y_wide, X)
"""
    inputs = ("X", "rois", "batch_indices")
    return function("PrRoiPool", _windows.ATTRIBUTES, inputs, ("Y",), nodes, opset)
