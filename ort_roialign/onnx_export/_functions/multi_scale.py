"""The multi-scale operators in standard ONNX operators, for runtimes without the plugin.

Source: Feature Pyramid Networks (Lin et al. 2017), equation 1. Each map's boxes go through the
function of the operator on one map, and the results are put back into the order of the boxes. A
function cannot have any number of inputs: there is one for each number of maps.
"""

from __future__ import annotations

from ort_roialign.onnx_export._functions import _samples
from ort_roialign.onnx_export._functions._text import function
from ort_roialign.onnx_export._functions.roi_align_rotated import ANGLE

# Stands for a level that is not given: lower than the lowest that may be given.
_NOT_GIVEN = -1001

_LEVELS = (
    "spatial_scales",
    "canonical_scale: float = 224.0",
    "canonical_level: int = 4",
    f"min_level: int = {_NOT_GIVEN}",
    f"max_level: int = {_NOT_GIVEN}",
    "log_epsilon: float = 0.0",
    "level_epsilon: float = 0.000001",
)

# The level of a map's scale: -log2(scale) rounded half away from zero.
_LEVEL_OF_SCALE = f"""
  END_given = Constant<value_int: int = @END_level>()
  END_not_given = Constant<value_int = {_NOT_GIVEN}>()
  END_is_derived = Equal(END_given, END_not_given)
  END_at = Constant<value_int = PLACE>()
  END_scale = Gather(scales, END_at)
  END_scale_f64 = Cast<to = 11>(END_scale)
  END_ln = Log(END_scale_f64)
  END_log2 = Div(END_ln, ln_2)
  END_exact_f64 = Neg(END_log2)
  END_exact = Cast<to = 1>(END_exact_f64)
  END_distance = Abs(END_exact)
  END_distance_and_half = Add(END_distance, half)
  END_whole = Floor(END_distance_and_half)
  END_sign = Sign(END_exact)
  END_of_scale = Mul(END_sign, END_whole)
  END_given_f = Cast<to = 1>(END_given)
"""

_LEVELS_IN_USE = """
  min_level = Where(min_is_derived, min_of_scale, min_given_f)
  levels_apart = Sub(max_of_scale, min_of_scale)
  max_derived = Add(min_level, levels_apart)
  max_level = Where(max_is_derived, max_derived, max_given_f)
"""

# In float32, as the kernels: logarithm and root are rounded from float64.
_MAP_NUMBERS = """
  scales = Constant<value_floats: floats = @spatial_scales>()
  canonical_scale = Constant<value_float: float = @canonical_scale>()
  canonical_level_int = Constant<value_int: int = @canonical_level>()
  canonical_level = Cast<to = 1>(canonical_level_int)
  log_epsilon = Constant<value_float: float = @log_epsilon>()
  level_epsilon = Constant<value_float: float = @level_epsilon>()
  ln_2 = Constant<value = double {0.6931471805599453}>()
  half = Constant<value_float = 0.5>()
  zero_f = Constant<value_float = 0.0>()
  zero = Constant<value_int = 0>()
  one = Constant<value_int = 1>()
  axis_0 = Constant<value_ints = [0]>()
  LEVELS
  SIDES
  width_f32 = Cast<to = 1>(width)                                     # [R]
  height_f32 = Cast<to = 1>(height)
  area = Mul(width_f32, height_f32)
  has_area = Greater(area, zero_f)
  area_f64 = Cast<to = 11>(area)
  side_f64 = Sqrt(area_f64)
  side = Cast<to = 1>(side_f64)
  plain_ratio = Div(side, canonical_scale)
  ratio = Add(plain_ratio, log_epsilon)
  ratio_f64 = Cast<to = 11>(ratio)
  logarithm_f64 = Log(ratio_f64)
  log2_f64 = Div(logarithm_f64, ln_2)
  log2 = Cast<to = 1>(log2_f64)
  level_from_canonical = Add(canonical_level, log2)
  exact_level = Add(level_from_canonical, level_epsilon)
  level = Floor(exact_level)
  is_above_first = Greater(level, min_level)
  is_below_last = Less(level, max_level)
  level_or_last = Where(is_below_last, level, max_level)
  number_above_first = Sub(level_or_last, min_level)
  is_not_first = And(has_area, is_above_first)
  number_f = Where(is_not_first, number_above_first, zero_f)
  map_number = Cast<to = 7>(number_f)                                 # [R]
"""

_SIDES = """
  x1_y1_at = Constant<value_ints = [0, 1]>()
  x2_y2_at = Constant<value_ints = [2, 3]>()
  x1_y1 = Gather<axis = 1>(rois, x1_y1_at)
  x2_y2 = Gather<axis = 1>(rois, x2_y2_at)
  sides = Sub(x2_y2, x1_y1)
  one_each = Constant<value_ints = [1, 1]>()
  widths, heights = Split<axis = 1>(sides, one_each)
  axis_1 = Constant<value_ints = [1]>()
  width = Squeeze(widths, axis_1)
  height = Squeeze(heights, axis_1)
"""
_SIDES_ROTATED = """
  width_at = Constant<value_int = 2>()
  height_at = Constant<value_int = 3>()
  width = Gather<axis = 1>(rois, width_at)
  height = Gather<axis = 1>(rois, height_at)
"""

# The operator on one map gets boxes that are scaled already: an attribute cannot be one number of a
# list. An angle is not scaled.
_SCALES = """
    scale_MAP_1 = Slice(scales, begin_MAP, end_MAP)
    scale_MAP = CastLike(scale_MAP_1, rois)
"""
_SCALES_ROTATED = """
    length_scale_MAP = Slice(scales, begin_MAP, end_MAP)
    four_MAP = Constant<value_ints = [4]>()
    length_scales_MAP = Expand(length_scale_MAP, four_MAP)
    angle_scale_MAP = Constant<value_floats = [1.0]>()
    scales_MAP = Concat<axis = 0>(length_scales_MAP, angle_scale_MAP)
    scale_MAP = CastLike(scales_MAP, rois)
"""
_ONE_MAP = """
    begin_MAP = Constant<value_ints = [MAP]>()
    end_MAP = Add(begin_MAP, one)
    is_on_MAP = Equal(map_number, begin_MAP)
    which_row_MAP = NonZero(is_on_MAP)
    which_MAP = Squeeze(which_row_MAP, axis_0)                        # numbers of the map's boxes
    rois_MAP = Gather<axis = 0>(rois, which_MAP)
    images_MAP = Gather<axis = 0>(batch_indices, which_MAP)
    SCALES
    scaled_MAP = Mul(rois_MAP, scale_MAP)
    Y_MAP = OPERATOR<ATTRIBUTES>(X_MAP, scaled_MAP, images_MAP)
"""

# Where each box's result is among those of all maps: the inverse of the permutation.
_MERGE = """
  order = Concat<axis = 0>(WHICH)
  pooled = Concat<axis = 0>(RESULTS)
  num_rois_1 = Shape<start = 0, end = 1>(rois)
  num_rois = Squeeze(num_rois_1, axis_0)
  numbers = Range(zero, num_rois, one)
  places = ScatterElements<axis = 0>(numbers, order, numbers)
  Y = Gather<axis = 0>(pooled, places)
"""


def text(opset: int, num_inputs: int) -> str:
    """Return the function of MultiScaleRoiAlign in ONNX's text form.

    Args:
        opset: default-domain opset of the model that will hold the function.
        num_inputs: the number of maps, and two more.
    """
    return _text("RoiAlign", opset, num_inputs - 2)


def text_rotated(opset: int, num_inputs: int) -> str:
    """Return the function of MultiScaleRoiAlignRotated, as `text`."""
    return _text("RoiAlignRotated", opset, num_inputs - 2)


def _text(operator: str, opset: int, num_maps: int) -> str:
    is_rotated = operator == "RoiAlignRotated"
    shared = (
        *_samples.MODE,
        *_samples.OUTPUT_SIZE,
        "sampling_ratio: int = 0",
        *_samples.FRAME,
        *(ANGLE if is_rotated else ()),
    )
    # "name: type = default" becomes "name: type = @name".
    passed_on = [f"{each.split(' = ')[0]} = @{each.split(':')[0]}" for each in shared]
    levels = "".join(
        _LEVEL_OF_SCALE.replace("END", end).replace("PLACE", place)
        for end, place in (("min", "0"), ("max", "-1"))
    )
    levels += _LEVELS_IN_USE
    one_map = (
        _ONE_MAP.replace("SCALES", _SCALES_ROTATED if is_rotated else _SCALES)
        .replace("OPERATOR", f"ort_roialign.{operator}")
        .replace("ATTRIBUTES", ", ".join(passed_on))
    )
    numbers = [str(number) for number in range(num_maps)]
    nodes = "".join(
        (
            _MAP_NUMBERS.replace("LEVELS", levels).replace(
                "SIDES", _SIDES_ROTATED if is_rotated else _SIDES
            ),
            *(one_map.replace("MAP", number) for number in numbers),
            _MERGE.replace("WHICH", ", ".join(f"which_{number}" for number in numbers)).replace(
                "RESULTS", ", ".join(f"Y_{number}" for number in numbers)
            ),
        )
    )
    inputs = ("rois", "batch_indices", *(f"X_{number}" for number in numbers))
    return function(f"MultiScale{operator}", (*_LEVELS, *shared), inputs, ("Y",), nodes, opset)
