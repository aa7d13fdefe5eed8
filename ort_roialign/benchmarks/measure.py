"""Times contestants side by side: all of them once a round, in a new random order each round.

What disturbs the machine for a while then disturbs all of them, and none always runs after the same
other one.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

# A sample is the mean of as many calls as take this long, so that a clock tick is nothing.
SHORTEST_SAMPLE_SECONDS = 0.004
MOST_CALLS_A_SAMPLE = 200
MOST_ROUNDS = 100
# After a run the threads of an onnxruntime session wait for more work for some 40 ms, and keep the
# cores from others. So the next contestant starts after a pause. Where calls are so short that it
# matters, one that does not count comes first and wakes the contestant's own threads: within a
# detector they are awake when RoIAlign's turn comes.
PAUSE_SECONDS = 0.06
ORDER_SEED = 1


@dataclass(frozen=True)
class Timing:
    """Times of one contestant, in seconds a call.

    Attributes:
        samples: one a round.
    """

    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle of the samples."""
        return float(np.median(self.samples))

    @property
    def quartiles(self) -> tuple[float, float]:
        """The borders between which the middle half of the samples lies."""
        first, third = np.percentile(self.samples, (25, 75))
        return float(first), float(third)

    @property
    def spread(self) -> float:
        """Half the distance between the quartiles, as a part of the median."""
        first, third = self.quartiles
        return (third - first) / 2 / self.median

    @property
    def facts(self) -> dict[str, Any]:
        """What is kept of the samples, for the report."""
        first, third = self.quartiles
        return {
            "median": self.median,
            "first_quartile": first,
            "third_quartile": third,
            "minimum": min(self.samples),
            "rounds": len(self.samples),
        }


@dataclass(frozen=True)
class Effort:
    """How long to measure.

    Attributes:
        rounds: least number of rounds.
        seconds: rounds are added until so much time has passed, pauses included: cheap calls, which
            a disturbance hits harder, so get more of them.
    """

    rounds: int
    seconds: float


def measure_interleaved(
    contestants: Mapping[str, Callable[[], object]],
    effort: Effort,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], object] = time.sleep,
) -> dict[str, Timing]:
    """Time contestants in turn.

    Args:
        contestants: name -> what to call.
        effort: how often.
        clock: seconds; tests give their own.
        sleep: waits for so many seconds; likewise.

    Returns:
        Name -> its times.
    """
    calls = {name: _warm_up(call, clock, sleep) for name, call in contestants.items()}
    samples: dict[str, list[float]] = {name: [] for name in contestants}
    rng = np.random.default_rng(ORDER_SEED)
    names = list(contestants)
    begin = clock()
    gc.disable()
    try:
        for number in range(MOST_ROUNDS):
            if number >= effort.rounds and clock() - begin >= effort.seconds:
                break
            for position in rng.permutation(len(names)):
                name = names[position]
                call = contestants[name]
                sleep(PAUSE_SECONDS)
                if calls[name] > 1:
                    call()
                start = clock()
                for _ in range(calls[name]):
                    call()
                samples[name].append((clock() - start) / calls[name])
    finally:
        gc.enable()
    return {name: Timing(tuple(values)) for name, values in samples.items()}


def _warm_up(
    call: Callable[[], object], clock: Callable[[], float], sleep: Callable[[float], object]
) -> int:
    """Call twice, since the first call allocates; return the number of calls a sample takes."""
    sleep(PAUSE_SECONDS)
    call()
    start = clock()
    call()
    seconds = max(clock() - start, 1e-9)
    return min(max(math.ceil(SHORTEST_SAMPLE_SECONDS / seconds), 1), MOST_CALLS_A_SAMPLE)


def geometric_mean(ratios: Iterable[float]) -> float:
    """Return the geometric mean; NaN of nothing."""
    logarithms = [math.log(ratio) for ratio in ratios]
    return math.exp(sum(logarithms) / len(logarithms)) if logarithms else math.nan
