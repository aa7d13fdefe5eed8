"""Keypoints of heatmaps, which torchvision looks for in a Python loop over the detections.

torch.export cannot trace that loop. As one PyTorch operator it can, and the exported node has a
function in the file that loops in standard ONNX operators: there is no kernel for it.

Letters: `R` boxes, `K` keypoints, `M N` height and width of a heatmap.
"""

from __future__ import annotations

from typing import Any

import onnx
import onnxscript
import torch
from onnx.defs import OpSchema
from torch import Tensor
from torchvision.models.detection import roi_heads

from ort_roialign._domains import DOMAIN, DOMAIN_VERSION, STANDARD_DOMAINS
from ort_roialign.onnx_export._functions._text import function, parse
from ort_roialign.onnx_export._torchscript import is_torchscript_tracing

NAME = "HeatmapsToKeypoints"
_library: Any = torch.library  # its functions have no type hints
_eager: Any = roi_heads.heatmaps_to_keypoints


def heatmaps_to_keypoints(maps: Tensor, rois: Tensor) -> tuple[Tensor, Tensor]:
    """Find where each heatmap [R, K, M, N], stretched over its box [R, 4], is largest.

    Returns:
        Places [R, K, 3] as x, y, 1 in pixels, and the values there [R, K], as torchvision's
        function of this name.
    """
    # torchvision has a loop for TorchScript.
    find = _eager if is_torchscript_tracing() else torch.ops.ort_roialign.heatmaps_to_keypoints
    found: tuple[Tensor, Tensor] = find(maps, rois)
    return found


def _compute(maps: Tensor, rois: Tensor) -> tuple[Tensor, Tensor]:
    keypoints, scores = _eager(maps, rois)
    return keypoints.contiguous(), scores


def _fake(maps: Tensor, rois: Tensor) -> tuple[Tensor, Tensor]:
    count, keypoints = maps.shape[:2]
    places = maps.new_empty((count, keypoints, 3), dtype=torch.float32)
    return places, maps.new_empty((count, keypoints), dtype=torch.float32)


_library.define(
    f"{DOMAIN}::heatmaps_to_keypoints",
    "(Tensor maps, Tensor rois) -> (Tensor, Tensor)",
    tags=torch.Tag.pt2_compliant_tag,
)
_library.impl(f"{DOMAIN}::heatmaps_to_keypoints", "default")(_compute)
_library.register_fake(f"{DOMAIN}::heatmaps_to_keypoints")(_fake)


def dynamo_translation(maps: Any, rois: Any) -> Any:
    """Build the node from values of the torch.export-based exporter."""
    parameter = OpSchema.FormalParameter
    schema = OpSchema(
        NAME,
        DOMAIN,
        DOMAIN_VERSION,
        inputs=[parameter("maps", "T"), parameter("rois", "T")],
        outputs=[parameter("keypoints", "T"), parameter("scores", "T")],
        type_constraints=[("T", ["tensor(float)"], "what detectors compute in")],
    )
    opset = onnxscript.values.Opset(DOMAIN, DOMAIN_VERSION)
    operator: Any = onnxscript.values.Op(opset, NAME, schema)
    return operator(maps, rois)


_NODES = """
  zero = Constant<value_int = 0>()
  one = Constant<value_int = 1>()
  axis_0 = Constant<value_ints = [0]>()
  axis_1 = Constant<value_ints = [1]>()
  axis_2 = Constant<value_ints = [2]>()
  one_f = Constant<value_float = 1.0>()
  half_f = Constant<value_float = 0.5>()
  first_at = Constant<value_ints = [0, 1]>()
  second_at = Constant<value_ints = [2, 3]>()
  first = Gather<axis = 1>(rois, first_at)                            # [R, 2]: x, y
  second = Gather<axis = 1>(rois, second_at)
  size_given = Sub(second, first)
  size = Max(size_given, one_f)
  size_ceil = Ceil(size)
  pixels = Cast<to = 7>(size_ceil)                                    # [R, 2]: width, height
  pixel_size = Div(size, size_ceil)
  num_rois_1 = Shape<start = 0, end = 1>(rois)
  num_rois = Squeeze(num_rois_1, axis_0)
  num_keypoints_1 = Shape<start = 1, end = 2>(maps)
  always = Cast<to = 9>(one)
  every_x, every_y, every_score = Loop(num_rois, always)<body = look_at_one_roi (int64 r, bool keep)
      => (bool go_on, x_r, y_r, score_r) {
    go_on = Identity(keep)
    maps_r = Gather(maps, r)                                          # [K, M, N]
    maps_4 = Unsqueeze(maps_r, axis_1)
    pixels_r = Gather(pixels, r)
    width_r = Gather(pixels_r, zero)
    width_1 = Gather(pixels_r, axis_0)
    height_1 = Gather(pixels_r, axis_1)
    stretched_shape = Concat<axis = 0>(num_keypoints_1, axis_1, height_1, width_1)
    stretched = Resize<mode = "cubic", cubic_coeff_a = -0.75,
        coordinate_transformation_mode = "half_pixel">(maps_4, , , stretched_shape)
    num_pixels_1 = Mul(height_1, width_1)
    flat_shape = Concat<axis = 0>(num_keypoints_1, num_pixels_1)
    flat = Reshape(stretched, flat_shape)
    place = ArgMax<axis = 1, keepdims = 1>(flat)                      # [K, 1]
    value = GatherElements<axis = 1>(flat, place)
    score_r = Squeeze(value, axis_1)
    place_1 = Squeeze(place, axis_1)
    x_r = Mod(place_1, width_r)
    y_r = Div(place_1, width_r)
  }>
  found_shape = Concat<axis = 0>(num_rois_1, num_keypoints_1)
  scores = Reshape<allowzero = 1>(every_score, found_shape)
  x_pixel = Reshape<allowzero = 1>(every_x, found_shape)              # [R, K]
  y_pixel = Reshape<allowzero = 1>(every_y, found_shape)
  x_pixel_3 = Unsqueeze(x_pixel, axis_2)
  y_pixel_3 = Unsqueeze(y_pixel, axis_2)
  pixel = Concat<axis = 2>(x_pixel_3, y_pixel_3)                      # [R, K, 2]
  pixel_f = Cast<to = 1>(pixel)
  middle = Add(pixel_f, half_f)
  pixel_size_3 = Unsqueeze(pixel_size, axis_1)
  first_3 = Unsqueeze(first, axis_1)
  from_first = Mul(middle, pixel_size_3)
  place_xy = Add(from_first, first_3)
  ones_shape = Concat<axis = 0>(num_rois_1, num_keypoints_1, axis_1)
  visible = Expand(one_f, ones_shape)
  keypoints = Concat<axis = 2>(place_xy, visible)
"""


def add_keypoints_function(model: onnx.ModelProto) -> None:
    """Add the function of the nodes that `dynamo_translation` wrote, if there are any."""
    nodes = [node for node in model.graph.node if (node.domain, node.op_type) == (DOMAIN, NAME)]
    if not nodes or any(each.name == NAME for each in model.functions):
        return
    opset = next(each.version for each in model.opset_import if each.domain in STANDARD_DOMAINS)
    text = function(NAME, [], ("maps", "rois"), ("keypoints", "scores"), _NODES, opset)
    model.functions.append(parse(text))
