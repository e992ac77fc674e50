"""The pipeline against the programs that users would write instead: the same tasks, the same stand-in, in one run.

Only the ratios can be compared between machines. The programs take turns, so that a slow minute of the machine meets
all of them.
"""

from __future__ import annotations

import functools

from bench.figures import Report
from bench.installing import UnavailableError
from bench.peers import starting
from bench.running import Run, drive, run_pipeline, stand_ins
from bench.sizes import Size
from sandbox.client import Sandbox

PIPELINE = "pipeline"
SCRIPT = "script"
PEERS: dict[str, tuple[starting.Start, int]] = {
    SCRIPT: (starting.script, 1),
    "script on uvloop": (functools.partial(starting.script, uvloop=True), 1),
    "BullMQ": (starting.bullmq, 2),
    "Celery": (starting.celery, 8),
}
"""Each peer, and by what its number of tasks is divided: a slow one would take minutes."""


def measure(report: Report, size: Size) -> None:
    """Run all programs as often as wanted, and compare each run of the pipeline with the peers' runs next to it."""
    for _ in range(size.runs):
        with stand_ins() as sandbox:
            pipeline = run_pipeline(sandbox, size.tasks)
        _add(report, PIPELINE, pipeline)
        report.add("pipeline: publisher busy", "% of a core", pipeline.busy_percent("publisher"))
        report.add("pipeline: each task listed", "times", pipeline.listed_count / size.tasks)
        for name, (start, divisor) in PEERS.items():
            try:
                with stand_ins() as sandbox:
                    peer = run_peer(sandbox, start, max(1, size.tasks // divisor))
            except UnavailableError as error:
                report.note(f"{name} is left out: {error}")
                continue
            _add(report, name, peer)
            report.add(f"pipeline / {name}: tasks/s", "times", pipeline.rate / peer.rate)
            report.add(f"pipeline / {name}: CPU a task", "times", pipeline.cpu_us_per_task / peer.cpu_us_per_task)


def run_peer(sandbox: Sandbox, start: starting.Start, tasks: int) -> Run:
    """Measure one peer. Raises `UnavailableError` if it cannot be had here."""
    with start(sandbox, tasks) as peer:
        return drive(sandbox, tasks, peer.usage, peer.go)


def _add(report: Report, name: str, run: Run) -> None:
    report.add(f"{name}: throughput", "tasks/s", run.rate)
    report.add(f"{name}: CPU", "µs/task", run.cpu_us_per_task)
    report.add(f"{name}: the stand-in's CPU", "µs/task", run.us_per_task(run.sandbox_cpu_s))
