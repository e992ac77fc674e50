"""Parts of the service as processes, in our environment and what the test adds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import IO

from sandbox.pipeline import ROOT
from tests.samples import ENVIRONMENT


def started(module: str, folder: Path, output: int | IO[bytes], **variables: str) -> subprocess.Popen[bytes]:
    """Start a stage with a folder of its own for its state; all that it says goes to `output`."""
    environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(ROOT), "STATE_DIR": str(folder), **variables}
    command = [sys.executable, "-m", module]
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT)


def ended(*words: str, environment: dict[str, str], before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run `python -m words…` to its end, behind the words of another command if there are any."""
    return subprocess.run(
        [*before, sys.executable, "-m", *words],
        cwd=ROOT, env={**os.environ, **environment}, check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
