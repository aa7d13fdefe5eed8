"""Windows of whole cells in standard ONNX operators: what RoIPool and its relatives share.

A Loop over the RoIs gathers, per axis, as many cells as the RoI's largest bin has and masks those
beyond a smaller bin's end. Letters in the comments: `A` = 2 axes, always x before y; `K_x`, `K_y` =
cells of the largest bin along an axis, `K` their product; `C`, `R`, `PH`, `PW` as in the operator.
"""

from __future__ import annotations

from ort_roialign.onnx_export._functions._text import (
    map_as_cells,
    of_one_roi,
    per_axis,
    reduction,
)

ATTRIBUTES = ("output_height: int = 1", "output_width: int = 1", "spatial_scale: float = 1.0")

# All RoIs at once, in the type of rois.
CONSTANTS = """
  spatial_scale_f32 = Constant<value_float: float = @spatial_scale>()
  spatial_scale = CastLike(spatial_scale_f32, rois)
  output_height = Constant<value_int: int = @output_height>()
  output_width = Constant<value_int: int = @output_width>()
  zero = Constant<value_int = 0>()
  one = Constant<value_int = 1>()
  three = Constant<value_ints = [3]>()
  axis_0 = Constant<value_ints = [0]>()
  axis_1 = Constant<value_ints = [1]>()
  axis_2 = Constant<value_ints = [2]>()
  zero_f32 = Constant<value_float = 0.0>()
  zero_f = CastLike(zero_f32, rois)
  X_wide = CastLike(X, rois)
  num_bins_x = Reshape(output_width, axis_1)
  num_bins_y = Reshape(output_height, axis_1)
  num_bins = Concat<axis = 0>(num_bins_x, num_bins_y)                 # [A]
  num_bins_f = CastLike(num_bins, rois)
  x1_y1 = Constant<value_ints = [0, 1]>()
  x2_y2 = Constant<value_ints = [2, 3]>()
"""

# `first` cell [R, A] and `bin_size` [R, A] in cells. Rounding in exact steps: floor(x + 0.5) would
# round 0.49999997 up. Edges are held within 2^31 cells, as in the kernels, so that they fit an
# integer.
_ROUNDED_BOXES = """
  half_f32 = Constant<value_float = 0.5>()
  half_f = CastLike(half_f32, rois)
  farthest_f32 = Constant<value_float = 2147483648.0>()
  farthest = CastLike(farthest_f32, rois)
  farthest_before = Neg(farthest)
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
  first = Gather<axis = 1>(rounded, x1_y1)                            # [R, A]
  last = Gather<axis = 1>(rounded, x2_y2)
  last_minus_first = Sub(last, first)
  end_belongs = Constant<value_int = END_BELONGS>()
  size_given = Add(last_minus_first, end_belongs)
  # Not Max or Min: onnxruntime 1.31 compares the lower halves of int64 numbers in them.
  is_long = Greater(size_given, one)
  size = Where(is_long, size_given, one)
  size_f = CastLike(size, rois)
  bin_size = Div(size_f, num_bins_f)                                  # [R, A]
"""

# First and one past the last cell of each of one RoI's bins; bins are cut off at `limit_AXIS`.
_AXIS_ROUNDED_BINS = """
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
    begin_anywhere_AXIS = Add(first_AXIS, begin_in_roi_AXIS)
    end_anywhere_AXIS = Add(first_AXIS, end_in_roi_AXIS)
    begin_is_after_AXIS = Greater(begin_anywhere_AXIS, zero)
    end_is_after_AXIS = Greater(end_anywhere_AXIS, zero)
    begin_not_before_AXIS = Where(begin_is_after_AXIS, begin_anywhere_AXIS, zero)
    end_not_before_AXIS = Where(end_is_after_AXIS, end_anywhere_AXIS, zero)
    beyond_AXIS = Constant<value_int = CELLS_LEFT_OUT>()
    limit_AXIS = Sub(SIZE, beyond_AXIS)
    begin_is_inside_AXIS = Less(begin_not_before_AXIS, limit_AXIS)
    end_is_inside_AXIS = Less(end_not_before_AXIS, limit_AXIS)
    begin_AXIS = Where(begin_is_inside_AXIS, begin_not_before_AXIS, limit_AXIS)  # [BINS]
    end_AXIS = Where(end_is_inside_AXIS, end_not_before_AXIS, limit_AXIS)
"""

_ROI_BEGIN = """
    go_on = Identity(keep)
    image_start_r = Gather(image_start, r)
"""

# The cells of one RoI's bins along one axis.
_AXIS_CELLS = """
    bin_cells_AXIS = Sub(end_AXIS, begin_AXIS)
    REDUCE_BIN_CELLS
    most_cells_AXIS = Max(most_or_none_AXIS, one)
    step_AXIS = Range(zero, most_cells_AXIS, one)                     # [K]
    begin_column_AXIS = Unsqueeze(begin_AXIS, axis_1)
    end_column_AXIS = Unsqueeze(end_AXIS, axis_1)
    cell_or_beyond_AXIS = Add(begin_column_AXIS, step_AXIS)           # [BINS, K]
    in_bin_AXIS = Less(cell_or_beyond_AXIS, end_column_AXIS)
    last_cell_AXIS = Sub(SIZE, one)
    cell_AXIS = Min(cell_or_beyond_AXIS, last_cell_AXIS)
"""

_CELLS_OF_BINS = """
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
    in_bin_column = Unsqueeze(in_bin, three)
"""

_SHARED_CHANNELS = """
    map_start = Identity(image_start_r)
"""
_CHANNEL_PER_BIN = """
    bin_axes = Constant<value_ints = [1, 2]>()
    row_of_bins = Range(zero, output_height, one)
    column_of_bins = Range(zero, output_width, one)
    first_of_row = Mul(row_of_bins, output_width)
    first_of_row_3 = Unsqueeze(first_of_row, bin_axes)
    column_of_bins_2 = Unsqueeze(column_of_bins, axis_1)
    map_number = Add(first_of_row_3, column_of_bins_2)                # [PH, PW, 1]
    map_offset = Mul(map_number, cells_per_map)
    map_start = Add(map_offset, image_start_r)
"""
_VALUES = """
    cell_in_batch = Add(cell, map_start)
    value_or_beyond = Gather<axis = 0>(cells, cell_in_batch)          # [PH, PW, K, C]
"""


def rounded_boxes(*, end_belongs: bool) -> str:
    """Return nodes that set `first` and `bin_size` [R, A] of boxes rounded to whole cells.

    Args:
        end_belongs: whether the cell that a box's end is rounded to belongs to it.
    """
    return _ROUNDED_BOXES.replace("END_BELONGS", str(int(end_belongs)))


def rounded_bins(cells_left_out: int) -> str:
    """Return nodes that set `begin_AXIS` and `end_AXIS` [BINS] of bins rounded to whole cells.

    Args:
        cells_left_out: how many of the map's last cells belong to no bin.
    """
    return _AXIS_ROUNDED_BINS.replace("CELLS_LEFT_OUT", str(cells_left_out))


def loop(
    opset: int,
    *,
    results: str,
    outputs: str,
    bins: str,
    pool: str,
    after_cells: str = "",
    channel_per_bin: bool = False,
) -> str:
    """Return nodes from `first` and `bin_size` [R, A] to what a Loop over the RoIs collects.

    They need what `CONSTANTS` sets.

    Args:
        opset: default-domain opset of the model that will hold the function.
        results: names of the values that the Loop collects.
        outputs: names of the values inside the Loop that it collects, each with its type.
        bins: nodes inside the Loop that set, for one axis, each bin's first cell `begin_AXIS` and
            one past its last cell `end_AXIS`, from `first_AXIS` and `bin_size_AXIS`.
        pool: nodes inside the Loop that set the outputs from `value_or_beyond` [PH, PW, K, C],
            `in_bin` [PH, PW, K], `in_bin_column` [PH, PW, K, 1] and `cell` [PH, PW, K].
        after_cells: further nodes inside the Loop for one axis, that may use the number of each
            bin's cells along it, `cell_AXIS` [BINS, K], and whether it is the bin's, `in_bin_AXIS`.
        channel_per_bin: whether each bin reads channels of its own.
    """
    axis_cells = _AXIS_CELLS.replace(
        "REDUCE_BIN_CELLS",
        reduction("most_or_none_AXIS", "ReduceMax", "bin_cells_AXIS", [0], opset),
    )
    return f"""
  {map_as_cells("X_wide", channel_per_bin=channel_per_bin)}
  {results} = Loop(num_rois, always)<
      body = pool_one_roi (int64 r, bool keep) => (bool go_on, {outputs}) {{
    {_ROI_BEGIN}
    {of_one_roi("first", "bin_size")}
    {per_axis(bins + axis_cells + after_cells)}
    {_CELLS_OF_BINS}
    {_CHANNEL_PER_BIN if channel_per_bin else _SHARED_CHANNELS}
    {_VALUES}
    {pool}
  }}>
  rows_shape = Concat<axis = 0>(num_rois_1, num_bins_y, num_bins_x, num_channels_1)
"""


def in_output_order(rows: str, result: str) -> str:
    """Return nodes from what the Loop collected, [R, PH, PW, C], to `result` [R, C, PH, PW].

    Without RoIs the Loop's results have lost their shape: Reshape restores it.
    """
    return f"""
  {rows}_shaped = Reshape<allowzero = 1>({rows}, rows_shape)
  {result} = Transpose<perm = [0, 3, 1, 2]>({rows}_shaped)
"""
