"""Sampling in standard ONNX operators: the part that RoIAlign and its relatives share.

Source: Mask R-CNN (He et al. 2017), section 3; coordinate arithmetic in the order of the kernels,
so that both put every sample into the same cell. The kernels merge sample weights per axis, this
body reads each sample by itself, so the last digits may differ.

A Loop over the RoIs lets every RoI have its own grid and keeps memory at one RoI's samples. Letters
in the comments: `A` = 2 axes, always x before y; `S_x`, `S_y` = samples along an axis; `C`, `R`,
`PH`, `PW` as in the operator. What a sample has along one axis is of a shape that broadcasts to
[S_y, S_x], so that an operator may move samples apart, or turn them.
"""

from __future__ import annotations

from ort_roialign.onnx_export._functions._text import (
    map_as_cells,
    of_one_roi,
    per_axis,
    reduction,
)

OUTPUT_SIZE = ("output_height: int = 1", "output_width: int = 1")
GRID = (*OUTPUT_SIZE, "sampling_ratio: int = 0", "spatial_scale: float = 1.0")
FRAME = ('coordinate_transformation_mode: string = "half_pixel"',)
MODE = ('mode: string = "avg"',)

# X and rois may differ in type (half-precision maps with float32 boxes): everything is computed in
# the type of rois. Constants are written in float32 and take that type by CastLike.
CONSTANTS = """
  spatial_scale_f32 = Constant<value_float: float = @spatial_scale>()
  spatial_scale = CastLike(spatial_scale_f32, rois)
  output_height = Constant<value_int: int = @output_height>()
  output_width = Constant<value_int: int = @output_width>()
  sampling_ratio = Constant<value_int: int = @sampling_ratio>()
  zero = Constant<value_int = 0>()
  one = Constant<value_int = 1>()
  zero_f32 = Constant<value_float = 0.0>()
  half_f32 = Constant<value_float = 0.5>()
  one_f32 = Constant<value_float = 1.0>()
  zero_f = CastLike(zero_f32, rois)
  half_f = CastLike(half_f32, rois)
  one_f = CastLike(one_f32, rois)
  minus_one_f = Neg(one_f)
  axis_0 = Constant<value_ints = [0]>()
  axis_1 = Constant<value_ints = [1]>()
  adaptive = LessOrEqual(sampling_ratio, zero)
  first_two = Constant<value_ints = [0, 1]>()
  second_two = Constant<value_ints = [2, 3]>()
  top_left_image = Gather<axis = 1>(rois, first_two)
  bottom_right_image = Gather<axis = 1>(rois, second_two)
"""

# `start` and `size_given` [R, A] of upright boxes, from `is_half_pixel`.
UPRIGHT_BOXES = """
  origin = Where(is_half_pixel, half_f, zero_f)
  top_left_scaled = Mul(top_left_image, spatial_scale)
  bottom_right_scaled = Mul(bottom_right_image, spatial_scale)
  start = Sub(top_left_scaled, origin)                                # [R, A]
  end = Sub(bottom_right_scaled, origin)
  size_given = Sub(end, start)
"""

SIZE = """
  size_at_least_one = Max(size_given, one_f)
  size = Where(is_half_pixel, size_given, size_at_least_one)          # [R, A]
"""

# All RoIs at once. grid >= 1 even where the operator has an empty grid, so that no later step
# meets an empty tensor or a division by zero; has_samples then puts 0 into the result.
_GRIDS = """
  num_bins_x = Reshape(output_width, axis_1)
  num_bins_y = Reshape(output_height, axis_1)
  num_bins = Concat<axis = 0>(num_bins_x, num_bins_y)                 # [A]
  num_bins_f = CastLike(num_bins, rois)
  bin_size = Div(size, num_bins_f)                                    # [R, A]
  adaptive_grid_f = Ceil(bin_size)
  adaptive_grid_signed = Cast<to = 7>(adaptive_grid_f)
  grid_or_empty = Where(adaptive, adaptive_grid_signed, sampling_ratio)
  grid = Max(grid_or_empty, one)                                      # [R, A]
  axis_has_samples = Greater(grid_or_empty, zero)
  X_sampled = CastLike(X, rois)
"""

_ROI_BEGIN = """
  rows = Loop(num_rois, always)<body = pool_one_roi (int64 r, bool keep) => (bool go_on, Y_r) {
    go_on = Identity(keep)
    image_start_r = Gather(image_start, r)
    axis_has_samples_r = Gather(axis_has_samples, r)
    last_axis = Constant<value_ints = [2]>()
"""

# Which bin each sample of one RoI belongs to, and where in the bin it is.
_AXIS_SAMPLES = """
    num_samples_AXIS = Mul(BINS, grid_AXIS)
    sample_AXIS = Range(zero, num_samples_AXIS, one)
    bin_AXIS = Div(sample_AXIS, grid_AXIS)                            # [S]
    samples_before_AXIS = Mul(bin_AXIS, grid_AXIS)
    in_bin_AXIS = Sub(sample_AXIS, samples_before_AXIS)
    grid_f_AXIS = CastLike(grid_AXIS, rois)
    bin_f_AXIS = CastLike(bin_AXIS, rois)
    in_bin_f_AXIS = CastLike(in_bin_AXIS, rois)
    bin_offset_flat_AXIS = Mul(bin_f_AXIS, bin_size_AXIS)
    in_bin_centre_AXIS = Add(in_bin_f_AXIS, half_f)
    in_bin_scaled_AXIS = Mul(in_bin_centre_AXIS, bin_size_AXIS)
    in_bin_offset_flat_AXIS = Div(in_bin_scaled_AXIS, grid_f_AXIS)
"""

# y counts the rows of [S_y, S_x], x its columns.
_ORIENT = """
    bin_offset_x = Identity(bin_offset_flat_x)
    in_bin_offset_x = Identity(in_bin_offset_flat_x)
    bin_offset_y = Unsqueeze(bin_offset_flat_y, axis_1)
    in_bin_offset_y = Unsqueeze(in_bin_offset_flat_y, axis_1)
"""

# Where each sample is on the box's own axis, counted from `BEGIN_AXIS`.
_AXIS_COORDINATES = """
    bin_start_AXIS = Add(BEGIN_AXIS, bin_offset_AXIS)
    own_AXIS = Add(bin_start_AXIS, in_bin_offset_AXIS)
"""

# A coordinate off the map may be too large for an integer, or no number: 0 stands for it.
_AXIS_NEIGHBOURS = """
    SIZE_f = CastLike(SIZE, rois)
    not_before_AXIS = GreaterOrEqual(coordinate_AXIS, minus_one_f)
    not_after_AXIS = LessOrEqual(coordinate_AXIS, SIZE_f)
    inside_AXIS = And(not_before_AXIS, not_after_AXIS)
    on_map_AXIS = Where(inside_AXIS, coordinate_AXIS, zero_f)
    clamped_AXIS = Max(on_map_AXIS, zero_f)
    floor_AXIS = Floor(clamped_AXIS)
    last_f_AXIS = Sub(SIZE_f, one_f)
    at_end_AXIS = GreaterOrEqual(floor_AXIS, last_f_AXIS)
    low_f_AXIS = Min(floor_AXIS, last_f_AXIS)
    fraction_or_more_AXIS = Sub(clamped_AXIS, floor_AXIS)
    fraction_AXIS = Where(at_end_AXIS, zero_f, fraction_or_more_AXIS)
    rest_AXIS = Sub(one_f, fraction_AXIS)
    low_AXIS = Cast<to = 7>(low_f_AXIS)
    low_plus_one_AXIS = Add(low_AXIS, one)
    high_AXIS = Where(at_end_AXIS, low_AXIS, low_plus_one_AXIS)
"""

_SHARED_CHANNELS = """
    map_start = Identity(image_start_r)
"""
_CHANNEL_PER_BIN = """
    row_of_bins = Mul(bin_y, output_width)
    row_of_bins_column = Unsqueeze(row_of_bins, axis_1)
    map_number = Add(row_of_bins_column, bin_x)                       # [S_y, S_x]
    map_offset = Mul(map_number, cells_per_map)
    map_start = Add(map_offset, image_start_r)
"""

# One corner of every sample: CY and CX are low or high, WY and WX rest or fraction.
_CORNER = """
    row_CORNER = Mul(CY_y, width)
    row_start_CORNER = Add(row_CORNER, map_start)
    cell_CORNER = Add(row_start_CORNER, CX_x)                         # [S_y, S_x]
    value_CORNER = Gather<axis = 0>(cells, cell_CORNER)               # [S_y, S_x, C]
    weight_plane_CORNER = Mul(WY_y, WX_x)
    weight_CORNER = Unsqueeze(weight_plane_CORNER, last_axis)
    weighted_CORNER = Mul(weight_CORNER, value_CORNER)
"""

_INTERPOLATE = """
    top = Add(weighted_tl, weighted_tr)
    top_bottom_left = Add(top, weighted_bl)
    interpolated = Add(top_bottom_left, weighted_br)                  # [S_y, S_x, C]
    inside_plane = And(inside_y, inside_x)
    inside = Unsqueeze(inside_plane, last_axis)
    samples_flat = Where(inside, interpolated, zero_f)
    grid_y_1 = Reshape(grid_y, axis_1)
    grid_x_1 = Reshape(grid_x, axis_1)
    samples_shape = Concat<axis = 0>(num_bins_y, grid_y_1, num_bins_x, grid_x_1, num_channels_1)
    samples = Reshape<allowzero = 1>(samples_flat, samples_shape)     # [PH, S_y/PH, PW, S_x/PW, C]
"""

_AVERAGE = """
    REDUCE_SUM
    count = Mul(grid_y, grid_x)
    count_f = CastLike(count, rois)
    average = Div(sum, count_f)
"""

# A NaN sample is the maximum: ReduceMax cannot be relied on to see it.
_AVERAGE_OR_MAXIMUM = f"""
    sample_is_nan = IsNaN(samples)
    nan_f = CastLike(sample_is_nan, rois)
    REDUCE_NAN
    has_nan = Cast<to = 9>(num_nan)
    nan = Div(zero_f, zero_f)
    REDUCE_MAX
    maximum = Where(has_nan, nan, largest)
{_AVERAGE}
    pooled = Where(is_max, maximum, average)
"""

# Without RoIs the Loop's result has lost its shape: Reshape restores it.
_ROI_END = """
    both_axes = Cast<to = 7>(axis_has_samples_r)
    num_full_axes = ReduceSum<keepdims = 0>(both_axes, axis_0)
    has_samples = Greater(num_full_axes, one)
    Y_r = Where(has_samples, pooled, zero_f)                          # [PH, PW, C]
  }>
  rows_shape = Concat<axis = 0>(num_rois_1, num_bins_y, num_bins_x, num_channels_1)
  pooled_rows = Reshape<allowzero = 1>(rows, rows_shape)
  Y_sampled = Transpose<perm = [0, 3, 1, 2]>(pooled_rows)
"""

# Samples of a box that is neither turned nor taken apart are where its own axes say.
UPRIGHT = """
    coordinate_x = Identity(own_x)
    coordinate_y = Identity(own_y)
"""


def sampled_text(
    opset: int,
    *,
    coordinates: str = UPRIGHT,
    before_coordinates: str = "",
    begin: str = "start",
    with_maximum: bool = False,
    channel_per_bin: bool = False,
) -> str:
    """Return nodes from boxes to `Y_sampled` [R, C, PH, PW], in the type of rois.

    They need what `CONSTANTS` sets, `start` and `size` [R, A], and `is_max` if `with_maximum`.

    Args:
        opset: default-domain opset of the model that will hold the function.
        coordinates: nodes inside the Loop that set `coordinate_x` and `coordinate_y`, each
            broadcast to [S_y, S_x], from `own_x` [S_x], `own_y` [S_y, 1] and the RoI's number `r`.
        before_coordinates: nodes before those that set `own_x` and `own_y`.
        begin: the values that those count from are `<begin>_x` and `<begin>_y`.
        with_maximum: whether `is_max` chooses between average and maximum, else it is the average.
        channel_per_bin: whether each bin reads channels of its own.
    """
    reduce = _AVERAGE_OR_MAXIMUM if with_maximum else f"{_AVERAGE}    pooled = Identity(average)"
    for mark, result, operator, value in (
        ("REDUCE_NAN", "num_nan", "ReduceSum", "nan_f"),
        ("REDUCE_MAX", "largest", "ReduceMax", "samples"),
        ("REDUCE_SUM", "sum", "ReduceSum", "samples"),
    ):
        reduce = reduce.replace(mark, reduction(result, operator, value, [1, 3], opset))
    return "".join(
        (
            _GRIDS,
            map_as_cells("X_sampled", channel_per_bin=channel_per_bin),
            _ROI_BEGIN,
            of_one_roi("start", "bin_size", "grid"),
            per_axis(_AXIS_SAMPLES),
            _ORIENT,
            before_coordinates,
            per_axis(_AXIS_COORDINATES.replace("BEGIN", begin)),
            coordinates,
            per_axis(_AXIS_NEIGHBOURS),
            _CHANNEL_PER_BIN if channel_per_bin else _SHARED_CHANNELS,
            *_corners(),
            _INTERPOLATE,
            reduce,
            _ROI_END,
        )
    )


def _corners() -> list[str]:
    weight = {"low": "rest", "high": "fraction"}
    return [
        _CORNER.replace("CORNER", corner)
        .replace("CY", y)
        .replace("CX", x)
        .replace("WY", weight[y])
        .replace("WX", weight[x])
        for corner, y, x in (
            ("tl", "low", "low"),
            ("tr", "low", "high"),
            ("bl", "high", "low"),
            ("br", "high", "high"),
        )
    ]
