"""Devices under test: CPU kernels, CUDA kernels run on the host, and a GPU where there is one.

Also the instruction sets and the paths that the CPU forward pass is built for.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from plugin import Device, make_model, make_session

import ort_roialign

ROOT = Path(__file__).resolve().parent.parent
ON_HOST_OVERRIDE = "ORT_ROIALIGN_CUDA_ON_HOST_LIBRARY"
BUILD_TREE_OVERRIDE = "ORT_ROIALIGN_BUILD_TREE"

# What a processor must have for an instruction set's kernels, in the words of /proc/cpuinfo.
CPU_FLAGS = {
    "baseline": (),
    "avx2": ("avx2", "fma", "f16c"),
    "avx512": ("avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512dq", "avx512vl"),
}


def build_library(directory: Path, target: str, *options: str) -> Path:
    """Builds one target of the project's CMake build and returns the path of the library it is."""
    cmake = shutil.which(
        "cmake", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    )
    assert cmake, "cmake is missing; install the extra `test`"
    for command in (
        [cmake, "-S", ROOT, "-B", directory, *options],
        [cmake, "--build", directory, "--target", target, "--parallel"],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return directory / f"lib{target}.so"


@pytest.fixture(scope="session")
def cuda_on_host_library(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The CUDA kernels' source compiled for the host; a variable can name one built before."""
    override = os.environ.get(ON_HOST_OVERRIDE)
    if override:
        return override
    directory = tmp_path_factory.mktemp("cuda_on_host")
    options = ("-DORT_ROIALIGN_CUDA=OFF", "-DORT_ROIALIGN_CUDA_ON_HOST=ON")
    return str(build_library(directory, "ort_roialign_cuda_on_host", *options))


@pytest.fixture(scope="session")
def isa_build_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build of the CPU kernels' objects; a variable can name a build tree made before."""
    override = os.environ.get(BUILD_TREE_OVERRIDE)
    if override:
        return Path(override)
    directory = tmp_path_factory.mktemp("isa_kernels")
    build_library(directory, "ort_roialign_isa_kernels", "-DORT_ROIALIGN_CUDA=OFF")
    return directory


@pytest.fixture(scope="session")
def cpu_device() -> Device:
    return Device("cpu", ort_roialign.get_library_path(), "CPUExecutionProvider")


@pytest.fixture(scope="session")
def cuda_on_host_device(cuda_on_host_library: str) -> Device:
    return Device("cuda_on_host", cuda_on_host_library, "CPUExecutionProvider")


@pytest.fixture(scope="session")
def cuda_device() -> Device:
    """A GPU; skips with the reason where there is none."""
    provider = "CUDAExecutionProvider"
    if provider not in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has no CUDAExecutionProvider; install onnxruntime-gpu")
    if not ort_roialign.build_info()["cuda"]:
        pytest.skip("the library was built without CUDA kernels")
    onnxruntime.preload_dlls()
    device = Device("cuda", ort_roialign.get_library_path(), provider)
    types = {"X": np.dtype("f4"), "rois": np.dtype("f4"), "batch_indices": np.dtype("i8")}
    try:
        make_session(make_model("RoiAlign", {}, types), device)
    except Exception as error:  # whatever keeps the provider from starting
        pytest.skip(f"CUDAExecutionProvider does not start, so there is no usable GPU: {error}")
    return device


@pytest.fixture(
    params=[
        "cpu",
        "cuda_on_host",
        pytest.param("cuda", marks=pytest.mark.gpu),
    ]
)
def device(request: pytest.FixtureRequest) -> Device:
    """Each device in turn."""
    chosen: Device = request.getfixturevalue(f"{request.param}_device")
    return chosen


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """Random numbers of the test's own, the same in every run."""
    seed = [ord(letter) for letter in request.node.nodeid]
    return np.random.default_rng(seed)


def lacking_flags(isa: str) -> str:
    """What this processor lacks for an instruction set; empty where it lacks nothing."""
    if isa != "baseline" and platform.machine() not in ("x86_64", "AMD64"):
        return f"{isa} on {platform.machine()}"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("flags"):
            return ", ".join(flag for flag in CPU_FLAGS[isa] if flag not in line.split())
    return ", ".join(CPU_FLAGS[isa])


@pytest.fixture(params=list(CPU_FLAGS))
def isa(request: pytest.FixtureRequest) -> str:
    """Each instruction set of the CPU kernels in turn; skips those that this processor lacks."""
    name: str = request.param
    if lacking := lacking_flags(name):
        pytest.skip(f"this processor lacks {lacking}")
    assert name in ort_roialign.build_info()["cpu_isas"], "the processor has it, the build does not"
    return name


@pytest.fixture(params=["packed", "direct"])
def path(request: pytest.FixtureRequest) -> str:
    """Each fast path of the CPU forward pass in turn."""
    name: str = request.param
    return name


class OtherProcess:
    """A process that calls functions, so that a crash there is an error here."""

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None

    def call(self, function: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
        """Returns what the function returns, or raises what it raises."""
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(max_workers=1, mp_context=context)
        try:
            return self._pool.submit(function, *arguments, **keywords).result()
        except BrokenProcessPool:
            self.end()
            raise AssertionError("the process crashed") from None

    def end(self) -> None:
        """Ends the process; the next call starts another."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None


@pytest.fixture(scope="module")
def other_process() -> Iterator[OtherProcess]:
    process = OtherProcess()
    yield process
    process.end()
