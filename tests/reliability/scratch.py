"""How much memory a call of a session takes beside its inputs and outputs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

Array = np.ndarray[Any, Any]


def scratch_bytes(
    session: onnxruntime.InferenceSession, inputs: Mapping[str, Array], outputs: Mapping[str, Array]
) -> int:
    """Runs a session in a process of its own, and returns the most that was resident besides.

    Args:
        session: of one operator.
        inputs: by name; resident already.
        outputs: by name, of the right shapes; their first values must be those of a poison, so
            that they are resident, and are replaced.
    """
    binding = session.io_binding()
    for name, array in inputs.items():
        binding.bind_cpu_input(name, array)
    # A value is a view of its array, which therefore has to outlive it.
    for name, array in outputs.items():
        binding.bind_ortvalue_output(name, onnxruntime.OrtValue.ortvalue_from_numpy(array))
    Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM back to VmRSS
    before = _most_resident()
    session.run_with_iobinding(binding)
    after = _most_resident()
    for name, array in outputs.items():
        assert not np.isnan(array).any(), f"{name} has elements that were not written"
    return after - before


def _most_resident() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("/proc/self/status has no VmHWM")
