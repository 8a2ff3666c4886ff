"""How long a process and a core have worked."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

#: Of /proc, in a second.
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Reading:
    """The clocks at one moment, in seconds."""

    at: float
    #: What a server has used.
    cpu: float
    #: What everybody has used of the cores that it is pinned to.
    cores: float

    def until(self, last: Reading) -> dict[str, float]:
        """The seconds passed, and the shares of them that the server and all others worked."""
        passed = last.at - self.at
        cpu = last.cpu - self.cpu
        others = max(0.0, last.cores - self.cores - cpu)
        return {"seconds": passed, "busy": cpu / passed, "others": others / passed}


def of_process(pid: int) -> float:
    """The CPU clock of another process; 0 if it has just ended."""
    try:
        return time.clock_gettime(~pid << 3 | 2)  # clock_getcpuclockid(3), which Python lacks
    except OSError:
        return 0.0


def of_cores(cores: Iterable[int]) -> float:
    """How long the cores have worked; /proc/stat has ticks of 10 ms."""
    names = {f"cpu{core}" for core in cores}
    ticks = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *times = line.split()
        if name in names:
            user, nice, system, _idle, _iowait, *interrupts_and_stolen = map(int, times[:8])
            ticks += user + nice + system + sum(interrupts_and_stolen)
    return ticks / TICKS
