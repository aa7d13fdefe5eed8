"""How long a call would take if it only moved its data: the least that any kernel can reach.

Read what the boxes cover of the map once, write the output once, at the speed at which this machine
copies arrays that no cache holds.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ort_roialign.benchmarks.problems import Call

# Each of the two arrays is several times as large as a last-level cache.
COPIED_BYTES = 256 << 20
COPIES = 9
FLOAT32_BYTES = 4


def copy_speed(threads: int, copied_bytes: int = COPIED_BYTES) -> float:
    """Measure how fast large arrays are copied.

    Args:
        threads: threads that copy, each its own part.
        copied_bytes: size of the array.

    Returns:
        Bytes a second, read and written ones both counted; the median of some copies.
    """
    source = np.ones(copied_bytes // FLOAT32_BYTES, np.float32)
    target = np.full_like(source, 2)
    sources, targets = np.array_split(source, threads), np.array_split(target, threads)
    seconds = []
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(COPIES + 1):
            start = time.perf_counter()
            list(pool.map(np.copyto, targets, sources))
            seconds.append(time.perf_counter() - start)
    return 2 * source.nbytes / statistics.median(seconds[1:])


def touched_cells(call: Call) -> int:
    """Return how many cells of the map, in all images, lie in any box of the call.

    A box covers the cells that bilinear interpolation between its edges reads.
    """
    images, _, height, width = call.x.shape
    covered = np.zeros((images, height, width), bool)
    edges = call.rois.astype(np.float64) / call.stride - 0.5
    low = np.floor(np.maximum(edges[:, :2], 0)).astype(int)
    high = np.minimum(np.floor(edges[:, 2:]).astype(int) + 1, [width - 1, height - 1])
    for image, (x1, y1), (x2, y2) in zip(call.batch_indices, low, high, strict=True):
        covered[image, y1 : y2 + 1, x1 : x2 + 1] = True
    return int(covered.sum())


def moved_bytes(calls: Sequence[Call]) -> int:
    """Return the bytes that calls have to read of their maps and to write as output, float32."""
    elements: int = sum(
        touched_cells(call) * call.x.shape[1] + math.prod(call.output_shape) for call in calls
    )
    return elements * FLOAT32_BYTES
