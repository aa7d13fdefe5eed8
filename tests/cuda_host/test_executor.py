"""The executor that runs CUDA kernels on the host finds the mistakes that a GPU would punish.

Without this, kernels that pass on the host would prove nothing of their barriers.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
BLOCKS, THREADS = 3, 8
ORDERS = ("forward", "reversed")


@pytest.fixture(scope="session")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small kernels of executor_probe.cpp, compiled."""
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
    assert compiler, "there is no C++ compiler; set CXX to one"
    program = tmp_path_factory.mktemp("probe") / "executor_probe"
    sources = [
        Path(__file__).with_name("executor_probe.cpp"),
        ROOT / "src/cuda/on_host/executor.cpp",
    ]
    flags = ["-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-I", ROOT / "src"]
    done = subprocess.run(
        [*compiler.split(), *flags, *sources, "-o", program],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return program


def run_kernels(probe: Path, order: str, *kernels: str) -> tuple[int, list[str]]:
    done = subprocess.run(
        [probe, *kernels],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=os.environ | {"ORT_ROIALIGN_THREAD_ORDER": order},
    )
    assert done.returncode in (0, 2), done.stderr
    return done.returncode, done.stdout.splitlines()


def results_of(probe: Path, order: str, kernel: str) -> np.ndarray:
    """What each thread of each block found, [BLOCKS, THREADS]."""
    status, (line,) = run_kernels(probe, order, kernel)
    assert status == 0, line
    return np.array(line.split(), np.float64).reshape(BLOCKS, THREADS)


@pytest.mark.parametrize("order", ORDERS)
def test_threads_and_blocks_have_their_indices(probe, order):
    block, thread = np.mgrid[:BLOCKS, :THREADS]
    expected = 1000 * BLOCKS + 100 * THREADS + 10 * block + thread
    np.testing.assert_array_equal(results_of(probe, order, "indices"), expected)


@pytest.mark.parametrize("order", ORDERS)
def test_kernel_with_all_barriers_is_right_in_any_order(probe, order):
    block, thread = np.mgrid[:BLOCKS, :THREADS]
    expected = 3 * (100 * block + (thread + 1) % THREADS) + 10 + 20
    np.testing.assert_array_equal(results_of(probe, order, "right_barriers"), expected)


@pytest.mark.parametrize("kernel", ["no_barrier_before_reading", "no_barrier_before_writing_again"])
def test_missing_barrier_shows_in_the_order_of_threads(probe, kernel):
    forward, backward = (results_of(probe, order, kernel) for order in ORDERS)
    assert not np.array_equal(forward, backward, equal_nan=True)


def test_missing_barrier_before_reading_reads_not_a_number(probe):
    # Forward, only the last thread's neighbour has written before; reversed, all but thread 7's.
    finite = np.isfinite(results_of(probe, "forward", "no_barrier_before_reading"))
    np.testing.assert_array_equal(finite, np.tile(np.arange(THREADS) == 7, (BLOCKS, 1)))
    finite = np.isfinite(results_of(probe, "reversed", "no_barrier_before_reading"))
    np.testing.assert_array_equal(finite, np.tile(np.arange(THREADS) != 7, (BLOCKS, 1)))


@pytest.mark.parametrize("order", ORDERS)
def test_shared_memory_that_none_wrote_is_not_a_number(probe, order):
    result = results_of(probe, order, "reads_what_none_wrote")
    np.testing.assert_array_equal(np.isnan(result), np.tile(np.arange(8) == 5, (BLOCKS, 1)))
    result = results_of(probe, order, "reads_what_another_block_wrote")
    np.testing.assert_array_equal(result[0], np.ones(THREADS))
    assert np.isnan(result[1:]).all()


def test_scratch_memory_starts_as_not_a_number(probe):
    _, (value,) = run_kernels(probe, "forward", "first_of_scratch")
    assert np.isnan(float(value))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("kernel", "waiting"), [("barrier_of_some_threads", 3), ("a_barrier_more_in_some_threads", 4)]
)
def test_divergent_barrier_is_an_error_and_the_next_kernel_runs(probe, order, kernel, waiting):
    status, (error, after) = run_kernels(probe, order, kernel, "indices")
    assert status == 2
    assert error == f"a barrier was reached by {waiting} of a block's 8 threads"
    assert after.split()[:2] == ["3800", "3801"]


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ("struct Layout { char bytes[48 * 1024]; };", None),
        ("struct Layout { char bytes[48 * 1024 + 1]; };", "does not fit"),
        ("struct Layout { int value = 7; };", "no constructors"),
    ],
)
def test_shared_layouts_that_a_gpu_refuses_do_not_compile(tmp_path, layout, message):
    source = tmp_path / "layout.cpp"
    source.write_text(
        '#include "cuda/on_host/device.h"\n'
        f"{layout}\n"
        "void touch() { ort_roialign::cuda::block_shared<Layout>(); }\n"
    )
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
    assert compiler, "there is no C++ compiler; set CXX to one"
    done = subprocess.run(
        [*compiler.split(), "-std=c++17", "-fsyntax-only", "-I", ROOT / "src", source],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode == 0) == (message is None), done.stderr
    assert message is None or message in done.stderr
