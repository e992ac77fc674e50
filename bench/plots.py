"""The plot of the README, drawn from the results by matplotlib, which is installed on demand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from bench.installing import PLOT, UnavailableError, python_packages
from bench.machine import ROOT

PICTURE = ROOT / "docs" / "images" / "benchmarks.png"
DRAW = PLOT / "draw.py"


def draw(results: Path, picture: Path = PICTURE) -> Path:
    """Draw the picture and return its path. Raises `UnavailableError` if matplotlib or the results are not there."""
    if not (results / "peers.json").exists():
        raise UnavailableError(f"there is no {results / 'peers.json'}; run: python -m bench peers")
    packages = python_packages(PLOT)
    environment = {**os.environ, "PYTHONPATH": str(packages), "MPLCONFIGDIR": str(packages)}
    picture.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(DRAW), str(results), str(picture)]
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    if done.returncode:
        raise UnavailableError(f"the plot failed: {done.stderr.strip().splitlines()[-1]}")
    return picture
