"""`make bench-quick`: the pipeline and a bare script process the same tasks against the same API stand-in, in one run.

Prints tasks per second and CPU microseconds per task for both (all processes, without the stand-in), and their ratio.
Only the ratio can be compared between machines.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote_plus

import psutil
from rich.console import Console
from rich.table import Table

from sandbox.client import Sandbox
from sandbox.pipeline import ROOT, Pipeline

TIMEOUT_S = 300.0
"""Each run must end within this time."""


@dataclass
class Run:
    """The measurements of one program."""

    name: str
    tasks: int
    seconds: float
    cpu_s: float
    """CPU seconds, user and system, of all its processes."""
    sandbox_cpu_s: float
    """CPU seconds of the sandbox during the run."""
    cpu_by_stage_s: dict[str, float]
    """CPU seconds by supervisord program; empty for the bare script."""

    @property
    def rate(self) -> float:
        """Tasks per second."""
        return self.tasks / self.seconds

    @property
    def cpu_us_per_task(self) -> float:
        """CPU microseconds per task."""
        return self.cpu_s / self.tasks * 1e6


def queue(sandbox: Sandbox, tasks: int) -> None:
    """Queue tasks of about 200 bytes each, all different."""
    sandbox.call("POST", "/tasks?ids=false", {"count": tasks, "text": "Task {n}: " + "lorem ipsum dolor sit amet " * 7})


def cpu_of(pid: int) -> float:
    """CPU seconds of a process so far."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def run_pipeline(sandbox: Sandbox, tasks: int, **settings: object) -> Run:
    """Start a pipeline, and measure how it processes the tasks once it is ready."""
    with (
        tempfile.TemporaryDirectory(prefix="atp-bench-") as folder,
        Pipeline(sandbox, Path(folder), POLLING_INTERVAL_SECONDS=0.2, **settings) as pipeline,
    ):
        pipeline.wait_ready()
        before = {name: cpu_of(program["pid"]) for name, program in pipeline.programs().items()}
        sandbox_before = cpu_of(sandbox.pid)
        done_before = sandbox.summary()["api"]["accepted"]
        queue(sandbox, tasks)
        started = time.monotonic()
        pipeline.wait_until(lambda: sandbox.summary()["api"]["accepted"] >= done_before + tasks, "all tasks", TIMEOUT_S)
        seconds = time.monotonic() - started
        sandbox_cpu = cpu_of(sandbox.pid) - sandbox_before
        after = {name: cpu_of(program["pid"]) for name, program in pipeline.programs().items()}
        by_stage = {name: after[name] - before[name] for name in before}
    return Run("pipeline", tasks, seconds, sum(by_stage.values()), sandbox_cpu, by_stage)


def run_bare(sandbox: Sandbox, tasks: int) -> Run:
    """Measure how the bare script processes the tasks."""
    queue(sandbox, tasks)
    sandbox_before = cpu_of(sandbox.pid)
    credentials = {
        "OAUTH2_CLIENT_ID": quote_plus(sandbox.client_id),
        "OAUTH2_CLIENT_SECRET": quote_plus(sandbox.client_secret),
    }
    done = subprocess.run(
        [sys.executable, "-m", "bench.bare", str(tasks)],
        env={**os.environ, **sandbox.environment(), **credentials},
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
        timeout=TIMEOUT_S,
    )
    measured = json.loads(done.stdout)
    return Run("bare script", tasks, measured["seconds"], measured["cpu"], cpu_of(sandbox.pid) - sandbox_before, {})


def show(console: Console, runs: list[Run]) -> None:
    """Print both runs and their ratio."""
    table = Table("", "tasks", "seconds", "tasks/s", "CPU µs/task", "stand-in's CPU µs/task")
    for run in runs:
        table.add_row(
            run.name, f"{run.tasks:,}", f"{run.seconds:.2f}", f"{run.rate:,.0f}", f"{run.cpu_us_per_task:.0f}",
            f"{run.sandbox_cpu_s / run.tasks * 1e6:.0f}",
        )  # fmt: skip
    console.print(table)
    pipeline, bare = runs
    console.print(f"pipeline / bare script: {pipeline.rate / bare.rate:.2f} times the tasks a second")
    console.print(f"pipeline / bare script: {pipeline.cpu_us_per_task / bare.cpu_us_per_task:.2f} times the CPU a task")
    parts = sorted(pipeline.cpu_by_stage_s.items(), key=lambda part: -part[1])
    console.print("CPU µs a task by stage: " + ", ".join(f"{n} {s / pipeline.tasks * 1e6:.0f}" for n, s in parts))


def main() -> int:
    """Run both, and print the comparison."""
    parser = argparse.ArgumentParser(prog="python -m bench.quick", description=__doc__)
    parser.add_argument("--tasks", type=int, default=50_000)
    options = parser.parse_args()
    console = Console(highlight=False, width=110)
    with Sandbox.start() as sandbox:
        sandbox.settings(api={"check_bodies": False})
        runs = [run_pipeline(sandbox, options.tasks), run_bare(sandbox, options.tasks)]
    show(console, runs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
