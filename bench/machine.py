"""The machine that a benchmark ran on, and the versions of what it measured: without them a figure means nothing."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parent.parent
PACKAGES = ("aiohttp", "lmdb", "msgspec", "numpy", "openai", "orjson", "pycurl", "pyzmq", "supervisor", "uvloop")


def machine() -> dict[str, Any]:
    """The processor, its cores, the memory, the kernel, and how busy the machine is now."""
    load_1min, load_5min, _ = os.getloadavg()
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_mib": psutil.virtual_memory().total // 2**20,
        "kernel": platform.release(),
        "load_average_1min": round(load_1min, 2),
        "load_average_5min": round(load_5min, 2),
    }


def versions() -> dict[str, str]:
    """Python, Node, the packages in the path of a task, and the commit of this project."""
    commit = _output("git", "-C", str(ROOT), "describe", "--always", "--dirty")
    found = {"python": platform.python_version(), "commit": commit}
    if shutil.which("node"):
        found["node"] = _output("node", "--version")
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _output(*command: str) -> str:
    """What a command prints, or why it did not."""
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError) as error:
        return f"unknown ({type(error).__name__})"
    return done.stdout.strip()
