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
