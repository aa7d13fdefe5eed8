"""Devices under test: CPU kernels, CUDA kernels run on the host, and a GPU where there is one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from plugin import Device, make_model, make_session

import ort_roialign

ROOT = Path(__file__).resolve().parent.parent
ON_HOST_OVERRIDE = "ORT_ROIALIGN_CUDA_ON_HOST_LIBRARY"


def build_library(directory: Path, target: str, *options: str) -> Path:
    """Builds one target of the project's CMake build and returns the library's path."""
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
