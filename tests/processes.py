"""Runs modules of the service as processes, with our environment and the variables of the test."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import IO

from sandbox.pipeline import ROOT
from tests.samples import ENVIRONMENT


def start_module(module: str, folder: Path, output: int | IO[bytes], **variables: str) -> subprocess.Popen[bytes]:
    """Start a stage with its state in `folder`; its output and errors go to `output`."""
    environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(ROOT), "STATE_DIR": str(folder), **variables}
    command = [sys.executable, "-m", module]
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT)


def run_module(
    *arguments: str, environment: dict[str, str], before: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run `python -m arguments…` to its end, as arguments of the command `before` if there is one."""
    return subprocess.run(
        [*before, sys.executable, "-m", *arguments],
        cwd=ROOT, env={**os.environ, **environment}, check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
