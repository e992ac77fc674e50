"""Memory: the proportional set size (PSS) of every process and of supervisord, idle and at full speed."""

from __future__ import annotations

from bench.figures import Report
from bench.processes import MIB, Peak, cpu_s, each, pipeline_pids, pss_bytes
from bench.running import drive, pipeline_on, stand_ins
from bench.sizes import Size

SETTLE_S = 3.0
"""After the pipeline is ready, until its memory is read."""


def measure(report: Report, size: Size) -> None:
    """Read the memory of an idle pipeline, then the highest total while it works on the tasks."""
    for _ in range(size.runs):
        with stand_ins() as sandbox, pipeline_on(sandbox) as pipeline:
            pids = pipeline_pids(pipeline)
            pipeline.run_for(SETTLE_S)
            _add(report, "idle", each(pids, pss_bytes))
            peak = Peak(lambda: each(pids, pss_bytes))  # noqa: B023  called before the loop goes on
            with peak.watching():
                drive(sandbox, size.tasks, lambda: each(pids, cpu_s))  # noqa: B023
            _add(report, "full speed", peak.parts)


def _add(report: Report, when: str, parts: dict[str, float]) -> None:
    report.add(f"{when}: all processes and supervisord", "MiB PSS", sum(parts.values()) / MIB)
    for name, size_bytes in sorted(parts.items(), key=lambda part: -part[1]):
        report.add(f"{when}: {name}", "MiB PSS", size_bytes / MIB)
