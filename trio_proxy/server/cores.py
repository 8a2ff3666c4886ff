"""How many cores there are to use."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from trio_proxy.settings import MAX_WORKERS, Settings


def worker_count(settings: Settings) -> int:
    """The number of processes that serve."""
    if settings.workers == "auto":
        return min(usable_cores(), MAX_WORKERS)
    return settings.workers


def usable_cores(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Cores that this process may run on at the same time, at least 1.

    It heeds the process's affinity (sched_setaffinity(2)) and the quotas of its control groups
    (``cpu.max`` of cgroup v2, rounded up): a container often sees all of its host's cores and may
    use two.
    """
    quotas = [math.ceil(quota) for quota in _quotas(proc, cgroups)]
    return max(1, min([_affinity(), *quotas]))


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quotas(proc: Path, cgroups: Path) -> Iterator[float]:
    """The quota of our group and of each group around it, in cores."""
    own = _own_group(proc)
    for group in (own, *own.parents):
        try:
            quota, period = (cgroups / group / "cpu.max").read_text().split()
            if quota != "max":
                yield int(quota) / int(period)
        except (OSError, ValueError, ZeroDivisionError):  # none, or not of this form
            continue


def _own_group(proc: Path) -> PurePosixPath:
    """The path of our group below the root (cgroups(7)); the root if it is not known."""
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        lines = []
    paths = [line.removeprefix("0::/") for line in lines if line.startswith("0::/")]
    return PurePosixPath(*paths[:1])
