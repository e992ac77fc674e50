"""Runs the external programs that check the deployed files."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from tests.needs import missing, require

ROOT = Path(__file__).parent.parent.parent


def promtool(*arguments: str | Path) -> str:
    """Run promtool, the checker of Prometheus; returns its output."""
    return _output(require("promtool"), *arguments)


def installed(name: str, *arguments: str | Path) -> str:
    """Run a program that is installed with the `dev` extra; returns its output."""
    program = shutil.which(name, path=Path(sys.executable).parent) or shutil.which(name)
    if program is None:
        missing(f"{name} is missing: pip install --editable '.[dev]' (it is there for Linux on x86_64)")
    return _output(str(program), *arguments)


def _output(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
