"""Runs a command as a user does, with nothing in its environment but what is given."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from sandbox.pipeline import ROOT


def run(*command: str, environment: dict[str, str], cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        command, env={"PATH": path, **environment}, cwd=cwd, check=False, capture_output=True, text=True, timeout=100
    )
