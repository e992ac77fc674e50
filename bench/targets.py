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
    unit: str
    """Its unit, as the table shows it."""
    least: float | None = None
    """The median must be at least this."""
    most: float | None = None
    """The median must be at most this."""

    @property
    def bound(self) -> str:
        """The target in words."""
        side = f"at least {self.least:g}" if self.least is not None else f"at most {self.most:g}"
        return f"{side} {self.unit}"

    def is_met(self, value: float) -> bool:
        """Whether a value is within the bound."""
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)


TARGETS = (
    Target("each pending task read, 30,000 (mock)", "pages", "mock: each task listed", "times", most=1.5),
    Target("the same, 6,000 (provider of 50 ms)", "pages", "provider of 50 ms: each task listed", "times", most=1.5),
    Target(
        "30,000 (mock), pages of at most 100", "pages", "mock, pages of at most 100: each task listed", "times", most=3
    ),
    Target(
        "6,000 (provider of 50 ms), pages of at most 100",
        "pages",
        "provider of 50 ms, pages of at most 100: each task listed",
        "times",
        most=3,
    ),
    Target("tasks/s against the script", "peers", "pipeline / script: tasks/s", "times", least=1.6),
    Target("CPU a task against the script's", "peers", "pipeline / script: CPU a task", "times", most=0.85),
    Target("tasks/s against BullMQ + Redis, undici", "peers", "pipeline / BullMQ: tasks/s", "times", least=2),
    Target("tasks/s against Celery + Redis, requests", "peers", "pipeline / Celery: tasks/s", "times", least=5),
    Target(
        "publisher at full speed, or the API is the limit",
        "stages",
        "publisher or the stand-in: busy",
        "% of a core",
        least=95,
    ),
    Target("added latency, idle, p50", "latency", "after the lease: p50", "ms", most=15),
    Target("added latency, idle, p99", "latency", "after the lease: p99", "ms", most=40),
    Target(
        "memory, idle, all processes and supervisord", "memory", "idle: all processes and supervisord", "MiB", most=170
    ),
    Target("memory, full speed", "memory", "full speed: all processes and supervisord", "MiB", most=300),
    Target("start, supervisord to first PATCH", "start", "empty state directory: first accepted PATCH", "s", most=3),
    Target("idle CPU, polling every 30 s", "idle", "all processes and supervisord", "% of a core", most=0.5),
    Target(
        "long run: rate of the last tenth against the first",
        "soak",
        "last part / first part: throughput",
        "times",
        least=0.95,
    ),
    Target("long run: resident memory, the same", "soak", "last part / first part: RSS", "times", most=1.05),
    Target(
        "500,000 pending, limit ignored: first PATCH",
        "pages",
        "limit ignored: first PATCH after the first byte",
        "s",
        most=3,
    ),
    Target("8 embedders against 1, provider of 50 ms", "scaling", "embedders 8: against 1", "times", least=7.5),
)
"""In the order of the issue that set them."""


def read(results: Path, benchmark: str) -> dict[str, Any]:
    """The JSON of a benchmark; one without figures if it has not run."""
    path = results / f"{benchmark}.json"
    return dict(json.loads(path.read_text())) if path.exists() else {"figures": []}


def markdown(results: Path) -> str:
    """The table of targets, and a line on where and how it was measured."""
    found = {target.benchmark: read(results, target.benchmark) for target in TARGETS}
    figures = {name: {figure["name"]: figure for figure in result["figures"]} for name, result in found.items()}
    rows = [row(target, figures[target.benchmark].get(target.figure)) for target in TARGETS]
    table = ["| quantity | target | measured | met |", "|---|---|---|---|", *rows]
    return "\n".join([*table, "", conditions([result for result in found.values() if result["figures"]])])


def conditions(results: list[dict[str, Any]]) -> str:
    """Where the results come from: commits, machines, and how busy these were."""
    commits = sorted({result["versions"]["commit"] for result in results})
    machines = sorted({f"{result['machine']['processor']}, {result['machine']['cores']} cores" for result in results})
    busy = max((result["machine"]["load_average_5min"] for result in results), default=0.0)
    if not results:
        return "Nothing has been measured yet: python -m bench"
    return f"Commit {', '.join(commits)}; {'; '.join(machines)}; load average up to {busy:g}, our own included."


def row(target: Target, figure: dict[str, Any] | None) -> str:
    """One row: the median, and the range of the runs if there are several."""
    if figure is None:
        return f"| {target.quantity} | {target.bound} | {NOT_MEASURED} | |"
    values = figure["values"]
    spread = f" ({readable(min(values))} to {readable(max(values))})" if len(values) > 1 else ""
    met = "yes" if target.is_met(figure["median"]) else "no"
    return f"| {target.quantity} | {target.bound} | {readable(figure['median'])}{spread} | {met} |"
