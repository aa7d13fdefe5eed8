"""Pieces of function text that several operators share, and the way from text to FunctionProto."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
import onnx.parser

# ReduceSum takes its axes as an input since opset 13, the other reductions since opset 18.
_AXES_INPUT_SINCE = {"ReduceSum": 13, "ReduceMax": 18}


def parse(text: str) -> onnx.FunctionProto:
    """Turn function text into a FunctionProto; a line's part after `#` is a comment."""
    lines = (line.partition("#")[0].rstrip() for line in text.splitlines())
    return onnx.parser.parse_function("\n".join(line for line in lines if line))


def reduction(result: str, operator: str, value: str, axes: Sequence[int], opset: int) -> str:
    """Return nodes that reduce `value` over `axes` into `result`, dropping those axes."""
    if opset >= _AXES_INPUT_SINCE[operator]:
        return (
            f"{result}_axes = Constant<value_ints = {list(axes)}>()\n"
            f"    {result} = {operator}<keepdims = 0>({value}, {result}_axes)"
        )
    return f"{result} = {operator}<axes = {list(axes)}, keepdims = 0>({value})"


def string_equals(result: str, attribute: str, wanted: str) -> str:
    """Return nodes that set the scalar bool `result` to whether a string attribute is `wanted`.

    Equal takes strings only from opset 19 on; Unique takes them in every opset: the two strings
    are equal if they hold one distinct string.
    """
    return f"""
  {result}_given = Constant<value_string: string = @{attribute}>()
  {result}_wanted = Constant<value_string = "{wanted}">()
  {result}_one_element = Constant<value_ints = [1]>()
  {result}_given_1 = Reshape({result}_given, {result}_one_element)
  {result}_wanted_1 = Reshape({result}_wanted, {result}_one_element)
  {result}_both = Concat<axis = 0>({result}_given_1, {result}_wanted_1)
  {result}_distinct = Unique({result}_both)
  {result}_num_distinct = Size({result}_distinct)
  {result}_expected = Constant<value_int = 1>()
  {result} = Equal({result}_num_distinct, {result}_expected)
"""


def map_as_cells(feature_map: str) -> str:
    """Return nodes that lay a map [N, C, H, W] out for gathering, and bound a Loop over RoIs.

    They set `cells` [N*H*W, C], `image_start` [R], `height`, `width`, `num_rois`, `num_rois_1`,
    `num_channels_1` and `always`, from `X`, `rois`, `batch_indices`, `zero`, `one`, `axis_0` and
    `axis_1`.
    """
    return f"""
  # One row a cell, so that a cell's channels are one contiguous row.
  map_shape = Shape(X)
  num_channels = Gather(map_shape, one)
  height_at = Constant<value_int = 2>()
  width_at = Constant<value_int = 3>()
  height = Gather(map_shape, height_at)
  width = Gather(map_shape, width_at)
  cells_per_image = Mul(height, width)
  num_images = Gather(map_shape, zero)
  num_cells = Mul(num_images, cells_per_image)
  num_cells_1 = Reshape(num_cells, axis_1)
  num_channels_1 = Reshape(num_channels, axis_1)
  cells_shape = Concat<axis = 0>(num_cells_1, num_channels_1)
  X_channels_last = Transpose<perm = [0, 2, 3, 1]>({feature_map})
  cells = Reshape<allowzero = 1>(X_channels_last, cells_shape)        # [N*H*W, C]
  # Gather takes -1 for the last row; the number of images is an index that it refuses.
  is_negative = Less(batch_indices, zero)
  image = Where(is_negative, num_images, batch_indices)
  image_start = Mul(image, cells_per_image)                           # [R]
  num_rois_1 = Shape<start = 0, end = 1>(rois)
  num_rois = Squeeze(num_rois_1, axis_0)
  always = Cast<to = 9>(one)
"""
