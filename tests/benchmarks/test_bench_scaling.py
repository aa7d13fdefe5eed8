"""The comparison of one thread with several."""

import pytest

from ort_roialign.benchmarks import thread_scaling
from ort_roialign.benchmarks.measure import Effort, Timing
from ort_roialign.benchmarks.thread_scaling import ThreadScaling, matrix_product, measure_scaling


def test_only_rounds_with_free_cores_count():
    scaling = ThreadScaling(
        2,
        times={1: Timing((6.0, 8.0, 9.0)), 2: Timing((4.0, 4.0, 6.0))},
        machine_times={1: Timing((2.0, 2.0, 1.8)), 2: Timing((1.5, 1.0, 1.0))},
    )
    assert scaling.speedup == 2.0
    assert scaling.machine_speedup == 2.0
    assert scaling.free_rounds == [1, 2]
    assert scaling.free_speedup == pytest.approx((8 / 4 + 9 / 6) / 2)


def test_without_free_cores_there_is_no_free_speedup():
    times = {1: Timing((3.0,)), 4: Timing((1.0,))}
    scaling = ThreadScaling(4, times, machine_times={1: Timing((3.5,)), 4: Timing((1.0,))})
    assert scaling.free_rounds == []
    assert scaling.free_speedup is None
    assert ThreadScaling(4, times, {1: Timing((3.6,)), 4: Timing((1.0,))}).free_speedup == 3


@pytest.mark.parametrize("threads", [1, 3])
def test_both_are_timed_for_each_number_of_threads(monkeypatch, threads):
    called = []

    def contestant(kind):
        return lambda count: lambda: called.append((kind, count))

    monkeypatch.setattr(thread_scaling, "matrix_product", contestant("product"))
    scaling = measure_scaling(contestant("ours"), threads, Effort(2, 0))
    counts = sorted({1, threads})
    assert set(called) == {(kind, count) for kind in ("ours", "product") for count in counts}
    assert list(scaling.times) == list(scaling.machine_times) == counts
    assert len(scaling.times[1].samples) == 2 * thread_scaling.ROUNDS_FACTOR


def test_the_product_multiplies():
    (product,) = matrix_product(2, size=3)()
    (again,) = matrix_product(1, size=3)()
    assert product.shape == (3, 3)
    assert (product > 0).all()
    assert product == pytest.approx(again, rel=1e-6)
