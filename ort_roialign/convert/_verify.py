"""Runs the original and the converted file on the same inputs, and compares their outputs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ort_roialign.convert._sessions import make_session
from ort_roialign.errors import InvalidArgumentError, OrtRoiAlignError

Array = npt.NDArray[Any]

# Largest difference of an element: a share of its own value, and of the output's largest one, or of
# 1 where that is less. Kernels sum in other orders; a whole detector enlarges that.
RELATIVE_TOLERANCE = 1e-4
ABSOLUTE_TOLERANCE = 1e-3
# What a size that may vary becomes: images, channels, height and width, or boxes.
_FREE_IMAGE_SIZES = (1, 3, 320, 416)
_FREE_ROWS = 24
# Boxes of all levels, some narrower than a cell, some across the image's border.
_BOX_SIDES = (0.5, 2000.0)
_FIRST_CORNER = -50.0
_TYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
}


@dataclass(frozen=True)
class OutputDifference:
    """How an output of the converted model differs from the original's.

    Attributes:
        name: the output's name.
        shape: its shape, from the converted model.
        largest: largest difference of an element; infinite where shapes differ.
        passed: whether that is within tolerance.
        note: what else there is to say, such as that rows were matched.
    """

    name: str
    shape: tuple[int, ...]
    largest: float
    passed: bool
    note: str = ""


def compare_files(
    original: str | os.PathLike[str],
    converted: str | os.PathLike[str],
    *,
    feeds: Mapping[str, npt.ArrayLike] | None = None,
    seed: int = 0,
    libraries: Sequence[str | os.PathLike[str]] = (),
) -> list[OutputDifference]:
    """Run two files on the same inputs and compare their outputs.

    Args:
        original: the file that was converted. Operators that onnxruntime lacks run on this
            package's kernels for them.
        converted: what it became.
        feeds: input name -> value; by default random ones of the inputs' types and shapes.
        seed: of the random inputs.
        libraries: custom-operator libraries that other nodes need.

    Returns:
        The difference of each output, in the model's order.

    Raises:
        InvalidArgumentError: if the feeds are not the model's inputs, or an input is of a type that
            cannot be drawn.
        OrtRoiAlignError: if a model does not load or run.
    """
    outputs = []
    values: dict[str, Array] | None = None
    for path in (Path(original), Path(converted)):
        try:
            session = make_session(path, libraries)
        except Exception as error:  # onnxruntime's errors have no common class
            raise OrtRoiAlignError(f"verify: {path} does not load: {error}") from error
        if values is None:
            values = draw_feeds(session, seed) if feeds is None else check_feeds(session, feeds)
        names = [each.name for each in session.get_outputs()]
        try:
            results = session.run(names, values)
        except Exception as error:
            raise OrtRoiAlignError(f"verify: {path} does not run: {error}") from error
        outputs.append(dict(zip(names, map(np.asarray, results), strict=True)))
    return compare_outputs(*outputs)


def compare_outputs(
    expected: Mapping[str, Array], actual: Mapping[str, Array]
) -> list[OutputDifference]:
    """Compare outputs by name; detections of one image, as torchvision has them, in any order."""
    plain = [_difference(name, expected[name], actual[name]) for name in expected]
    roles = _detection_outputs(expected)
    if roles is not None and not all(each.passed for each in plain):
        return _match_rows(roles, expected, actual)
    in_order = "rows were compared in their order, which near-equal scores may change"
    return [
        each if each.passed or not each.shape else replace(each, note=each.note or in_order)
        for each in plain
    ]


def draw_feeds(session: Any, seed: int) -> dict[str, Array]:
    """Draw the inputs of a session at random, the same for a seed.

    Images and maps are of values 0 to 1. A matrix of 4, 5 or 6 columns is boxes, with the image in
    front where there are 5 or 6, and integers are numbers of images.

    Raises:
        InvalidArgumentError: if an input is of another type.
    """
    rng = np.random.default_rng(seed)
    sizes: dict[str, int] = {}
    shapes = {each.name: _shape(each.shape, sizes) for each in session.get_inputs()}
    images = min((shape[0] for shape in shapes.values() if len(shape) == 4), default=1)
    feeds = {}
    for each in session.get_inputs():
        if each.type not in _TYPES:
            raise InvalidArgumentError(
                f"verify: inputs must be tensors of {', '.join(_TYPES)}; {each.name} is "
                f"{each.type}; give inputs of your own with --npz"
            )
        dtype, shape = np.dtype(_TYPES[each.type]), shapes[each.name]
        if dtype.kind in "iu":
            value: Array = rng.integers(0, images, shape)
        elif dtype.kind == "b":
            value = rng.random(shape) < 0.5
        elif len(shape) == 2 and shape[1] in (4, 5, 6):
            value = _draw_boxes(rng, shape, images)
        else:
            value = rng.random(shape)
        feeds[each.name] = value.astype(dtype)
    return feeds


def _shape(shape: Sequence[int | str | None], sizes: dict[str, int]) -> tuple[int, ...]:
    """Choose the sizes that may vary; those of one name are equal."""
    image = len(shape) in (3, 4)
    free = _FREE_IMAGE_SIZES[-len(shape) :] if image else (_FREE_ROWS, 4)
    chosen = []
    for axis, size in enumerate(shape):
        default = free[axis] if axis < len(free) else 1
        if isinstance(size, int) and size >= 0:
            chosen.append(size)
        elif isinstance(size, str):
            chosen.append(sizes.setdefault(size, default))
        else:
            chosen.append(default)
    return tuple(chosen)


def _draw_boxes(rng: np.random.Generator, shape: tuple[int, ...], images: int) -> Array:
    """Draw boxes as corners; with 6 columns as centre, sides and angle."""
    rows, columns = shape
    least, most = np.log(_BOX_SIDES)
    sides = np.exp(rng.uniform(least, most, (rows, 2)))
    corners = rng.uniform(_FIRST_CORNER, _FREE_IMAGE_SIZES[2], (rows, 2))
    numbers = rng.integers(0, images, (rows, 1))
    if columns == 6:
        return np.concatenate([numbers, corners, sides, rng.uniform(-3, 3, (rows, 1))], axis=1)
    boxes = np.concatenate([corners, corners + sides], axis=1)
    return boxes if columns == 4 else np.concatenate([numbers, boxes], axis=1)


def check_feeds(session: Any, feeds: Mapping[str, npt.ArrayLike]) -> dict[str, Array]:
    """Return inputs as a session takes them: float64 as float32, and so on.

    Raises:
        InvalidArgumentError: if they are not the session's inputs, or of other kinds of numbers.
    """
    given = session.get_inputs()
    if set(feeds) != {each.name for each in given}:
        raise InvalidArgumentError(
            f"verify: the given inputs must be the model's, {sorted(e.name for e in given)}; got "
            f"{sorted(feeds)}"
        )
    checked = {}
    for each in given:
        value = np.asarray(feeds[each.name])
        dtype = np.dtype(_TYPES.get(each.type, value.dtype))
        if not np.can_cast(value.dtype, dtype, "same_kind"):
            raise InvalidArgumentError(
                f"verify: the given inputs must be of the model's types; {each.name} is "
                f"{each.type}; got {value.dtype}"
            )
        checked[each.name] = value.astype(dtype)
    return checked


def _difference(name: str, expected: Array, actual: Array, note: str = "") -> OutputDifference:
    if expected.shape != actual.shape:
        return OutputDifference(
            name, actual.shape, np.inf, False, f"the original's shape is {expected.shape}"
        )
    if expected.size == 0:
        return OutputDifference(name, actual.shape, 0.0, True, note or "empty")
    if expected.dtype.kind not in "fiub":
        same = bool(np.array_equal(expected, actual))
        return OutputDifference(name, actual.shape, 0.0 if same else np.inf, same, note)
    e, a = expected.astype(np.float64), actual.astype(np.float64)
    # Equal infinities and two NaNs are no difference.
    same_places = (e == a) | (np.isnan(e) & np.isnan(a))
    with np.errstate(invalid="ignore"):
        differences = np.where(same_places, 0.0, np.abs(e - a))
    largest = float(np.nan_to_num(differences, nan=np.inf).max())
    sizes = np.where(np.isfinite(e), np.abs(e), 0.0)
    allowed = RELATIVE_TOLERANCE * sizes + ABSOLUTE_TOLERANCE * min(float(sizes.max()), 1.0)
    if expected.dtype.kind != "f":
        allowed = np.zeros_like(allowed)
    passed = bool(np.all(differences <= allowed))
    return OutputDifference(name, actual.shape, largest, passed, note)


def _detection_outputs(outputs: Mapping[str, Array]) -> dict[str, str] | None:
    """Return which outputs are boxes [D, 4], labels [D] and scores [D], if there is one of each."""
    boxes = [n for n, o in outputs.items() if o.ndim == 2 and o.shape[1] == 4]
    labels = [n for n, o in outputs.items() if o.ndim == 1 and o.dtype.kind in "iu"]
    scores = [n for n, o in outputs.items() if o.ndim == 1 and o.dtype.kind == "f"]
    if not len(boxes) == len(labels) == len(scores) == 1:
        return None
    return {"boxes": boxes[0], "labels": labels[0], "scores": scores[0]}


def _match_rows(
    roles: Mapping[str, str], expected: Mapping[str, Array], actual: Mapping[str, Array]
) -> list[OutputDifference]:
    """Compare detections as sets: near-equal scores swap rows, or fall on either side of a cut."""
    from ort_roialign.cli.matching import match_detections

    e, a = ({role: given[name] for role, name in roles.items()} for given in (expected, actual))
    matching = match_detections(e, a)
    explained = matching.unmatched_explained
    note = f"{len(matching.pairs)} of {len(e['scores'])} and {len(a['scores'])} rows matched"
    rows = [list(each) for each in zip(*matching.pairs, strict=True)] or [[], []]
    differences = []
    for name in expected:
        if name in roles.values():
            # Within a pair, boxes and scores are within match_detections' tolerances.
            pair = _difference(name, expected[name][rows[0]], actual[name][rows[1]], note)
            shape, passed = actual[name].shape, explained and bool(matching.pairs)
            differences.append(OutputDifference(name, shape, pair.largest, passed, note))
        elif len(expected[name]) == len(e["scores"]) and len(actual[name]) == len(a["scores"]):
            differences.append(
                _difference(name, expected[name][rows[0]], actual[name][rows[1]], note)
            )
        else:
            differences.append(_difference(name, expected[name], actual[name]))
    return differences
