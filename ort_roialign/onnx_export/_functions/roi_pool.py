"""`RoiPool` in standard ONNX operators, for runtimes that do not have the plugin.

Source: Fast R-CNN (Girshick 2015), section 2.1, with torchvision's rounding (`roi_pool`): corners
rounded half away from zero, the end inclusive, at least one cell, an empty bin 0. ONNX's own
MaxRoiPool is not used: it has no argmax, and onnxruntime has it in float32 only.

A Loop over the RoIs gathers, per axis, as many cells as the RoI's largest bin has and masks those
beyond a smaller bin's end. Letters in the comments: `A` = 2 axes, always x before y; `K_x`, `K_y` =
cells of the largest bin along an axis, `K` their product.
"""

from __future__ import annotations

from ort_roialign.onnx_export._functions._text import map_as_cells, reduction

_ATTRIBUTES = ("output_height: int = 1", "output_width: int = 1", "spatial_scale: float = 1.0")

# All RoIs at once, in the type of rois. Rounding in exact steps: floor(x + 0.5) would round
# 0.49999997 up. Edges are held within 2^31 cells, as in the kernels, so that they fit an integer.
_BOXES = """
  spatial_scale_f32 = Constant<value_float: float = @spatial_scale>()
  spatial_scale = CastLike(spatial_scale_f32, rois)
  output_height = Constant<value_int: int = @output_height>()
  output_width = Constant<value_int: int = @output_width>()
  zero = Constant<value_int = 0>()
  one = Constant<value_int = 1>()
  half_f32 = Constant<value_float = 0.5>()
  half_f = CastLike(half_f32, rois)
  axis_0 = Constant<value_ints = [0]>()
  axis_1 = Constant<value_ints = [1]>()
  axis_2 = Constant<value_ints = [2]>()
  zero_f32 = Constant<value_float = 0.0>()
  zero_f = CastLike(zero_f32, rois)
  lowest_f32 = Log(zero_f32)                                          # -inf
  lowest = CastLike(lowest_f32, rois)
  farthest_f32 = Constant<value_float = 2147483648.0>()
  farthest = CastLike(farthest_f32, rois)
  farthest_before = Neg(farthest)
  X_wide = CastLike(X, rois)

  scaled_freely = Mul(rois, spatial_scale)
  scaled_not_beyond = Min(scaled_freely, farthest)
  scaled = Max(scaled_not_beyond, farthest_before)
  distance = Abs(scaled)
  whole = Floor(distance)
  remainder = Sub(distance, whole)
  rounds_up = GreaterOrEqual(remainder, half_f)
  round_up_f = CastLike(rounds_up, rois)
  rounded_distance = Add(whole, round_up_f)
  sign = Sign(scaled)
  rounded_f = Mul(sign, rounded_distance)
  rounded = Cast<to = 7>(rounded_f)
  x1_y1 = Constant<value_ints = [0, 1]>()
  x2_y2 = Constant<value_ints = [2, 3]>()
  first = Gather<axis = 1>(rounded, x1_y1)                            # [R, A]
  last = Gather<axis = 1>(rounded, x2_y2)
  last_minus_first = Sub(last, first)
  size_given = Add(last_minus_first, one)
  # Not Max or Min: onnxruntime 1.31 compares the lower halves of int64 numbers in them.
  is_long = Greater(size_given, one)
  size = Where(is_long, size_given, one)
  num_bins_x = Reshape(output_width, axis_1)
  num_bins_y = Reshape(output_height, axis_1)
  num_bins = Concat<axis = 0>(num_bins_x, num_bins_y)                 # [A]
  num_bins_f = CastLike(num_bins, rois)
  size_f = CastLike(size, rois)
  bin_size = Div(size_f, num_bins_f)                                  # [R, A]
"""

# The cells of one RoI's bins along one axis; AXIS is x or y, COLUMN its column in [R, A], BINS and
# SIZE its numbers of bins and of cells.
_AXIS_CELLS = """
    at_AXIS = Constant<value_int = COLUMN>()
    first_AXIS = Gather(first_r, at_AXIS)
    bin_size_AXIS = Gather(bin_size_r, at_AXIS)
    bin_AXIS = Range(zero, BINS, one)
    next_bin_AXIS = Add(bin_AXIS, one)
    bin_f_AXIS = CastLike(bin_AXIS, rois)
    next_bin_f_AXIS = CastLike(next_bin_AXIS, rois)
    begin_exact_AXIS = Mul(bin_f_AXIS, bin_size_AXIS)
    end_exact_AXIS = Mul(next_bin_f_AXIS, bin_size_AXIS)
    begin_floor_AXIS = Floor(begin_exact_AXIS)
    end_ceil_AXIS = Ceil(end_exact_AXIS)
    begin_in_roi_AXIS = Cast<to = 7>(begin_floor_AXIS)
    end_in_roi_AXIS = Cast<to = 7>(end_ceil_AXIS)
    begin_AXIS = Add(first_AXIS, begin_in_roi_AXIS)
    end_AXIS = Add(first_AXIS, end_in_roi_AXIS)
    begin_is_after_AXIS = Greater(begin_AXIS, zero)
    end_is_after_AXIS = Greater(end_AXIS, zero)
    begin_not_before_AXIS = Where(begin_is_after_AXIS, begin_AXIS, zero)
    end_not_before_AXIS = Where(end_is_after_AXIS, end_AXIS, zero)
    begin_is_inside_AXIS = Less(begin_not_before_AXIS, SIZE)
    end_is_inside_AXIS = Less(end_not_before_AXIS, SIZE)
    begin_in_map_AXIS = Where(begin_is_inside_AXIS, begin_not_before_AXIS, SIZE)  # [BINS]
    end_in_map_AXIS = Where(end_is_inside_AXIS, end_not_before_AXIS, SIZE)
    bin_cells_AXIS = Sub(end_in_map_AXIS, begin_in_map_AXIS)
    REDUCE_BIN_CELLS
    most_cells_AXIS = Max(most_or_none_AXIS, one)
    step_AXIS = Range(zero, most_cells_AXIS, one)                     # [K]
    begin_column_AXIS = Unsqueeze(begin_in_map_AXIS, axis_1)
    end_column_AXIS = Unsqueeze(end_in_map_AXIS, axis_1)
    cell_or_beyond_AXIS = Add(begin_column_AXIS, step_AXIS)           # [BINS, K]
    in_bin_AXIS = Less(cell_or_beyond_AXIS, end_column_AXIS)
    last_cell_AXIS = Sub(SIZE, one)
    cell_AXIS = Min(cell_or_beyond_AXIS, last_cell_AXIS)
"""

_ROI_BEGIN = """
  rows, argmax_rows = Loop(num_rois, always)<
      body = pool_one_roi (int64 r, bool keep) => (bool go_on, Y_r, int64[a, b, c] argmax_r) {
    go_on = Identity(keep)
    first_r = Gather(first, r)
    bin_size_r = Gather(bin_size, r)
    image_start_r = Gather(image_start, r)
"""

_ROI_END = """
    # [PH, 1, K_y, 1] with [PW, 1, K_x] gives [PH, PW, K_y, K_x].
    axes_y = Constant<value_ints = [1, 3]>()
    row_start = Mul(cell_y, width)
    row_start_4 = Unsqueeze(row_start, axes_y)
    cell_x_3 = Unsqueeze(cell_x, axis_1)
    cell_4 = Add(row_start_4, cell_x_3)
    in_bin_y_4 = Unsqueeze(in_bin_y, axes_y)
    in_bin_x_3 = Unsqueeze(in_bin_x, axis_1)
    in_bin_4 = And(in_bin_y_4, in_bin_x_3)
    bin_cells = Mul(most_cells_y, most_cells_x)
    bin_cells_1 = Reshape(bin_cells, axis_1)
    bins_shape = Concat<axis = 0>(num_bins_y, num_bins_x, bin_cells_1)
    cell = Reshape(cell_4, bins_shape)                                # [PH, PW, K], row by row
    in_bin = Reshape(in_bin_4, bins_shape)

    cell_in_batch = Add(cell, image_start_r)
    value_or_beyond = Gather<axis = 0>(cells, cell_in_batch)          # [PH, PW, K, C]
    in_bin_column = Unsqueeze(in_bin, three)
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
  }>
  # Without RoIs the Loop's results have lost their shape: Reshape restores it.
  rows_shape = Concat<axis = 0>(num_rois_1, num_bins_y, num_bins_x, num_channels_1)
  pooled_rows = Reshape<allowzero = 1>(rows, rows_shape)
  Y_wide = Transpose<perm = [0, 3, 1, 2]>(pooled_rows)
  Y = CastLike(Y_wide, X)
  argmax_pooled_rows = Reshape<allowzero = 1>(argmax_rows, rows_shape)
  argmax = Transpose<perm = [0, 3, 1, 2]>(argmax_pooled_rows)
"""


def text(opset: int) -> str:
    """Return the function in ONNX's text form.

    Args:
        opset: default-domain opset of the model that will hold the function.
    """
    axes = [
        _AXIS_CELLS.replace(
            "REDUCE_BIN_CELLS",
            reduction("most_or_none_AXIS", "ReduceMax", "bin_cells_AXIS", [0], opset),
        )
        .replace("AXIS", axis)
        .replace("COLUMN", column)
        .replace("BINS", bins)
        .replace("SIZE", size)
        for axis, column, bins, size in (
            ("x", "0", "output_width", "width"),
            ("y", "1", "output_height", "height"),
        )
    ]
    return f"""<opset_import: ["": {opset}], domain: "ort_roialign">
RoiPool <{", ".join(_ATTRIBUTES)}> (X, rois, batch_indices) => (Y, argmax) {{
  three = Constant<value_ints = [3]>()
  no_cell = Constant<value_int = -1>()
  {_BOXES}
  {map_as_cells("X_wide")}
  {_ROI_BEGIN}
  {"".join(axes)}
  {_ROI_END}
}}"""
