"""The stages one by one: CPU time a task of each process, and how busy it is while the pipeline runs at full speed."""

from __future__ import annotations

from bench.figures import Report
from bench.running import run_pipeline, stand_ins
from bench.sizes import Size


def measure(report: Report, size: Size) -> None:
    """Run a pipeline as often as wanted; the process that needs most CPU comes first."""
    for _ in range(size.runs):
        with stand_ins() as sandbox:
            run = run_pipeline(sandbox, size.tasks)
        names = sorted(run.cpu_s, key=lambda name: -run.cpu_s[name])
        for name in names:
            report.add(f"{name}: CPU", "µs/task", run.us_per_task(run.cpu_s[name]))
        report.add("all processes: CPU", "µs/task", run.cpu_us_per_task)
        report.add("the stand-in's CPU", "µs/task", run.us_per_task(run.sandbox_cpu_s))
        for name in names:
            report.add(f"{name}: busy", "% of a core", run.busy_percent(name))
        stand_in_busy = 100 * run.sandbox_cpu_s / run.seconds
        report.add("the stand-in: busy", "% of a core", stand_in_busy)
        report.add("publisher or the stand-in: busy", "% of a core", max(stand_in_busy, run.busy_percent("publisher")))
        report.add("throughput", "tasks/s", run.rate)
