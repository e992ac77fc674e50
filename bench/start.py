"""The start: from starting supervisord to the first accepted PATCH, with tasks waiting in the API."""

from __future__ import annotations

import time

from bench.figures import Report
from bench.running import queue, short_folder, stand_ins, started_pipeline
from bench.sizes import Size

FIRST_S = 120.0
TASKS = 10


def measure(report: Report, size: Size) -> None:
    """Start a pipeline as often as wanted, each time with an empty state directory, and then again with that one."""
    for _ in range(size.runs):
        with short_folder() as folder:
            for state in ("empty state directory", "second start"):
                with stand_ins() as sandbox:
                    queue(sandbox, TASKS)
                    began = time.time()
                    with started_pipeline(sandbox, folder) as pipeline:
                        sandbox.wait_until(lambda summary: summary["api"]["accepted"] > 0, FIRST_S)
                        first = min(patch["time"] for task in sandbox.record() for patch in task["patches"])
                        pipeline.wait_ready()
                        ready = time.time()
                report.add(f"{state}: first accepted PATCH", "s", first - began)
                report.add(f"{state}: /ready answers 200", "s", ready - began)
