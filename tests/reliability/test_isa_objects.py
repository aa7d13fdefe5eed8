"""The objects that are compiled for other processors hold no code that others could pick up.

The linker keeps one of several weak definitions of a function, such as those of an inline function
in a header, and it may be the one with instructions that the processor at hand lacks.
"""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest

OBJECTS = {
    "avx2.cpp.o": "ort_roialign::cpu::kAvx2Kernels",
    "avx512.cpp.o": "ort_roialign::cpu::kAvx512Kernels",
}

pytestmark = [
    pytest.mark.unsanitized,  # it builds without
    pytest.mark.skipif(
        platform.machine() not in ("x86_64", "AMD64"),
        reason=f"{platform.machine()} has one instruction set",
    ),
]


def symbols(build_tree: Path, name: str) -> dict[str, str]:
    """The letters by which nm tells the kinds of an object's symbols."""
    nm = shutil.which("nm")
    if nm is None:
        pytest.skip("nm is missing; install binutils")
    (found,) = build_tree.rglob(f"ort_roialign_isa_kernels.dir/**/{name}")
    command = [nm, "--demangle", "--format=posix", found]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    lines = (re.fullmatch(r"(.+) ([A-Za-z])( [0-9a-f]+)*\s*", line) for line in listed.splitlines())
    return {line[1]: line[2] for line in lines if line}


@pytest.mark.parametrize("name", list(OBJECTS))
def test_object_defines_its_table_and_nothing_else(isa_build_tree, name):
    kinds = symbols(isa_build_tree, name)
    assert not [symbol for symbol, kind in kinds.items() if kind in "WVuvw"]
    # Capital letters are for names that other objects see; U is one that this object looks for.
    seen = [symbol for symbol, kind in kinds.items() if kind.isupper() and kind != "U"]
    assert seen == [OBJECTS[name]]
    assert kinds[OBJECTS[name]] in "DR"
    # The kernels are there, for this object alone.
    assert any("pool_packed" in symbol and kind == "t" for symbol, kind in kinds.items())


@pytest.mark.parametrize("name", list(OBJECTS))
def test_object_needs_nothing_but_the_compilers_own_functions(isa_build_tree, name):
    needed = {symbol for symbol, kind in symbols(isa_build_tree, name).items() if kind == "U"}
    memory = {"memcpy", "memmove", "memset"}
    assert needed <= memory | {"_GLOBAL_OFFSET_TABLE_", "__stack_chk_fail"}
