"""PasteMasks against the reference, on every device and in every type, and against torchvision."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
import tolerances
from numpy.testing import assert_allclose, assert_array_equal
from plugin import BFLOAT16, ELEMENT_TYPES, Device, make_paste_masks_model, make_session

from ort_roialign import ops, reference
from ort_roialign.errors import InvalidArgumentError

Array = np.ndarray[Any, Any]


def paste(
    device: Device,
    masks: Array,
    boxes: Array,
    image_size: tuple[int, int],
    *,
    output_type: int | None = None,
    threads: int | None = None,
    **attributes: Any,
) -> Array:
    """Run the operator twice, the second time into poisoned memory; bfloat16 comes as float32."""
    session = make_session(
        make_paste_masks_model(masks, boxes, attributes, output_type), device, threads
    )
    feeds = {"masks": masks, "boxes": boxes, "image_size": np.array(image_size, np.int64)}
    feeds = {
        name: each.astype(np.float32) if each.dtype == BFLOAT16 else each
        for name, each in feeds.items()
    }
    (pasted,) = session.run(None, feeds)
    binding = session.io_binding()
    for name, array in feeds.items():
        binding.bind_cpu_input(name, np.ascontiguousarray(array))
    again = np.full_like(pasted, 77)
    value = onnxruntime.OrtValue.ortvalue_from_numpy(again)
    binding.bind_ortvalue_output("Y", value)
    session.run_with_iobinding(binding)
    assert_array_equal(again, pasted)
    return pasted


def draw(
    rng: np.random.Generator, type_name: str, count: int = 6, sizes: tuple[int, int] = (28, 28)
) -> tuple[Array, Array]:
    """Draw masks and boxes of an image of 90 by 120 pixels, some of them partly outside."""
    centre = rng.uniform(-5, 125, (count, 2))
    side = np.exp(rng.uniform(-1, 5, (count, 2)))
    boxes = np.concatenate([centre - side / 2, centre + side / 2], axis=1)
    dtype = ELEMENT_TYPES[type_name]
    boxes_type = np.float64 if type_name == "float64" else np.float32
    return rng.random((count, 1, *sizes)).astype(dtype), boxes.astype(boxes_type)


SIZE = (90, 120)


@pytest.mark.parametrize("padding", [0, 1, 3])
@pytest.mark.parametrize("sizes", [(28, 28), (1, 1), (5, 9), (140, 131)])
@pytest.mark.parametrize("type_name", list(ELEMENT_TYPES))
def test_equals_the_reference(device, rng, type_name, sizes, padding):
    masks, boxes = draw(rng, type_name, sizes=sizes)
    expected = reference.paste_masks(masks, boxes, SIZE, padding=padding)
    assert expected.max() > 0.1
    y = paste(device, masks, boxes, SIZE, padding=padding)
    assert_allclose(y.astype(np.float64), expected, *tolerances.KERNEL[type_name])


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.0, -1.0, 2.0])
def test_bytes_say_where_the_threshold_is_reached(device, rng, threshold):
    masks, boxes = draw(rng, "float32")
    y = paste(device, masks, boxes, SIZE, threshold=threshold)
    values = reference.paste_masks(masks, boxes, SIZE)
    sure = np.abs(values - threshold) > tolerances.KERNEL["float32"].atol
    expected = reference.paste_masks(masks, boxes, SIZE, threshold=threshold)
    assert y.dtype == expected.dtype == np.uint8
    assert_array_equal(y[sure | (threshold == 0)], expected[sure | (threshold == 0)])


def test_boxes_in_the_half_precision_type_of_the_masks(device, rng):
    masks, boxes = draw(rng, "float16")
    boxes = boxes.astype(np.float16)
    y = paste(device, masks, boxes, SIZE)
    expected = reference.paste_masks(masks, boxes, SIZE)
    assert_allclose(y, expected, *tolerances.KERNEL["float16"])


@pytest.mark.parametrize("threads", [2, 5])
def test_threads_change_no_bit(cpu_device, rng, threads):
    masks, boxes = draw(rng, "float32", count=20)
    one = paste(cpu_device, masks, boxes, (400, 120), threads=1)
    assert_array_equal(paste(cpu_device, masks, boxes, (400, 120), threads=threads), one)


@pytest.mark.parametrize(("count", "size"), [(0, SIZE), (2, (0, 7)), (2, (7, 0)), (3, (1, 1))])
def test_nothing_to_paste_or_little(device, rng, count, size):
    masks, boxes = draw(rng, "float32", count=count)
    y = paste(device, masks, boxes, size)
    assert y.shape == (count, 1, *size)
    assert_allclose(y, reference.paste_masks(masks, boxes, size), *tolerances.KERNEL["float32"])


def test_boxes_far_outside_and_turned_inside_out(device, rng):
    masks, _ = draw(rng, "float32", count=6)
    boxes = np.array(
        [
            [-1e30, -1e30, 1e30, 1e30],
            [500, 500, 600, 600],
            [-90, -90, -20, -20],
            [50, 40, 20, 10],
            [30, 30, 30, 30],
            [0, 0, 119.5, 89.5],
        ],
        np.float32,
    )
    y = paste(device, masks, boxes, SIZE)
    assert_allclose(y, reference.paste_masks(masks, boxes, SIZE), *tolerances.KERNEL["float32"])


LARGEST = {"float32": 3.4e38, "float64": 1.7e308}


@pytest.mark.parametrize("type_name", ["float32", "float64"])
@pytest.mark.parametrize("cells", [1, 28])
@pytest.mark.parametrize("padding", [0, 1, 2**7])
def test_boxes_as_large_as_numbers_go(device, rng, type_name, cells, padding):
    """The growth of a small mask takes the edges of these boxes beyond what the type holds."""
    most = LARGEST[type_name]
    edges = [-most, -0.3 * most, 0, 0.3 * most, most]
    boxes = np.array([[a, b, c, d] for a in edges for c in edges for b, d in ((0, 50), (a, c))])
    boxes = np.concatenate([boxes, boxes[:, [1, 0, 3, 2]]]).astype(ELEMENT_TYPES[type_name])
    masks = rng.random((len(boxes), 1, cells, cells)).astype(boxes.dtype)
    size = (7, 9)
    expected = reference.paste_masks(masks, boxes, size, padding=padding)
    assert np.isfinite(expected).all()
    y = paste(device, masks, boxes, size, padding=padding)
    assert_allclose(y, expected, *tolerances.KERNEL[type_name])


def test_a_huge_box_beside_the_image_grows_over_it(device):
    """Its edges are 1e38 and 3.4e38; a frame of 1 makes a mask of 1 cell three times as large."""
    boxes = np.array([[1e38, 0, 3.4e38, 30]], np.float32)
    y = paste(device, np.ones((1, 1, 1, 1), np.float32), boxes, (30, 40))
    # The image lies between its edges, and far from both: where the cell has its centre.
    assert_allclose(y[0, 0, 15], np.ones(40), *tolerances.KERNEL["float32"])


@pytest.mark.parametrize("sizes", [(28, 28), (9, 31), (30, 7)])
def test_equals_torchvision(device, rng, sizes):
    torch = pytest.importorskip("torch")
    roi_heads = pytest.importorskip("torchvision.models.detection.roi_heads")
    masks, boxes = draw(rng, "float32", count=30, sizes=sizes)
    boxes = np.clip(boxes, 0, 90)  # as detectors clip them to the image
    theirs = roi_heads.paste_masks_in_image(torch.tensor(masks), torch.tensor(boxes), SIZE)
    y = paste(device, masks, boxes, SIZE)
    assert_allclose(y, theirs.numpy(), *tolerances.KERNEL["float32"])
    assert_array_equal(y >= 0.5, theirs.numpy() >= 0.5)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"masks": (6, 2, 4, 4)}, r"masks must have shape \[num_masks, 1, height, width\]; got"),
        ({"masks": (6, 1, 0, 4)}, "masks must have height and width of 1 to 1048576; got"),
        ({"boxes": (5, 4)}, r"boxes must have shape \[num_masks, 4\] = \[6, 4\]; got \[5, 4\]"),
        ({"size": (-1, 3)}, r"image_size must be height and width of 0 to 1073741824; got \[-1, 3"),
        ({"padding": -1}, "attribute padding must be at least 0; got -1"),
        ({"threshold": np.inf}, "attribute threshold must be finite; got inf"),
    ],
)
def test_bad_input(device, rng, change, text):
    masks, boxes = draw(rng, "float32")
    if "masks" in change:
        masks = np.ones(change["masks"], np.float32)
    if "boxes" in change:
        boxes = np.ones(change["boxes"], np.float32)
    attributes = {name: change[name] for name in change if name in ("padding", "threshold")}
    with pytest.raises(Exception, match=f"PasteMasks: {text}"):
        paste(device, masks, boxes, change.get("size", SIZE), **attributes)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("type_name", ["float32", "float64"])
@pytest.mark.parametrize("attributes", [{}, {"threshold": 0.5}, {"threshold": -1.0}])
def test_a_box_that_is_not_finite(device, rng, value, type_name, attributes):
    masks, boxes = draw(rng, type_name)
    boxes[2, 1] = value
    message = r"PasteMasks: boxes\[2\] must have finite coord"
    with pytest.raises(InvalidArgumentError, match=message):
        reference.paste_masks(masks, boxes, SIZE, **attributes)
    if device.fails_on_bad_rois:
        with pytest.raises(Exception, match=message):
            paste(device, masks, boxes, SIZE, **attributes)
        return
    y = paste(device, masks, boxes, SIZE, **attributes)
    assert (y[2] == 0).all() if attributes else np.isnan(y[2]).all()
    assert np.isfinite(np.delete(y, 2, axis=0)).all()


@pytest.mark.parametrize("type_name", list(ELEMENT_TYPES))
def test_numpy_function(rng, type_name):
    masks, boxes = draw(rng, type_name)
    y = ops.paste_masks(masks, boxes, SIZE, padding=2)
    assert y.dtype == masks.dtype
    expected = reference.paste_masks(masks, boxes, SIZE, padding=2)
    assert_allclose(y.astype(np.float64), expected, *tolerances.KERNEL[type_name])
    reached = ops.paste_masks(masks, boxes, list(SIZE), padding=2, threshold=0.5, threads=1)
    assert reached.dtype == np.uint8
    assert_array_equal(reached, y.astype(np.float32) >= 0.5)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            {"masks": np.ones((6, 2, 4, 4), "f")},
            "masks must have shape [num_masks, 1, height, width];",
        ),
        ({"masks": 1.5}, "masks must be an array; got one number"),
        ({"masks": np.ones((6, 1, 4, 4), int)}, "masks must be of type float32, float64, float16"),
        ({"boxes": np.ones((6, 4))}, "boxes must be of type float32, as masks; got float64"),
        ({"boxes": [[0, 1, 2, 3]]}, "boxes must have shape [num_masks, 4] = [6, 4]; got [1, 4]"),
        ({"image_size": (90.5, 3)}, "image_size must be of type int64; got float64"),
        ({"image_size": (90, 3, 1)}, "image_size must have shape [2], height and width; got [3]"),
        (
            {"image_size": np.array([2**64 - 5, 3], np.uint64)},
            "image_size must be integers that int64 holds; got 18446744073709551611",
        ),
        ({"image_size": (2**31, 1)}, "image_size must be height and width of 0 to 1073741824;"),
        ({"padding": 1.0}, "attribute padding must be an integer; got 1.0"),
        ({"threshold": "high"}, "attribute threshold must be a float; got 'high'"),
        ({"threads": -1}, "threads must be in [0, 2147483647]; got -1"),
    ],
)
def test_bad_input_of_the_numpy_function(rng, change, text):
    masks, boxes = draw(rng, "float32")
    given = {"masks": masks, "boxes": boxes, "image_size": SIZE, **change}
    with pytest.raises(InvalidArgumentError) as raised:
        ops.paste_masks(**given)
    assert str(raised.value).startswith(f"PasteMasks: {text}")
