"""What the figures were measured on, without naming the machine."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from importlib.metadata import version
from pathlib import Path


def facts(*, has_one_core: bool) -> dict[str, str]:
    shared = " (one core only: the load takes time from the proxy)" if has_one_core else ""
    return {
        "CPU": f"{cpu_model()}, {os.cpu_count()} cores{shared}",
        "system": f"Linux {platform.release().split('-')[0]}, "
        f"{platform.python_implementation()} {platform.python_version()} ({build()}), "
        f"h11 {version('h11')}, trio {version('trio')}",
        "load": f"wrk {_first_number('wrk', '-v')}; upstream: nginx {_first_number('nginx', '-v')}",
    }


def build() -> str:
    """Whether the interpreter was optimised by profiles, which takes a tenth of the CPU away."""
    is_asked_for = "--enable-optimizations" in str(sysconfig.get_config_var("CONFIG_ARGS"))
    is_debians = sys.base_prefix == "/usr"  # which asks its makefile for it, not `configure`
    return "optimised by profiles" if is_asked_for or is_debians else "not optimised by profiles"


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
