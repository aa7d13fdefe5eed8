"""What the CUDA kernels take of a GPU, as ptxas reports it; no GPU is needed for that.

A spill or a stack frame means local memory, which is as slow as the device's memory. The variable
ORT_ROIALIGN_CUDA_ARCHS narrows the architectures, as it does for the build: `90` or `80-real;90`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import ort_roialign

ROOT = Path(__file__).resolve().parent.parent.parent
ALL_ARCHITECTURES = "75;80;86;89;90;100;120"
ARCHITECTURES = [
    name.partition("-")[0]
    for name in (os.environ.get("ORT_ROIALIGN_CUDA_ARCHS") or ALL_ARCHITECTURES).split(";")
]

MOST_SHARED_BYTES = 48 * 1024  # what a block has without asking
MOST_REGISTERS = 128  # with 128 threads a block, four blocks fit on a multiprocessor
MOST_REGISTERS_FLOAT64 = 168  # likewise, three blocks

# As the Itanium C++ ABI mangles the element types within the namespace ort_roialign.
MANGLED_TYPES = ("f", "d", "NS_7Float16E", "NS_8BFloat16E")

BOTH = ["Average", "Maximum"]
REDUCTIONS = {
    "RoiAlign": BOTH,
    "MultiScaleRoiAlign": BOTH,
    "RoiAlignRotated": BOTH,
    "MultiScaleRoiAlignRotated": BOTH,
    "RoiPool": ["Maximum"],
}
# Of the gradients of boxes and offsets.
SLOPE_KERNELS = {"PrRoiPool": ["sum_slopes", "sum_shares"], "DeformRoiPool": ["sum_slopes"]}


@dataclass(frozen=True)
class Resources:
    """One kernel's line in the report of ptxas."""

    stack_bytes: int
    spill_bytes: int
    registers: int
    shared_bytes: int


@pytest.fixture(scope="module")
def nvcc() -> str:
    found = os.environ.get("CUDACXX") or shutil.which("nvcc")
    if not found:
        pytest.skip("nvcc is missing; put it on PATH, or set CUDACXX to it")
    return found


def build_flags() -> list[str]:
    """The flags that CMake passes to nvcc."""
    text = (ROOT / "cmake/Cuda.cmake").read_text()
    flags = re.search(r"set\(flags (--.*)\)", text)
    assert flags, "cmake/Cuda.cmake no longer says `set(flags --...)`"
    return ["-std=c++17", "-O3", "-DNDEBUG", *flags[1].split()]


def mangled(name: str) -> str:
    return f"{len(name)}{name}"


def expected_kernels() -> Iterator[str]:
    """The start of each kernel's mangled name, after the namespace."""
    for operator in ort_roialign.build_info()["operators"]:
        if operator["name"].endswith("Grad"):
            continue  # comes with its forward operator
        if operator["name"] == "PasteMasks":
            for element in MANGLED_TYPES:
                own = element if len(element) == 1 else "S"  # a name said before gets a number
                for output in (own, "h"):  # its values, or bytes
                    yield f"{mangled('paste_masks')}I{element}{output}"
            continue
        reductions = REDUCTIONS.get(operator["name"], ["Average"])
        for reduction in reductions:
            for element in MANGLED_TYPES:
                arguments = f"INS_{mangled(operator['name'])}E{element}"
                yield f"{mangled(f'pool_{reduction.lower()}')}{arguments}E"
                gradient = f"NS0_{mangled(f'{reduction}Gradient')}I"
                yield f"{mangled('gather_gradient')}{arguments}{gradient}"
        for kernel in SLOPE_KERNELS.get(operator["name"], []):
            for element in MANGLED_TYPES:
                yield f"{mangled(kernel)}INS_{mangled(operator['name'])}E{element}E"


def parse(report: str) -> dict[str, Resources]:
    """Resources of each kernel by its mangled name."""
    pattern = re.compile(
        r"Compiling entry function '(?P<name>\w+)'.*?"
        r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, "
        r"(?P<loads>\d+) bytes spill loads.*?Used (?P<registers>\d+) registers(?P<rest>[^\n]*)",
        re.DOTALL,
    )
    kernels = {}
    for found in pattern.finditer(report):
        shared = re.search(r"(\d+) bytes smem", found["rest"])
        kernels[found["name"]] = Resources(
            stack_bytes=int(found["stack"]),
            spill_bytes=int(found["stores"]) + int(found["loads"]),
            registers=int(found["registers"]),
            shared_bytes=int(shared[1]) if shared else 0,
        )
    return kernels


def test_flags_forbid_contraction():
    assert "--fmad=false" in build_flags()


@pytest.mark.unsanitized  # nvcc does not run with the sanitizers' libraries preloaded
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_resources(nvcc, tmp_path, architecture):
    known = subprocess.run([nvcc, "--list-gpu-code"], capture_output=True, text=True, check=True)
    if f"sm_{architecture}" not in known.stdout.split():
        pytest.skip(f"this nvcc does not know sm_{architecture}")
    command = [
        *(nvcc, *build_flags(), "-Xptxas", "-v", f"-arch=sm_{architecture}"),
        *("-I", ROOT / "src", "-cubin", ROOT / "src/cuda/kernels.cu"),
        *("-o", tmp_path / "kernels.cubin"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr

    kernels = parse(done.stdout + done.stderr)
    for start in expected_kernels():
        found = [name for name in kernels if name.startswith(f"_ZN12ort_roialign4cuda{start}")]
        assert len(found) == 1, f"{start}: {found}"
    assert len(kernels) == len(list(expected_kernels()))
    for name, resources in kernels.items():
        assert resources.stack_bytes == 0, name
        assert resources.spill_bytes == 0, name
        float64 = re.search(r"(RoiAlign|RoiPool|RoiAlignRotated)Ed", name)
        assert resources.registers <= (MOST_REGISTERS_FLOAT64 if float64 else MOST_REGISTERS), name
        assert resources.shared_bytes <= MOST_SHARED_BYTES, name
    # The report was understood: some kernels share memory, and none does without registers.
    assert any(resources.shared_bytes > 0 for resources in kernels.values())
    assert all(resources.registers > 0 for resources in kernels.values())
