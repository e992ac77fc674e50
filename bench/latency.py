"""The latency of an idle pipeline: from queueing a task in the API to its accepted PATCH, one task at a time.

The pipeline polls every 50 ms. A task waits for the next poll, 25 ms on average, before the pipeline can know of it;
`after the lease` is what the pipeline itself adds, from the log event `tasks_leased` to the accepted PATCH.
"""

from __future__ import annotations

import random
import time
from datetime import datetime
from statistics import quantiles
from typing import Any

from bench.figures import Report
from bench.running import TEXT, pipeline_on, stand_ins
from bench.sizes import Size
from sandbox.client import Sandbox
from sandbox.pipeline import Pipeline

POLL_S = 0.05
TASK_TIMEOUT_S = 30.0
LOOK_S = 0.005
LARGEST_GAP_S = 0.15
"""Between two tasks, at random, so that they do not keep step with the polls."""


def measure(report: Report, size: Size) -> None:
    """Process `size.tasks` tasks one after another in each run."""
    for _ in range(size.runs):
        with stand_ins() as sandbox, pipeline_on(sandbox, POLLING_INTERVAL_SECONDS=POLL_S) as pipeline:
            one_task(sandbox)  # the first one opens connections
            tasks = dict(one_task(sandbox) for _ in range(max(2, size.tasks)))
            ends = {task_id: accepted_at for task_id, (_, accepted_at) in tasks.items()}
            leased = leased_at(pipeline)
        total = [(accepted_at - queued_at) * 1e3 for queued_at, accepted_at in tasks.values()]
        own = [(ends[task_id] - leased[task_id]) * 1e3 for task_id in ends if task_id in leased]
        for name, taken in (("queued → accepted PATCH", total), ("after the lease", own)):
            cuts = quantiles(taken, n=100, method="inclusive")
            report.add(f"{name}: p50", "ms", cuts[49])
            report.add(f"{name}: p99", "ms", cuts[98])


def one_task(sandbox: Sandbox) -> tuple[str, tuple[float, float]]:
    """Queue a task and wait for its result: its id, and when it was queued and accepted (Unix time)."""
    time.sleep(random.uniform(0, LARGEST_GAP_S))
    (task_id,) = sandbox.queue(1, text=TEXT)
    queued_at = time.time()
    deadline = time.monotonic() + TASK_TIMEOUT_S
    while not (accepted := [patch for patch in sandbox.task(task_id)["patches"] if patch["accepted"]]):
        if time.monotonic() > deadline:
            raise TimeoutError(f"task {task_id} was not processed within {TASK_TIMEOUT_S:g} s")
        time.sleep(LOOK_S)
    return task_id, (queued_at, float(accepted[0]["time"]))


def leased_at(pipeline: Pipeline) -> dict[str, float]:
    """When each task was leased (Unix time), from the log."""
    return {task_id: _unix_time(event) for event in pipeline.events("tasks_leased") for task_id in _ids(event)}


def _unix_time(event: dict[str, Any]) -> float:
    return datetime.fromisoformat(event["time"]).timestamp()


def _ids(event: dict[str, Any]) -> list[str]:
    """The tasks of a log event: one, or a list."""
    return [event["task_id"]] if "task_id" in event else list(event.get("task_ids", ()))
