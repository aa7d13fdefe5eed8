"""Memory that the CPU kernels which work cell by cell take beside inputs and outputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from plugin import INPUTS, OUTPUTS, Device, forced_kernels, make_model, make_session
from scratch import scratch_bytes

MIB = 2**20
SIZE = 200  # of the maps, in cells
BINS = 7
NUM_ROIS = 2000
MOST_SLOPES = 5  # numbers of a RoI

# As docs/cpu.md has it, for two threads and float32: blocks of a line of 64 bytes a cell, one for
# each thread; for a maximum's gradient also the map's; a table of lists; for the gradients of boxes
# and offsets four lines of the map and sums; numbers for each box; and the allocator's rounding.
BLOCKS = 2 * 64 * SIZE**2
LISTS = 12 * MIB
PER_ROI = 250 * NUM_ROIS
ROUNDING = 4 * MIB
SLOPES = 4 * 64 * SIZE**2 + 8 * NUM_ROIS * max(MOST_SLOPES, 2 * BINS**2)


def bound(operator: str, attributes: dict[str, Any]) -> int:
    gradient = operator.endswith("Grad")
    maximum = operator == "RoiPoolGrad" or attributes.get("mode") == "max"
    most = BLOCKS * (2 if gradient and maximum else 1) + LISTS + PER_ROI + ROUNDING
    moves = operator in ("PrRoiPoolGrad", "DeformRoiPoolGrad")
    return most + SLOPES if moves else most


def inputs_of(operator: str, channels: int) -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(0)
    corner, side = rng.uniform(0, 150, (NUM_ROIS, 2)), rng.uniform(5, 50, (NUM_ROIS, 2))
    columns = [corner, corner + side]
    if "Rotated" in operator:
        columns = [corner, side, rng.uniform(-3, 3, (NUM_ROIS, 1))]
    map_channels = channels * (BINS**2 if operator.startswith("Ps") else 1)
    values = {
        "X": np.ones((1, map_channels, SIZE, SIZE), np.float32),
        "rois": np.concatenate(columns, axis=1).astype(np.float32),
        "batch_indices": np.zeros(NUM_ROIS, np.int64),
        "offset": rng.standard_normal((NUM_ROIS, 2, BINS, BINS)).astype(np.float32),
        "dY": rng.standard_normal((NUM_ROIS, channels, BINS, BINS)).astype(np.float32),
    }
    return {name: values[name] for name in INPUTS[operator]}


def most_scratch(device: Device, operator: str, attributes: dict[str, Any]) -> int:
    """How many bytes a call takes beside its inputs and outputs, all of which are resident."""
    channels = 8 if operator.startswith("Ps") else 256
    inputs = inputs_of(operator, channels)
    types = {name: array.dtype for name, array in inputs.items()}
    size = {"output_height": BINS, "output_width": BINS}
    model = make_model(operator, {**size, **attributes}, types, outputs=None)
    outputs = {
        name: np.full(
            inputs[name[1:]].shape if name.startswith("d") else (NUM_ROIS, channels, BINS, BINS),
            np.nan,
            np.float32,
        )
        for name in OUTPUTS[operator]
    }
    with forced_kernels("baseline", "packed"):
        session = make_session(model, device, threads=2)
        # A small call first, for what a session sets up at its first one.
        small = {name: array[:1] for name, array in inputs.items()}
        session.run(None, {**small, "X": np.ascontiguousarray(inputs["X"][..., :4, :4])})
        return scratch_bytes(session, inputs, outputs)


CASES: list[tuple[str, dict[str, Any]]] = [
    ("RoiAlignGrad", {"sampling_ratio": 2}),
    ("RoiAlignGrad", {"sampling_ratio": 2, "mode": "max"}),
    ("RoiAlignRotated", {"sampling_ratio": 2}),
    ("RoiAlignRotatedGrad", {}),
    ("RoiPoolGrad", {}),
    ("PsRoiAlign", {}),
    ("PsRoiPoolGrad", {}),
    ("PrRoiPool", {}),
    ("PrRoiPoolGrad", {}),
    ("DeformRoiPoolGrad", {"sampling_ratio": 2}),
]


@pytest.mark.unsanitized  # which needs memory of its own
@pytest.mark.parametrize(("operator", "attributes"), CASES)
def test_scratch_memory_is_bounded(cpu_device, other_process, operator, attributes):
    other_process.end()  # memory that an earlier call left behind would be used again
    taken = other_process.call(most_scratch, cpu_device, operator, attributes)
    print(f"{taken / MIB:.1f} of {bound(operator, attributes) / MIB:.1f} MiB")
    assert 0 < taken < bound(operator, attributes)
