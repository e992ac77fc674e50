"""Runs the publisher's decisions under callgrind: `valgrind --tool=callgrind --instr-atstart=no python -m …`.

It processes `TASKS` results from their arrival to their accepted PATCH, with the test's own API, and lets callgrind
count only that: not the start of Python.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator

from common.api.patch_queue import CONNECTIONS
from tests.publisher.publishing import Publishing

TASKS = 512
WARM_UP = 64


@contextlib.contextmanager
def counting() -> Iterator[None]:
    """Let callgrind count in this block."""
    subprocess.run(["callgrind_control", "-i", "on", str(os.getpid())], check=True, capture_output=True)
    yield
    subprocess.run(["callgrind_control", "-i", "off", str(os.getpid())], check=True, capture_output=True)


def process(publisher: Publishing, ids: list[str]) -> None:
    """Let the results of these tasks come, and the API accept them."""
    publisher.results(*ids)
    for start in range(0, len(ids), CONNECTIONS):
        publisher.respond(200, *ids[start : start + CONNECTIONS])


def main() -> None:
    """Process some results to warm up, then those that count."""
    publisher = Publishing()
    process(publisher, [f"warm-{number}" for number in range(WARM_UP)])
    with counting():
        process(publisher, [f"task-{number}" for number in range(TASKS)])


if __name__ == "__main__":
    main()
