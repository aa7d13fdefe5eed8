"""Memory of RoiAlign's CPU kernels: they touch nothing beyond a tensor, and little beside it.

Each test runs in another process: a kernel that leaves a tensor crashes, and the memory that is
measured is that process's.
"""

from __future__ import annotations

import ctypes
import mmap
from typing import Any

import numpy as np
import onnxruntime
import pytest
from plugin import Device, forced_kernels, make_model, make_session, random_inputs
from scratch import scratch_bytes

MODES = ("avg", "max")
MIB = 2**20

# What a call of two threads may take beside its inputs and outputs, of what it touches: a block of
# 64 bytes for each of up to 40000 cells for either thread, 5 MiB together, however many the machine
# has cores for and the call has reserved; up to 8 MiB of lists in three arrays; and some numbers
# for each RoI and for each part of the work, with the allocator's rounding on top.
MOST_SCRATCH_BYTES = 24 * MIB


class GuardedArray:
    """An array that ends, or begins, at a page that nobody may touch."""

    def __init__(self, shape: Any, dtype: Any, at_end: bool) -> None:
        count, size = int(np.prod(shape)), np.dtype(dtype).itemsize
        inner = -(-count * size // mmap.PAGESIZE) * mmap.PAGESIZE
        self._memory = mmap.mmap(-1, inner + 2 * mmap.PAGESIZE)
        begin = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        for guard in (begin, begin + mmap.PAGESIZE + inner):
            protect(guard)
        offset = mmap.PAGESIZE + (inner - count * size if at_end else 0)
        self.beyond = begin + (mmap.PAGESIZE + inner if at_end else mmap.PAGESIZE - 1)
        self.array = np.frombuffer(self._memory, dtype, count, offset).reshape(shape)


def protect(page: int) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    arguments = ctypes.c_void_p(page), ctypes.c_size_t(mmap.PAGESIZE), ctypes.c_int(0)  # PROT_NONE
    assert library.mprotect(*arguments) == 0, ctypes.get_errno()


def touch_the_guard(at_end: bool) -> None:
    ctypes.string_at(GuardedArray((3, 5), np.float32, at_end).beyond, 1)


@pytest.mark.parametrize("at_end", [True, False])
def test_guards_hold(other_process, at_end):
    with pytest.raises(AssertionError, match="the process crashed"):
        other_process.call(touch_the_guard, at_end)


# Channels, height and width of the map, height and width in bins, RoIs.
GUARDED = {
    "one cell": (1, (1, 1), (1, 1), 3),
    "narrower than a vector": (5, (4, 3), (3, 5), 6),
    "one row": (19, (1, 37), (1, 7), 6),
    "one column": (19, (37, 1), (7, 1), 6),
    "odd width": (35, (9, 17), (7, 7), 12),
    "width of some vectors and one": (17, (6, 33), (3, 9), 12),
    "wide": (4, (5, 131), (2, 13), 12),
    "few channels": (3, (7, 37), (3, 17), 12),
    "few channels of a narrow map": (2, (7, 5), (2, 3), 12),
    "beyond the buffer of bins": (34, (11, 29), (17, 16), 5),
    "one bin beyond the buffer": (34, (5, 29), (257, 1), 4),
    "one bin beyond the buffer of one vector": (4, (5, 29), (2049, 1), 4),
    "one bin beyond the buffer of narrow blocks": (7, (11, 29), (19, 27), 4),
    "streamed": (67, (23, 31), (14, 14), 120),
}


def guarded_inputs(type_name: str, shape: str, sampling_ratio: int) -> tuple[Any, Any]:
    channels, (height, width), (bins_y, bins_x), num_rois = GUARDED[shape]
    box_type = "float64" if type_name == "float64" else "float32"
    inputs = random_inputs(
        np.random.default_rng(num_rois),
        type_name,
        rois_type=box_type,
        num_images=2,
        channels=channels,
        height=height,
        width=width,
        num_rois=num_rois,
        spatial_scale=1.0,
    )
    # All of the map, in the first image, in the last one and at the end of the list: its first and
    # its last cell are read.
    inputs["rois"][[0, 1, -1]] = [-0.5, -0.5, width + 0.5, height + 0.5]
    inputs["batch_indices"][[0, 1, -1]] = [0, 1, 1]
    size = {"output_height": bins_y, "output_width": bins_x, "sampling_ratio": sampling_ratio}
    return inputs, size


def run_guarded(device: Device, isa: str, path: str, type_name: str, mode: str) -> None:
    """Runs all shapes with guards at the end, and at the beginning, of each tensor."""
    for number, shape in enumerate(GUARDED):
        inputs, attributes = guarded_inputs(type_name, shape, sampling_ratio=number % 3)
        types = {name: array.dtype for name, array in inputs.items()}
        model = make_model("RoiAlign", {"mode": mode, **attributes}, types)
        with forced_kernels(isa, path):
            session = make_session(model, device, threads=2)
            (expected,) = session.run(None, inputs)
            for at_end in (True, False):
                y = run_between_guards(session, inputs, expected, at_end)
                np.testing.assert_array_equal(y, expected, err_msg=shape)


def run_between_guards(session: Any, inputs: Any, expected: Any, at_end: bool) -> Any:
    binding = session.io_binding()
    guarded = {}  # a value is a view of its array, which therefore has to outlive it
    for name, array in [*inputs.items(), ("Y", expected)]:
        guarded[name] = GuardedArray(array.shape, array.dtype, at_end)
        guarded[name].array[...] = np.nan if name == "Y" else array
        value = onnxruntime.OrtValue.ortvalue_from_numpy(guarded[name].array)
        assert value.data_ptr() == guarded[name].array.ctypes.data, "onnxruntime made a copy"
        bind = binding.bind_ortvalue_output if name == "Y" else binding.bind_ortvalue_input
        bind(name, value)
    session.run_with_iobinding(binding)
    return guarded["Y"].array.copy()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("type_name", ["float32", "float16", "float64"])
def test_nothing_beyond_a_tensor_is_touched(cpu_device, other_process, isa, path, type_name, mode):
    other_process.call(run_guarded, cpu_device, isa, path, type_name, mode)


def most_scratch(device: Device, path: str, mode: str, num_images: int, num_rois: int) -> int:
    """How many bytes a call takes beside its inputs and outputs, all of which are resident."""
    rng = np.random.default_rng(0)
    channels, size = 512 // num_images, 200
    corner = rng.uniform(0, 150, (num_rois, 2))
    inputs = {
        "X": np.ones((num_images, channels, size, size), np.float32),
        "rois": np.concatenate([corner, corner + rng.uniform(5, 50, (num_rois, 2))], axis=1),
        "batch_indices": rng.integers(0, num_images, num_rois),
    }
    inputs["rois"] = inputs["rois"].astype(np.float32)
    types = {name: array.dtype for name, array in inputs.items()}
    attributes = {"mode": mode, "output_height": 7, "output_width": 7, "sampling_ratio": 2}
    model = make_model("RoiAlign", attributes, types)
    with forced_kernels("baseline", path):
        session = make_session(model, device, threads=2)
        # A small call first, for what a session sets up at its first one.
        session.run(None, {name: array[:1] for name, array in inputs.items()} | no_boxes())
        y = np.full((num_rois, channels, 7, 7), np.nan, np.float32)
        return scratch_bytes(session, inputs, {"Y": y})


def no_boxes() -> dict[str, Any]:
    return {"rois": np.zeros((0, 4), np.float32), "batch_indices": np.zeros(0, np.int64)}


@pytest.mark.unsanitized  # which needs memory of its own
@pytest.mark.parametrize(
    ("mode", "num_images", "num_rois"), [("avg", 1, 2000), ("max", 1, 2000), ("max", 8, 6000)]
)
def test_scratch_memory_is_bounded(cpu_device, other_process, path, mode, num_images, num_rois):
    other_process.end()  # memory that an earlier call left behind would be used again
    taken = other_process.call(most_scratch, cpu_device, path, mode, num_images, num_rois)
    print(taken)
    assert taken < MOST_SCRATCH_BYTES
