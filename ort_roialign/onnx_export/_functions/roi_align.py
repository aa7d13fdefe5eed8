"""`RoiAlign` in standard ONNX operators, for runtimes that do not have the plugin.

Source: Mask R-CNN (He et al. 2017), section 3; coordinate arithmetic in the order of the kernels,
so that both put every sample into the same cell. The kernels merge sample weights per axis, this
body reads each sample by itself, so the last digits may differ.

ONNX's own RoiAlign serves the average where the runtime has it (default opset below 22). It cannot
serve the maximum: it takes the maximum of the weighted corners instead of the samples. The samples
are therefore computed here, in a Loop over the RoIs, which lets every RoI have its own grid and
keeps memory at one RoI's samples. Letters in the comments: `A` = 2 axes, always x before y; `S_x`,
`S_y` = samples along an axis; `C`, `R`, `PH`, `PW` as in the operator.
"""

from __future__ import annotations

from ort_roialign.onnx_export._functions._text import map_as_cells, reduction, string_equals

_FIRST_OPSET_WITHOUT_BUILTIN = 22

_ATTRIBUTES = (
    'mode: string = "avg"',
    "output_height: int = 1",
    "output_width: int = 1",
    "sampling_ratio: int = 0",
    "spatial_scale: float = 1.0",
    'coordinate_transformation_mode: string = "half_pixel"',
)

# X and rois may differ in type (half-precision maps with float32 boxes): everything is computed in
# the type of rois. Constants are written in float32 and take that type by CastLike.
_GEOMETRY = """
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
  axis_0 = Constant<value_ints = [0]>()
  axis_1 = Constant<value_ints = [1]>()
  adaptive = LessOrEqual(sampling_ratio, zero)
  x1_y1 = Constant<value_ints = [0, 1]>()
  x2_y2 = Constant<value_ints = [2, 3]>()
  top_left_image = Gather<axis = 1>(rois, x1_y1)
  bottom_right_image = Gather<axis = 1>(rois, x2_y2)
"""

# An adaptive grid of a box with one negative side has no samples, but onnxruntime fails on the
# negative count. Moving the far corner onto the near one gives the same result without samples.
# A fixed grid must keep negative sides: it gives the mirrored crop.
_BUILTIN_AVERAGE = """
  X_builtin = CastLike(X, rois)
  not_before = Max(top_left_image, bottom_right_image)
  ordered = Concat<axis = 1>(top_left_image, not_before)
  builtin_rois = Where(adaptive, ordered, rois)
  Y_builtin = RoiAlign<
    mode = "avg", output_height: int = @output_height, output_width: int = @output_width,
    sampling_ratio: int = @sampling_ratio, spatial_scale: float = @spatial_scale,
    coordinate_transformation_mode: string = @coordinate_transformation_mode
  >(X_builtin, builtin_rois, batch_indices)
"""

# All RoIs at once. grid >= 1 even where the operator has an empty grid, so that no later step
# meets an empty tensor or a division by zero; has_samples then puts 0 into the result.
_SAMPLING_GRIDS = """
  offset = Where(is_half_pixel, half_f, zero_f)
  top_left_scaled = Mul(top_left_image, spatial_scale)
  bottom_right_scaled = Mul(bottom_right_image, spatial_scale)
  start = Sub(top_left_scaled, offset)                                # [R, A]
  end = Sub(bottom_right_scaled, offset)
  size_given = Sub(end, start)
  size_at_least_one = Max(size_given, one_f)
  size = Where(is_half_pixel, size_given, size_at_least_one)          # [R, A]
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

# The samples of one RoI along one axis; AXIS is x or y, COLUMN its column in [R, A], BINS and SIZE
# its numbers of bins and of cells.
_AXIS_SAMPLES = """
    SIZE_f = CastLike(SIZE, rois)
    at_AXIS = Constant<value_int = COLUMN>()
    grid_AXIS = Gather(grid_r, at_AXIS)
    start_AXIS = Gather(start_r, at_AXIS)
    bin_size_AXIS = Gather(bin_size_r, at_AXIS)
    num_samples_AXIS = Mul(BINS, grid_AXIS)
    sample_AXIS = Range(zero, num_samples_AXIS, one)                  # [S]
    bin_AXIS = Div(sample_AXIS, grid_AXIS)
    samples_before_AXIS = Mul(bin_AXIS, grid_AXIS)
    in_bin_AXIS = Sub(sample_AXIS, samples_before_AXIS)
    grid_f_AXIS = CastLike(grid_AXIS, rois)
    bin_f_AXIS = CastLike(bin_AXIS, rois)
    in_bin_f_AXIS = CastLike(in_bin_AXIS, rois)
    bin_offset_AXIS = Mul(bin_f_AXIS, bin_size_AXIS)
    bin_start_AXIS = Add(start_AXIS, bin_offset_AXIS)
    in_bin_centre_AXIS = Add(in_bin_f_AXIS, half_f)
    in_bin_scaled_AXIS = Mul(in_bin_centre_AXIS, bin_size_AXIS)
    in_bin_offset_AXIS = Div(in_bin_scaled_AXIS, grid_f_AXIS)
    coordinate_AXIS = Add(bin_start_AXIS, in_bin_offset_AXIS)

    minus_one_AXIS = Neg(one_f)
    not_before_AXIS = GreaterOrEqual(coordinate_AXIS, minus_one_AXIS)
    not_after_AXIS = LessOrEqual(coordinate_AXIS, SIZE_f)
    inside_AXIS = And(not_before_AXIS, not_after_AXIS)                # [S]
    clamped_AXIS = Max(coordinate_AXIS, zero_f)
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

# One corner of every sample: Y and X are low or high, WY and WX rest or fraction.
_CORNER = """
    row_CORNER = Mul(CY_y, width)
    row_start_CORNER = Add(row_CORNER, image_start_r)
    row_start_column_CORNER = Unsqueeze(row_start_CORNER, axis_1)
    cell_CORNER = Add(row_start_column_CORNER, CX_x)                  # [S_y, S_x]
    value_CORNER = Gather<axis = 0>(cells, cell_CORNER)               # [S_y, S_x, C]
    weight_column_CORNER = Unsqueeze(WY_y, axis_1)
    weight_plane_CORNER = Mul(weight_column_CORNER, WX_x)
    weight_CORNER = Unsqueeze(weight_plane_CORNER, last_axis)
    weighted_CORNER = Mul(weight_CORNER, value_CORNER)
"""

_ROI_BEGIN = """
  rows = Loop(num_rois, always)<body = pool_one_roi (int64 r, bool keep) => (bool go_on, Y_r) {
    go_on = Identity(keep)
    start_r = Gather(start, r)                                        # [A]
    bin_size_r = Gather(bin_size, r)
    grid_r = Gather(grid, r)
    image_start_r = Gather(image_start, r)
    axis_has_samples_r = Gather(axis_has_samples, r)
    last_axis = Constant<value_ints = [2]>()
"""

_ROI_INTERPOLATE = """
    top = Add(weighted_tl, weighted_tr)
    top_bottom_left = Add(top, weighted_bl)
    interpolated = Add(top_bottom_left, weighted_br)                  # [S_y, S_x, C]
    inside_column = Unsqueeze(inside_y, axis_1)
    inside_plane = And(inside_column, inside_x)
    inside = Unsqueeze(inside_plane, last_axis)
    samples_flat = Where(inside, interpolated, zero_f)
"""

_ROI_END = """
    grid_y_1 = Reshape(grid_y, axis_1)
    grid_x_1 = Reshape(grid_x, axis_1)
    samples_shape = Concat<axis = 0>(num_bins_y, grid_y_1, num_bins_x, grid_x_1, num_channels_1)
    samples = Reshape<allowzero = 1>(samples_flat, samples_shape)     # [PH, S_y/PH, PW, S_x/PW, C]
    # A NaN sample is the maximum: ReduceMax cannot be relied on to see it.
    sample_is_nan = IsNaN(samples)
    nan_f = CastLike(sample_is_nan, rois)
    REDUCE_NAN
    has_nan = Cast<to = 9>(num_nan)
    nan = Div(zero_f, zero_f)
    REDUCE_MAX
    maximum = Where(has_nan, nan, largest)
    REDUCE_SUM
    count = Mul(grid_y, grid_x)
    count_f = CastLike(count, rois)
    average = Div(sum, count_f)
    pooled = Where(is_max, maximum, average)
    both_axes = Cast<to = 7>(axis_has_samples_r)
    num_full_axes = ReduceSum<keepdims = 0>(both_axes, axis_0)
    has_samples = Greater(num_full_axes, one)
    Y_r = Where(has_samples, pooled, zero_f)                          # [PH, PW, C]
  }>
"""

# Without RoIs the Loop's result has lost its shape: Reshape restores it.
_ROI_OUTPUT = """
  rows_shape = Concat<axis = 0>(num_rois_1, num_bins_y, num_bins_x, num_channels_1)
  pooled_rows = Reshape<allowzero = 1>(rows, rows_shape)
  Y_sampled = Transpose<perm = [0, 3, 1, 2]>(pooled_rows)
"""


def text(opset: int) -> str:
    """Return the function in ONNX's text form.

    Args:
        opset: default-domain opset of the model that will hold the function; onnxruntime inlines
            the body at the model's opset, whatever the function imports.
    """
    sampled = _sampled_text(opset)
    if opset >= _FIRST_OPSET_WITHOUT_BUILTIN:
        pooled = sampled + "Y_wide = Identity(Y_sampled)"
    else:
        pooled = (
            f"Y_wide = If(is_max)<then_branch = sampled () => (Y_sampled) {{{sampled}}},"
            f" else_branch = builtin () => (Y_builtin) {{{_BUILTIN_AVERAGE}}}>"
        )
    return f"""<opset_import: ["": {opset}], domain: "ort_roialign">
RoiAlign <{", ".join(_ATTRIBUTES)}> (X, rois, batch_indices) => (Y) {{
  {string_equals("is_max", "mode", "max")}
  {string_equals("is_half_pixel", "coordinate_transformation_mode", "half_pixel")}
  {_GEOMETRY}
  {pooled}
  Y = CastLike(Y_wide, X)
}}"""


def _sampled_text(opset: int) -> str:
    """Return the nodes from the RoIs to `Y_sampled` [R, C, PH, PW]."""
    axes = [
        _AXIS_SAMPLES.replace("AXIS", axis)
        .replace("COLUMN", column)
        .replace("BINS", bins)
        .replace("SIZE", size)
        for axis, column, bins, size in (
            ("x", "0", "output_width", "width"),
            ("y", "1", "output_height", "height"),
        )
    ]
    weight = {"low": "rest", "high": "fraction"}
    corners = [
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
    end = _ROI_END
    for mark, result, operator, value in (
        ("REDUCE_NAN", "num_nan", "ReduceSum", "nan_f"),
        ("REDUCE_MAX", "largest", "ReduceMax", "samples"),
        ("REDUCE_SUM", "sum", "ReduceSum", "samples"),
    ):
        end = end.replace(mark, reduction(result, operator, value, [1, 3], opset))
    return "".join(
        (
            _SAMPLING_GRIDS,
            map_as_cells("X_sampled"),
            _ROI_BEGIN,
            *axes,
            *corners,
            _ROI_INTERPOLATE,
            end,
            _ROI_OUTPUT,
        )
    )
