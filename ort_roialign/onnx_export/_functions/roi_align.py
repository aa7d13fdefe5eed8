"""`RoiAlign` in standard ONNX operators, for runtimes that do not have the plugin.

Source: Mask R-CNN (He et al. 2017), section 3.

ONNX's own RoiAlign serves the average where the runtime has it (default opset below 22). It cannot
serve the maximum: it takes the maximum of the weighted corners instead of the samples.
"""

from __future__ import annotations

from ort_roialign.onnx_export._functions import _samples
from ort_roialign.onnx_export._functions._text import function, string_equals

_FIRST_OPSET_WITHOUT_BUILTIN = 22

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


def text(opset: int, num_inputs: int) -> str:
    """Return the function in ONNX's text form.

    Args:
        opset: default-domain opset of the model that will hold the function.
        num_inputs: 3.
    """
    boxes = f"{_samples.UPRIGHT_BOXES}{_samples.SIZE}"
    sampled = boxes + _samples.sampled_text(opset, with_maximum=True)
    if opset >= _FIRST_OPSET_WITHOUT_BUILTIN:
        pooled = sampled + "Y_wide = Identity(Y_sampled)"
    else:
        pooled = (
            f"Y_wide = If(is_max)<then_branch = sampled () => (Y_sampled) {{{sampled}}},"
            f" else_branch = builtin () => (Y_builtin) {{{_BUILTIN_AVERAGE}}}>"
        )
    nodes = f"""
  {string_equals("is_max", "mode", "max")}
  {string_equals("is_half_pixel", "coordinate_transformation_mode", "half_pixel")}
  {_samples.CONSTANTS}
  {pooled}
  Y = CastLike(Y_wide, X)
"""
    attributes = (*_samples.MODE, *_samples.GRID, *_samples.FRAME)
    inputs = ("X", "rois", "batch_indices")
    return function("RoiAlign", attributes, inputs, ("Y",), nodes, opset)
