"""Programs outside Python that some tests need: installed where possible, otherwise reported in one line.

A test calls `require`. If the program is missing, the test is skipped on a laptop, and fails in CI.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.installing import install_all

PROGRAMS = {"promtool": "prometheus", "prometheus": "prometheus", "strace": "strace", "npm": "npm"}
"""Program → the Debian package that contains it."""

NODE_PROJECTS = tuple(sorted(Path(__file__).parent.glob("*/package.json")))
"""Projects that are installed with npm."""


def require(program: str) -> str:
    """The path of a program; skips the test if it is missing, or fails it in CI."""
    found = shutil.which(program)
    if found is None:
        missing(f"{program} is missing: apt-get install {PROGRAMS.get(program, program)}")
    return str(found)


def missing(reason: str) -> None:
    """Skip the test, or fail it in CI, where nothing may be missing."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def install() -> Iterator[str]:
    """Install what is missing; yields a line for everything that could not be installed."""
    wanted = sorted({package for program, package in PROGRAMS.items() if shutil.which(program) is None})
    if wanted and not _apt(wanted):
        yield f"Some tests will be skipped. To run them too: apt-get install {' '.join(wanted)}"
    for project in NODE_PROJECTS:
        if shutil.which("npm") and not _is_installed(project.parent):
            done = subprocess.run(["npm", "ci", "--silent"], cwd=project.parent, check=False)
            if done.returncode:
                yield f"Some tests will be skipped: npm ci failed in {project.parent}"
    for problem in install_all():
        yield f"Some tests will be skipped: {problem}"


def _is_installed(project: Path) -> bool:
    """Whether npm has installed what the lock file of the project names now."""
    done, lock = project / "node_modules" / ".package-lock.json", project / "package-lock.json"
    return done.exists() and done.stat().st_mtime >= lock.stat().st_mtime


def _apt(packages: list[str]) -> bool:
    """Install Debian packages; returns False if that is not possible."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return False
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for arguments in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
        done = subprocess.run(["apt-get", "-qq", *arguments], env=environment, check=False, stdout=subprocess.DEVNULL)
        if done.returncode:
            return False
    return True
