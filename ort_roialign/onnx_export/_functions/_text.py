"""Pieces of function text that several operators share, and the way from text to FunctionProto."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
import onnx.parser

from ort_roialign._domains import DOMAIN, DOMAIN_VERSION

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


# What differs where each bin reads channels of its own. [N, C, PH, PW, H, W] is a view of the map.
_ROWS_OF_MAP = """
  maps_per_image = Identity(one)
  num_channels_1 = Shape<start = 1, end = 2>(X)
  X_rows = Transpose<perm = [0, 2, 3, 1]>(FEATURE_MAP)                # [N, H, W, C]
"""
_ROWS_OF_MAP_BY_BIN = """
  maps_per_image = Mul(output_height, output_width)
  num_map_channels_1 = Shape<start = 1, end = 2>(X)
  num_channels_1 = Div(num_map_channels_1, maps_per_image)
  num_images_1 = Shape<start = 0, end = 1>(X)
  map_size = Shape<start = 2>(X)
  shape_by_bin = Concat<axis = 0>(num_images_1, num_channels_1, num_bins_y, num_bins_x, map_size)
  X_by_bin = Reshape<allowzero = 1>(FEATURE_MAP, shape_by_bin)
  X_rows = Transpose<perm = [0, 2, 3, 4, 5, 1]>(X_by_bin)             # [N, PH, PW, H, W, C]
"""
_CELLS = """
  # One row a cell, so that a cell's channels are one contiguous row.
  map_shape = Shape(X)
  height_at = Constant<value_int = 2>()
  width_at = Constant<value_int = 3>()
  height = Gather(map_shape, height_at)
  width = Gather(map_shape, width_at)
  cells_per_map = Mul(height, width)
  ROWS
  cells_per_image = Mul(cells_per_map, maps_per_image)
  num_images = Gather(map_shape, zero)
  num_cells = Mul(num_images, cells_per_image)
  num_cells_1 = Reshape(num_cells, axis_1)
  cells_shape = Concat<axis = 0>(num_cells_1, num_channels_1)
  cells = Reshape<allowzero = 1>(X_rows, cells_shape)                 # [N*H*W, C]
  # Gather takes -1 for the last row; the number of images is an index that it refuses.
  is_negative = Less(batch_indices, zero)
  image = Where(is_negative, num_images, batch_indices)
  image_start = Mul(image, cells_per_image)                           # [R]
  num_rois_1 = Shape<start = 0, end = 1>(rois)
  num_rois = Squeeze(num_rois_1, axis_0)
  always = Cast<to = 9>(one)
"""


def map_as_cells(feature_map: str, *, channel_per_bin: bool = False) -> str:
    """Return nodes that lay a map [N, C, H, W] out for gathering, and bound a Loop over RoIs.

    They set `cells` [N*H*W, C], `image_start` [R], `cells_per_map`, `height`, `width`, `num_rois`,
    `num_rois_1`, `num_channels_1` and `always`, from `X`, `rois`, `batch_indices`, `zero`, `one`,
    `axis_0`, `axis_1`, and the numbers of bins.

    With `channel_per_bin`, `cells` is [N*PH*PW*H*W, C / (PH*PW)] and `num_channels_1` is the
    smaller number; bin (ph, pw) has its cells `(ph * PW + pw) * cells_per_map` rows further.
    """
    rows = _ROWS_OF_MAP_BY_BIN if channel_per_bin else _ROWS_OF_MAP
    return _CELLS.replace("ROWS", rows).replace("FEATURE_MAP", feature_map)


def of_one_roi(*names: str) -> str:
    """Return nodes inside the Loop that set `<name>_x` and `<name>_y` of RoI `r`, from [R, A, ...].

    Split, not a Gather for each: onnxruntime up to 1.20 makes such a pair a Split itself, and
    rejects the model if it does so twice.
    """
    lines = [""]
    for name in names:
        lines += [
            f"    {name}_r = Gather({name}, r)",
            f"    {name}_one_each = Constant<value_ints = [1, 1]>()",
            f"    {name}_of_x, {name}_of_y = Split<axis = 0>({name}_r, {name}_one_each)",
            f"    {name}_x = Squeeze({name}_of_x, axis_0)",
            f"    {name}_y = Squeeze({name}_of_y, axis_0)",
        ]
    return "\n".join([*lines, ""])


def per_axis(text: str) -> str:
    """Return nodes for the x axis, then for the y axis.

    AXIS stands for x or y, BINS and SIZE for the names of its numbers of bins and of cells.
    """
    return "".join(
        text.replace("AXIS", axis).replace("BINS", bins).replace("SIZE", size)
        for axis, bins, size in (
            ("x", "output_width", "width"),
            ("y", "output_height", "height"),
        )
    )


def function(
    name: str,
    attributes: Sequence[str],
    inputs: Sequence[str],
    outputs: Sequence[str],
    nodes: str,
    opset: int,
) -> str:
    """Return a function of this package's domain in ONNX's text form.

    Args:
        name: operator name without its domain.
        attributes: each as "name: type = default", or a name alone for one without default.
        inputs: names.
        outputs: names.
        nodes: the body.
        opset: default-domain opset of the model that will hold the function; onnxruntime inlines
            the body at the model's opset, whatever the function imports.
    """
    attribute_list = f"<{', '.join(attributes)}>" if attributes else ""  # the form of none at all
    return f"""<opset_import: ["": {opset}, "{DOMAIN}": {DOMAIN_VERSION}], domain: "{DOMAIN}">
{name} {attribute_list} ({", ".join(inputs)}) => ({", ".join(outputs)}) {{
{nodes}
}}"""
