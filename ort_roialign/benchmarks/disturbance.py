"""How much of the machine other processes took while something was measured."""

from __future__ import annotations

import os
import time
from pathlib import Path

_PROCESSOR_TIMES = Path("/proc/stat")
# The first line, after the word cpu: user, nice, system, idle, iowait, irq, softirq, steal.
_BUSY_COLUMNS = (0, 1, 2, 5, 6, 7)


class Disturbance:
    """Counts from its creation on."""

    def __init__(self) -> None:
        self._others = _seconds_of_others()
        self._start = time.monotonic()

    def cores(self) -> float:
        """Return how many cores other processes kept busy, on average until now."""
        seconds = _seconds_of_others() - self._others
        return max(seconds, 0.0) / max(time.monotonic() - self._start, 1e-3)


def _seconds_of_others() -> float:
    """Return the processor time of all other processes, the machine's host included.

    0 where the kernel does not tell.
    """
    try:
        first_line = _PROCESSOR_TIMES.read_text(encoding="ascii").splitlines()[0]
    except OSError:
        return 0.0
    ticks = [int(column) for column in first_line.split()[1:]]
    busy = sum(ticks[column] for column in _BUSY_COLUMNS) / os.sysconf("SC_CLK_TCK")
    return busy - sum(os.times()[:4])
