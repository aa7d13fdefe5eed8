"""Memory that PasteMasks takes on the CPU beside its inputs and outputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from plugin import Device, make_paste_masks_model, make_session
from scratch import scratch_bytes

MIB = 2**20
CELLS = 28
NUM_MASKS = 8
THREADS = 2
# A thread holds, for each column of the image, 16 bytes of where it reads a mask and two rows of
# stretched values; and one row of the mask with its frame.
PER_COLUMN = 16 + 2 * 4
PER_FRAMED_CELL = 4
ROUNDING = 4 * MIB  # the allocator's


def bound(width: int, padding: int) -> int:
    per_thread = PER_COLUMN * width + PER_FRAMED_CELL * (CELLS + 2 * padding)
    return THREADS * per_thread + ROUNDING


def most_scratch(
    device: Device, height: int, width: int, padding: int, threshold: float | None
) -> int:
    """How many bytes a call takes beside its inputs and outputs, all of which are resident."""
    masks = np.ones((NUM_MASKS, 1, CELLS, CELLS), np.float32)
    boxes = np.tile(np.array([[0, 0, width, height]], np.float32), (NUM_MASKS, 1))
    attributes: dict[str, Any] = {"padding": padding}
    y = np.full((NUM_MASKS, 1, height, width), np.nan, np.float32)
    if threshold is not None:
        attributes["threshold"] = threshold
        y = np.full(y.shape, 77, np.uint8)
    model = make_paste_masks_model(masks, boxes, attributes)
    session = make_session(model, device, threads=THREADS)
    # A small call first, for what a session sets up at its first one.
    session.run(None, {"masks": masks[:1], "boxes": boxes[:1], "image_size": np.array([2, 2])})
    feeds = {"masks": masks, "boxes": boxes, "image_size": np.array([height, width])}
    return scratch_bytes(session, feeds, {"Y": y})


@pytest.mark.unsanitized  # which needs memory of its own
@pytest.mark.parametrize(
    ("height", "width", "padding", "threshold"),
    [
        (300, 2000, 1, None),
        (16, 200_000, 1, None),
        (16, 200_000, 1, 0.5),
        (300, 2000, 2**20, None),
    ],
)
def test_scratch_memory_is_bounded(cpu_device, other_process, height, width, padding, threshold):
    other_process.end()  # memory that an earlier call left behind would be used again
    taken = other_process.call(most_scratch, cpu_device, height, width, padding, threshold)
    print(f"{taken / MIB:.1f} of {bound(width, padding) / MIB:.1f} MiB")
    assert taken < bound(width, padding)
