"""What the figures were measured on, without naming the machine."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path


def facts(*, has_one_core: bool) -> dict[str, str]:
    shared = " (one core only: the load takes time from the proxy)" if has_one_core else ""
    return {
        "CPU": f"{cpu_model()}, {os.cpu_count()} cores{shared}",
        "system": f"Linux {platform.release().split('-')[0]}, "
        f"{platform.python_implementation()} {platform.python_version()}, "
        f"h11 {version('h11')}, trio {version('trio')}",
        "load": f"wrk {_first_number('wrk', '-v')}; upstream: nginx {_first_number('nginx', '-v')}",
    }


def cpu_model() -> str:
    """As the kernel names it, without trade marks and clock rate."""
    found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    name = found[1] if found else platform.machine()
    return re.sub(r"\((?:R|TM)\)|\s+@.*$", "", name)


def tool_version(program: str, *arguments: str) -> str | None:
    """The first version number that a program prints; None if it is not installed."""
    if shutil.which(program) is None:
        return None
    return _first_number(program, *arguments)


def _first_number(program: str, *arguments: str) -> str:
    done = subprocess.run(
        [program, *arguments], capture_output=True, text=True, timeout=10, check=False
    )
    found = re.search(r"\d+\.\d+(?:\.\d+)?", done.stdout + done.stderr)
    return found[0] if found else "?"
