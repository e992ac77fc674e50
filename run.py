"""Run the whole service: `python run.py`.

Checks the settings (from the environment, or from `.env` beside this file), then becomes supervisord, which starts all
processes. It needs the packages of requirements.txt, and nothing else:

    pip install -r requirements.txt && python run.py

SIGTERM and Ctrl-C drain and stop everything. Wrong settings are reported all at once, with exit status 2.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from common.settings import settings

ROOT = Path(__file__).resolve().parent


def environment() -> dict[str, str]:
    """The environment for supervisord: its programs find this Python first on PATH, and this folder's packages."""
    own = Path(sys.executable).parent
    if not (own / "python").exists():
        sys.exit(f"{own} has no 'python', which supervisord.conf starts: use a virtual environment (python3 -m venv)")
    paths = (str(ROOT), os.environ.get("PYTHONPATH", ""))
    return {
        **os.environ,
        "PATH": os.pathsep.join((str(own), os.environ.get("PATH", os.defpath))),
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
    }


def main() -> None:
    """Check the settings and become supervisord; does not return."""
    os.chdir(ROOT)
    config = settings.read_or_exit()
    print(f"Starting: PROCESSING_MODE is {config.mode}, the pages are on port {config.metrics_port}.", flush=True)
    command = [sys.executable, "-m", "supervisor.supervisord", "-c", "supervisord.conf"]
    os.execve(sys.executable, command, environment())  # noqa: S606


if __name__ == "__main__":
    main()
