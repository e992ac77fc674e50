"""The CPU time of an idle pipeline that polls every 30 seconds, for each process, and how often it wakes."""

from __future__ import annotations

import time

from bench.figures import Report
from bench.processes import cpu_s, each, pipeline_pids, wakeups
from bench.running import pipeline_on, stand_ins
from bench.sizes import Size

POLL_S = 30
SETTLE_S = 5.0
"""After the pipeline is ready, until it is watched."""


def measure(report: Report, size: Size) -> None:
    """Watch an idle pipeline for `size.seconds` in each run."""
    for _ in range(size.runs):
        with stand_ins() as sandbox, pipeline_on(sandbox, POLLING_INTERVAL_SECONDS=POLL_S) as pipeline:
            pipeline.run_for(SETTLE_S)
            pids = pipeline_pids(pipeline)
            before, woken, began = each(pids, cpu_s), each(pids, wakeups), time.monotonic()
            time.sleep(size.seconds)
            seconds = time.monotonic() - began
            after, woken_after = each(pids, cpu_s), each(pids, wakeups)
        used = {name: 100 * (after[name] - before[name]) / seconds for name in pids}
        report.add("all processes and supervisord", "% of a core", sum(used.values()))
        for name in pids:
            report.add(name, "% of a core", used[name])
        report.add("wake-ups of all processes", "/s", sum(woken_after[n] - woken[n] for n in pids) / seconds)
