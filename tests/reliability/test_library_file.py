"""The shared library as a file: what it shows to the outside, and what it says of itself."""

from __future__ import annotations

import ctypes
import importlib.resources
import json
import shutil
import subprocess
from typing import Any

import pytest

import ort_roialign

TYPES = ["float32", "float64", "float16", "bfloat16"]
ALIGN_ATTRIBUTES = [
    "mode",
    "output_height",
    "output_width",
    "sampling_ratio",
    "spatial_scale",
    "coordinate_transformation_mode",
]
POOL_ATTRIBUTES = ["output_height", "output_width", "spatial_scale"]
FORWARD_INPUTS = ["X", "rois", "batch_indices"]


@pytest.fixture(scope="module")
def info() -> dict[str, Any]:
    return ort_roialign.build_info()


def dynamic_symbols(which: str) -> str:
    """What nm lists of the library's dynamic symbols."""
    nm = shutil.which("nm")
    if nm is None:
        pytest.skip("nm is missing; install binutils")
    command = [nm, "-D", which, ort_roialign.get_library_path()]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_exports_its_c_functions_and_no_more():
    names = sorted(line.split()[-1] for line in dynamic_symbols("--defined-only").splitlines())
    assert names == [
        "RegisterCustomOps",
        "ort_roialign_build_info",
        "ort_roialign_cpu_state",
        "ort_roialign_infer",
        "ort_roialign_run",
        "ort_roialign_translate",
    ]


def test_build_info_of_the_build(info):
    assert info["version"] == ort_roialign.__version__
    assert info["ort_api_version"] >= 18
    assert info["cpu_isas"][0] == "baseline"
    assert all(isinstance(feature, str) for feature in info["cpu_features"])
    if info["cuda"]:
        assert info["cuda_version"]
        assert info["cuda_architectures"]
    else:
        assert info["cuda"] is False
        assert info["cuda_version"] == ""
        assert info["cuda_architectures"] == []


@pytest.mark.parametrize(
    ("name", "inputs", "outputs", "attributes"),
    [
        ("RoiAlign", FORWARD_INPUTS, ["Y"], ALIGN_ATTRIBUTES),
        ("RoiAlignGrad", ["dY", *FORWARD_INPUTS], ["dX"], ALIGN_ATTRIBUTES),
        ("RoiPool", FORWARD_INPUTS, ["Y", "argmax"], POOL_ATTRIBUTES),
        ("RoiPoolGrad", ["dY", *FORWARD_INPUTS], ["dX"], POOL_ATTRIBUTES),
    ],
)
def test_build_info_of_an_operator(info, name, inputs, outputs, attributes):
    (operator,) = (entry for entry in info["operators"] if entry["name"] == name)
    providers = ["CPUExecutionProvider"] + ["CUDAExecutionProvider"] * info["cuda"]
    assert operator == {
        "name": name,
        "types": TYPES,
        "providers": providers,
        "inputs": inputs,
        "outputs": outputs,
        "attributes": attributes,
    }


def test_build_info_is_the_same_json_at_each_call():
    describe = ctypes.CDLL(ort_roialign.get_library_path()).ort_roialign_build_info
    describe.restype = ctypes.c_void_p
    first, second = describe(), describe()
    assert first == second
    assert json.loads(ctypes.string_at(first).decode()) == ort_roialign.build_info()


def test_library_needs_no_symbol_of_onnxruntime():
    # It gets all it uses by a pointer, so that it loads beside any release, linked or not.
    library = ctypes.CDLL(ort_roialign.get_library_path(), mode=ctypes.RTLD_GLOBAL)
    assert library.RegisterCustomOps
    assert "Ort" not in dynamic_symbols("--undefined-only")


def test_package_is_marked_as_typed():
    assert (importlib.resources.files("ort_roialign") / "py.typed").is_file()
