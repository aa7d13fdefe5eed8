"""The stopwatch of the benchmark, with a clock that tests turn by hand."""

from __future__ import annotations

import gc
import itertools
import math
import os

import numpy as np
import pytest

from ort_roialign.benchmarks import disturbance, measure
from ort_roialign.benchmarks.measure import (
    MOST_CALLS_A_SAMPLE,
    MOST_ROUNDS,
    PAUSE_SECONDS,
    SHORTEST_SAMPLE_SECONDS,
    Effort,
    Timing,
    geometric_mean,
    measure_interleaved,
)


class Clock:
    """Time that passes only when a contestant runs."""

    def __init__(self):
        self.now = 0.0
        self.log = []

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.log.append(seconds)
        self.now += seconds

    def contestant(self, name, seconds):
        durations = itertools.cycle(seconds)

        def run():
            self.log.append(name)
            self.now += next(durations)

        return run


def test_each_contestant_gets_its_own_time_once_a_round():
    clock = Clock()
    contestants = {name: clock.contestant(name, [s]) for name, s in (("a", 2.0), ("b", 5.0))}
    times = measure_interleaved(contestants, Effort(7, 0), clock, clock.sleep)
    assert times["a"].samples == pytest.approx((2.0,) * 7)
    assert times["b"].samples == pytest.approx((5.0,) * 7)
    assert clock.log[:6] == [PAUSE_SECONDS, "a", "a", PAUSE_SECONDS, "b", "b"]  # to warm up
    assert clock.log[6::2] == [PAUSE_SECONDS] * 14
    rounds = np.array(clock.log[7::2]).reshape(7, 2)
    assert all(sorted(turn) == ["a", "b"] for turn in rounds)
    assert {turn[0] for turn in rounds} == {"a", "b"}, "the order never changed"


def test_the_first_call_is_not_timed():
    clock = Clock()
    slow_start = clock.contestant("a", [100.0] + [1.0] * 50)
    times = measure_interleaved({"a": slow_start}, Effort(5, 0), clock, clock.sleep)
    assert times["a"].samples == pytest.approx((1.0,) * 5)


def test_a_sample_of_short_calls_is_their_mean():
    clock = Clock()
    seconds = SHORTEST_SAMPLE_SECONDS / 4
    times = measure_interleaved(
        {"a": clock.contestant("a", [seconds])}, Effort(3, 0), clock, clock.sleep
    )
    assert clock.log == [PAUSE_SECONDS, "a", "a"] + 3 * ([PAUSE_SECONDS, "a"] + 4 * ["a"])
    assert times["a"].samples == pytest.approx((seconds,) * 3)
    clock = Clock()
    measure_interleaved({"a": clock.contestant("a", [0.0])}, Effort(1, 0), clock, clock.sleep)
    assert clock.log.count("a") == 2 + 1 + MOST_CALLS_A_SAMPLE


def test_cheap_calls_get_more_rounds_but_not_without_end():
    clock = Clock()
    times = measure_interleaved(
        {"a": clock.contestant("a", [1.0])}, Effort(3, 10), clock, clock.sleep
    )
    assert len(times["a"].samples) == 10
    times = measure_interleaved(
        {"a": clock.contestant("a", [1.0])}, Effort(3, 1e9), clock, clock.sleep
    )
    assert len(times["a"].samples) == MOST_ROUNDS


def test_garbage_collection_pauses_and_resumes_even_after_an_error():
    calls = itertools.count()

    def fails_when_timed():
        if next(calls) > 1:
            assert not gc.isenabled()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        measure_interleaved({"a": fails_when_timed}, Effort(2, 0))
    assert gc.isenabled()


def test_median_quartiles_and_spread():
    timing = Timing((5.0, 1.0, 2.0, 4.0, 3.0))
    assert timing.median == 3
    assert timing.quartiles == (2, 4)
    assert timing.spread == pytest.approx(1 / 3)
    assert timing.facts == {
        "median": 3,
        "first_quartile": 2,
        "third_quartile": 4,
        "minimum": 1,
        "rounds": 5,
    }


def test_geometric_mean():
    assert geometric_mean([2, 8]) == pytest.approx(4)
    assert math.isnan(geometric_mean([]))


def test_processor_time_of_others_is_told_from_our_own(monkeypatch, tmp_path):
    second = os.sysconf("SC_CLK_TCK")
    file, now, own = tmp_path / "stat", [0.0], [0.0]
    monkeypatch.setattr(disturbance, "_PROCESSOR_TIMES", file)
    monkeypatch.setattr(disturbance.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(disturbance.os, "times", lambda: (own[0], 0, 0, 0, 0))
    file.write_text(f"cpu 0 0 0 {7 * second} 0 0 0 0 0 0\ncpu0 0\n")
    counted = disturbance.Disturbance()
    # In ten seconds 16 of processor time, 12 of them ours; idle time counts for nothing.
    columns = (13, 0, 1, 900, 900, 0, 0, 2)
    file.write_text("cpu " + " ".join(str(value * second) for value in columns) + " 0 0\n")
    now[0], own[0] = 10.0, 12.0
    assert counted.cores() == pytest.approx(0.4)
    file.unlink()
    assert disturbance.Disturbance().cores() == 0


def test_the_real_clock_is_the_default():
    assert measure.measure_interleaved({"a": lambda: None}, Effort(2, 0))["a"].median >= 0
