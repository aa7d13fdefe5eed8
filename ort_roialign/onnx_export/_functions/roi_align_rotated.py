"""`RoiAlignRotated` in standard ONNX operators, for runtimes that do not have the plugin.

Source: RoIAlign's samples (Mask R-CNN, section 3), laid around the box's centre and turned as in
detectron2's `ROIAlignRotated`. Sine and cosine are computed in float64 and rounded, as the kernels
do.
"""

from __future__ import annotations

from ort_roialign.onnx_export._functions import _samples
from ort_roialign.onnx_export._functions._text import function, of_one_roi, string_equals

ANGLE = ('angle_unit: string = "radians"', "clockwise: int = 0")

# `top_left_image` is here the centre, and `bottom_right_image` the size. onnxruntime up to
# 1.27 has Sin in float64, but not Cos: it is the sine of a quarter turn more.
_TURNED_BOXES = """
  centre_scaled = Mul(top_left_image, spatial_scale)
  origin = Where(is_half_pixel, half_f, zero_f)
  centre = Sub(centre_scaled, origin)                                 # [R, A]
  size_given = Mul(bottom_right_image, spatial_scale)
"""
_TURN = """
  minus_half_f = Neg(half_f)
  start = Mul(size, minus_half_f)                                     # [R, A], from the centre
  four = Constant<value_int = 4>()
  angle = Gather<axis = 1>(rois, four)                                # [R]
  angle_f64 = Cast<to = 11>(angle)
  radian = Constant<value = double {1.0}>()
  degree = Constant<value = double {0.017453292519943295}>()
  quarter = Constant<value = double {1.5707963267948966}>()
  unit = Where(is_degrees, degree, radian)
  radians = Mul(angle_f64, unit)
  radians_and_quarter = Add(radians, quarter)
  sine_f64 = Sin(radians)
  cosine_f64 = Sin(radians_and_quarter)
  clockwise = Constant<value_int: int = @clockwise>()
  is_clockwise = Cast<to = 9>(clockwise)
  mirrored_sine_f64 = Neg(sine_f64)
  turned_sine_f64 = Where(is_clockwise, mirrored_sine_f64, sine_f64)
  sine = CastLike(turned_sine_f64, rois)                              # [R]
  cosine = CastLike(cosine_f64, rois)
"""

_COORDINATES = f"""
{of_one_roi("centre")}
    sine_r = Gather(sine, r)
    cosine_r = Gather(cosine, r)
    y_by_cosine = Mul(own_y, cosine_r)
    x_by_sine = Mul(own_x, sine_r)
    y_by_sine = Mul(own_y, sine_r)
    x_by_cosine = Mul(own_x, cosine_r)
    turned_y = Sub(y_by_cosine, x_by_sine)                            # [S_y, S_x]
    turned_x = Add(y_by_sine, x_by_cosine)
    coordinate_y = Add(turned_y, centre_y)
    coordinate_x = Add(turned_x, centre_x)
"""


def text(opset: int, num_inputs: int) -> str:
    """Return the function in ONNX's text form.

    Args:
        opset: default-domain opset of the model that will hold the function.
        num_inputs: 3.
    """
    nodes = f"""
  {string_equals("is_max", "mode", "max")}
  {string_equals("is_half_pixel", "coordinate_transformation_mode", "half_pixel")}
  {string_equals("is_degrees", "angle_unit", "degrees")}
  {_samples.CONSTANTS}
  {_TURNED_BOXES}
  {_samples.SIZE}
  {_TURN}
  {_samples.sampled_text(opset, coordinates=_COORDINATES, with_maximum=True)}
  Y = CastLike(Y_sampled, X)
"""
    attributes = (*_samples.MODE, *_samples.GRID, *_samples.FRAME, *ANGLE)
    inputs = ("X", "rois", "batch_indices")
    return function("RoiAlignRotated", attributes, inputs, ("Y",), nodes, opset)
