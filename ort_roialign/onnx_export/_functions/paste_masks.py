"""`PasteMasks` in standard ONNX operators, for runtimes that do not have the plugin.

Source: Mask R-CNN (He et al. 2017), section 3; rounding as torchvision's `paste_masks_in_image`.

What each pixel of a row and of a column reads is a matrix of weights, so that a pasted mask is a
product of three matrices: no loop over the masks. A pixel weighs a cell by 1 less their distance.
"""

from __future__ import annotations

from ort_roialign.onnx_export._functions._text import function

# Along one axis, in the type of boxes: LOW and HIGH are the columns of boxes with its edges.
_AXIS = """
  cells_at_AXIS = Constant<value_int = CELLS_AT>()
  num_cells_AXIS = Gather(masks_shape, cells_at_AXIS)
  num_framed_AXIS = Add(num_cells_AXIS, frame)
  low_at_AXIS = Constant<value_ints = [LOW]>()
  high_at_AXIS = Constant<value_ints = [HIGH]>()
  low_AXIS = Gather<axis = 1>(boxes, low_at_AXIS)                     # [R, 1]
  high_AXIS = Gather<axis = 1>(boxes, high_at_AXIS)
  half_low_AXIS = Mul(low_AXIS, half)
  half_high_AXIS = Mul(high_AXIS, half)
  centre_AXIS = Add(half_high_AXIS, half_low_AXIS)
  half_length_AXIS = Sub(half_high_AXIS, half_low_AXIS)
  reach_AXIS = Mul(half_length_AXIS, growth)
  first_exact_AXIS = Sub(centre_AXIS, reach_AXIS)
  last_exact_AXIS = Add(centre_AXIS, reach_AXIS)
  first_held_AXIS = Clip(first_exact_AXIS, least, most)
  last_held_AXIS = Clip(last_exact_AXIS, least, most)
  first_AXIS = Cast<to = 7>(first_held_AXIS)
  last_AXIS = Cast<to = 7>(last_held_AXIS)
  steps_AXIS = Sub(last_AXIS, first_AXIS)
  pixels_or_less_AXIS = Add(steps_AXIS, one)
  pixels_AXIS = Max(pixels_or_less_AXIS, one)
  pixels_f_AXIS = CastLike(pixels_AXIS, boxes)
  framed_AXIS = CastLike(num_framed_AXIS, boxes)
  cells_per_pixel_AXIS = Div(framed_AXIS, pixels_f_AXIS)              # [R, 1]
  extent_at_AXIS = Constant<value_int = EXTENT_AT>()
  extent_AXIS = Gather(image_size, extent_at_AXIS)
  pixel_AXIS = Range(zero, extent_AXIS, one)                          # [P]
  from_first_AXIS = Sub(pixel_AXIS, first_AXIS)                       # [R, P]
  from_first_f_AXIS = CastLike(from_first_AXIS, boxes)
  middle_AXIS = Add(from_first_f_AXIS, half)
  scaled_AXIS = Mul(middle_AXIS, cells_per_pixel_AXIS)
  at_exact_AXIS = Sub(scaled_AXIS, half)
  last_cell_AXIS = Sub(framed_AXIS, one_f)
  at_AXIS = Clip(at_exact_AXIS, zero_f, last_cell_AXIS)
  at_column_AXIS = Unsqueeze(at_AXIS, axis_2)                         # [R, P, 1]
  end_AXIS = Add(padding, num_cells_AXIS)
  cell_AXIS = Range(padding, end_AXIS, one)
  cell_f_AXIS = CastLike(cell_AXIS, boxes)                            # [M], without the frame
  offset_AXIS = Sub(at_column_AXIS, cell_f_AXIS)
  distance_AXIS = Abs(offset_AXIS)
  share_or_less_AXIS = Sub(one_f, distance_AXIS)
  share_AXIS = Max(share_or_less_AXIS, zero_f)                        # [R, P, M]
  is_before_AXIS = Less(pixel_AXIS, first_AXIS)
  is_behind_AXIS = Greater(pixel_AXIS, last_AXIS)
  is_outside_AXIS = Or(is_before_AXIS, is_behind_AXIS)                # [R, P]
  is_outside_column_AXIS = Unsqueeze(is_outside_AXIS, axis_2)
  weight_AXIS = Where(is_outside_column_AXIS, zero_f, share_AXIS)
"""

_MASKS = """
  padding = Constant<value_int: int = @padding>()
  zero = Constant<value_int = 0>()
  one = Constant<value_int = 1>()
  axis_1 = Constant<value_ints = [1]>()
  axis_2 = Constant<value_ints = [2]>()
  zero_32 = Constant<value_float = 0.0>()
  half_32 = Constant<value_float = 0.5>()
  one_32 = Constant<value_float = 1.0>()
  least_32 = Constant<value_float = -1099511627776.0>()
  most_32 = Constant<value_float = 1099511627776.0>()
  zero_f = CastLike(zero_32, boxes)
  half = CastLike(half_32, boxes)
  one_f = CastLike(one_32, boxes)
  least = CastLike(least_32, boxes)
  most = CastLike(most_32, boxes)
  masks_shape = Shape(masks)
  masks_wide = CastLike(masks, boxes)
  planes = Squeeze(masks_wide, axis_1)                                # [R, M, K]
  width_at = Constant<value_int = 3>()
  width = Gather(masks_shape, width_at)
  frame = Add(padding, padding)
  framed_width = Add(width, frame)
  width_wide = Cast<to = 11>(width)
  framed_width_wide = Cast<to = 11>(framed_width)
  growth_wide = Div(framed_width_wide, width_wide)
  growth = CastLike(growth_wide, boxes)
  AXES
  columns = Transpose<perm = [0, 2, 1]>(weight_x)                     # [R, K, W]
  stretched = MatMul(planes, columns)                                 # [R, M, W]
  values = MatMul(weight_y, stretched)                                # [R, H, W]
"""

_VALUES = """
  values_4 = Unsqueeze(values, axis_1)
  Y = CastLike(values_4, masks)
"""
_BYTES = """
  threshold_32 = Constant<value_float: float = @threshold>()
  threshold = CastLike(threshold_32, boxes)
  reaches = GreaterOrEqual(values, threshold)
  bytes = Cast<to = 2>(reaches)
  Y = Unsqueeze(bytes, axis_1)
"""


def text(opset: int, _: int) -> str:
    """Return the function of nodes without a threshold in ONNX's text form.

    Args:
        opset: default-domain opset of the model that will hold the function.
    """
    return _text(opset, _VALUES, ["padding: int = 1"])


def text_with_threshold(opset: int, _: int) -> str:
    """Return the function of nodes with a threshold in ONNX's text form.

    Args:
        opset: default-domain opset of the model that will hold the function.
    """
    return _text(opset, _BYTES, ["padding: int = 1", "threshold"])


def _text(opset: int, results: str, attributes: list[str]) -> str:
    axes = "".join(
        _AXIS.replace("AXIS", axis)
        .replace("CELLS_AT", cells_at)
        .replace("EXTENT_AT", extent_at)
        .replace("LOW", low)
        .replace("HIGH", high)
        for axis, cells_at, extent_at, low, high in (
            ("y", "2", "0", "1", "3"),
            ("x", "3", "1", "0", "2"),
        )
    )
    nodes = _MASKS.replace("AXES", axes) + results
    inputs = ("masks", "boxes", "image_size")
    return function("PasteMasks", attributes, inputs, ("Y",), nodes, opset)
