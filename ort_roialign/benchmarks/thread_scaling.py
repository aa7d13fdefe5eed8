"""How much faster several threads are than one, beside what the machine itself gives to threads.

Cores of a virtual machine are at times halves of one physical core, or shared with other guests.
Then no program is as many times as fast as it has threads. So a product of matrices, which computes
on a few cached numbers and scales as well as anything can, is timed in the same rounds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
from onnx import TensorProto, helper

from ort_roialign.benchmarks.measure import Effort, Timing, measure_interleaved

# A quarter of a gigaflop, on 2 MB: milliseconds on one thread.
MATRIX_SIZE = 512
# The machine gave all its cores to a round in which the product came so near to the ideal.
FREE_CORES = 0.9
# Cores come and go, so this takes more rounds than a comparison on the same cores.
ROUNDS_FACTOR = 2


@dataclass(frozen=True)
class ThreadScaling:
    """Times on one thread and on several.

    Attributes:
        threads: how many several are.
        times: number of threads -> times of this package.
        machine_times: likewise -> times of a product of matrices, in the same rounds.
    """

    threads: int
    times: dict[int, Timing]
    machine_times: dict[int, Timing]

    @property
    def speedup(self) -> float:
        """How many times as fast as on one thread this package is on several."""
        return self.times[1].median / self.times[self.threads].median

    @property
    def machine_speedup(self) -> float:
        """Likewise, the product of matrices."""
        return self.machine_times[1].median / self.machine_times[self.threads].median

    @property
    def free_rounds(self) -> list[int]:
        """The rounds in which the machine gave all its cores."""
        ratios = _ratios(self.machine_times, self.threads)
        return [number for number, ratio in enumerate(ratios) if ratio >= FREE_CORES * self.threads]

    @property
    def free_speedup(self) -> float | None:
        """This package's middle speed-up over the free rounds; None where there is none."""
        rounds = self.free_rounds
        if not rounds:
            return None
        return float(np.median(_ratios(self.times, self.threads)[rounds]))


def measure_scaling(
    runner: Callable[[int], Callable[[], object]], threads: int, effort: Effort
) -> ThreadScaling:
    """Time one thread and several in turn.

    Args:
        runner: makes what is timed, for a number of threads.
        threads: how many several are.
        effort: how often a comparison on the same cores is made.
    """
    counts = sorted({1, threads})
    contestants = {f"ours {count}": runner(count) for count in counts}
    contestants |= {f"machine {count}": matrix_product(count) for count in counts}
    more = Effort(ROUNDS_FACTOR * effort.rounds, ROUNDS_FACTOR * effort.seconds)
    times = measure_interleaved(contestants, more)
    return ThreadScaling(
        threads,
        {count: times[f"ours {count}"] for count in counts},
        {count: times[f"machine {count}"] for count in counts},
    )


def matrix_product(threads: int, size: int = MATRIX_SIZE) -> Callable[[], object]:
    """Return a call that multiplies a square matrix with itself in onnxruntime.

    Args:
        threads: threads of the session.
        size: rows and columns.
    """
    inputs = [helper.make_tensor_value_info("A", TensorProto.FLOAT, [size, size])]
    outputs = [helper.make_tensor_value_info("Y", TensorProto.FLOAT, [size, size])]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["A", "A"], ["Y"])], "product", inputs, outputs
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 16)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    matrix = np.random.default_rng(0).random((size, size), np.float32)
    return lambda: session.run(None, {"A": matrix})


def _ratios(times: dict[int, Timing], threads: int) -> np.ndarray[Any, Any]:
    return np.divide(times[1].samples, times[threads].samples)
