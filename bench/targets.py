"""The targets of the project, and what the newest results say about each, as a Markdown table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from bench.figures import readable

NOT_MEASURED = "not measured"


class Target(NamedTuple):
    """One target: a bound for one figure of one benchmark."""

    quantity: str
    benchmark: str
    figure: str
    """The name of the figure."""
    least: float | None = None
    """The median must be at least this."""
    most: float | None = None
    """The median must be at most this."""

    @property
    def bound(self) -> str:
        """The target in words."""
        return f"at least {readable(self.least)}" if self.least is not None else f"at most {readable(self.most or 0)}"

    def is_met(self, value: float) -> bool:
        """Whether a value is within the bound."""
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)


TARGETS = (
    Target("each pending task read, 30,000 (mock)", "pages", "mock: each task listed", most=1.5),
    Target("the same, 6,000 (provider of 50 ms)", "pages", "provider of 50 ms: each task listed", most=1.5),
    Target("30,000 (mock), pages of at most 100", "pages", "mock, pages of at most 100: each task listed", most=3),
    Target("6,000 (provider of 50 ms), pages of at most 100", "pages",
           "provider of 50 ms, pages of at most 100: each task listed", most=3),
    Target("tasks/s against the script", "peers", "pipeline / script: tasks/s", least=1.6),
    Target("CPU a task against the script's", "peers", "pipeline / script: CPU a task", most=0.85),
    Target("tasks/s against BullMQ + Redis, undici", "peers", "pipeline / BullMQ: tasks/s", least=2),
    Target("tasks/s against Celery + Redis, requests", "peers", "pipeline / Celery: tasks/s", least=5),
    Target("publisher at full speed, or the API is the limit", "stages", "publisher or the stand-in: busy", least=95),
    Target("added latency, idle, p50", "latency", "after the lease: p50", most=15),
    Target("added latency, idle, p99", "latency", "after the lease: p99", most=40),
    Target("memory, idle, all processes and supervisord", "memory", "idle: all processes and supervisord", most=170),
    Target("memory, full speed", "memory", "full speed: all processes and supervisord", most=300),
    Target("start, supervisord to first PATCH", "start", "empty state directory: first accepted PATCH", most=3),
    Target("idle CPU, polling every 30 s", "idle", "all processes and supervisord", most=0.5),
    Target("long run: rate of the last tenth against the first", "soak", "last part / first part: throughput",
           least=0.95),
    Target("long run: resident memory, the same", "soak", "last part / first part: RSS", most=1.05),
    Target("500,000 pending, limit ignored: first PATCH", "pages", "limit ignored: first PATCH after the first byte",
           most=3),
    Target("8 embedders against 1, provider of 50 ms", "scaling", "8 embedders: against 1", least=7.5),
)  # fmt: skip
"""In the order of the issue that set them."""


def figures(results: Path, benchmark: str) -> dict[str, dict[str, Any]]:
    """The figures of a benchmark's JSON by name; none if it has not run."""
    path = results / f"{benchmark}.json"
    if not path.exists():
        return {}
    return {figure["name"]: figure for figure in json.loads(path.read_text())["figures"]}


def markdown(results: Path) -> str:
    """The table of targets."""
    rows = [row(target, figures(results, target.benchmark).get(target.figure)) for target in TARGETS]
    return "\n".join(["| quantity | target | measured | met |", "|---|---|---|---|", *rows])


def row(target: Target, figure: dict[str, Any] | None) -> str:
    """One row: the median, and the range of the runs if there are several."""
    if figure is None:
        return f"| {target.quantity} | {target.bound} | {NOT_MEASURED} | |"
    values, unit = figure["values"], figure["unit"]
    spread = f" ({readable(min(values))} to {readable(max(values))})" if len(values) > 1 else ""
    met = "yes" if target.is_met(figure["median"]) else "no"
    return f"| {target.quantity} | {target.bound} {unit} | {readable(figure['median'])}{spread} | {met} |"
