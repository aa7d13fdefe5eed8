"""Where the numbers come from: processor, versions, instruction set."""

from __future__ import annotations

import importlib
import os
import platform
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import ort_roialign

_CPU_INFO = Path("/proc/cpuinfo")
_PACKAGES = ("onnxruntime", "torch", "torchvision", "numpy")


@dataclass(frozen=True)
class Machine:
    """What a result depends on besides the code.

    Attributes:
        cpu: the processor's name.
        cores: processors that this process may use.
        threads: threads of every contestant.
        isa: instruction set of the kernels that ran.
        versions: package -> version; packages that are missing are left out.
        copy_bytes_per_second: speed of copying large arrays, bytes read and written.
        load: processes that ran or waited on average over the minute before the start.
        date: start, UTC.
    """

    cpu: str
    cores: int
    threads: int
    isa: str
    versions: dict[str, str]
    copy_bytes_per_second: float
    load: float
    date: str

    @property
    def title(self) -> str:
        """One line for plots and tables."""
        packages = (
            f"{name} {self.versions[name].partition('+c')[0]}"  # torchvision's +cpu, +cu130
            for name in ("ort_roialign", "onnxruntime", "torchvision")
            if name in self.versions
        )
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        return ", ".join([self.cpu, threads, self.isa, *packages])

    @property
    def facts(self) -> dict[str, Any]:
        """All attributes."""
        return asdict(self)


def available_cores() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0))


def describe_machine(threads: int, copy_bytes_per_second: float, load: float) -> Machine:
    """Describe this machine.

    Args:
        threads: threads of every contestant.
        copy_bytes_per_second: as measured.
        load: load average before anything was measured.
    """
    return Machine(
        cpu=_cpu_name(),
        cores=available_cores(),
        threads=threads,
        isa=ort_roialign.cpu_state()["isa"],
        versions=_versions(),
        copy_bytes_per_second=copy_bytes_per_second,
        load=load,
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )


def _cpu_name() -> str:
    if _CPU_INFO.is_file():
        for line in _CPU_INFO.read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    versions = {"ort_roialign": ort_roialign.__version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = str(importlib.import_module(name).__version__)
        except ImportError:
            continue
    return versions
