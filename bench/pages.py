"""The economy of polls: how often a pending task is read from the API until its result is accepted.

The tasks are pending when the pipeline starts, and it polls every 30 seconds when it has no reason to poll sooner. The
stand-in counts the elements of the pages that it sends. The last case is an API that ignores `limit` and shows all that
is pending in each page.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from bench.figures import Report
from bench.processes import MIB, Peak, each, pipeline_pids, pss_bytes
from bench.running import TIMEOUT_S, queue, short_folder, stand_ins, started_pipeline
from bench.sizes import Size

PROVIDER_S = 0.05
CAP = 100
SLOW = {"PROCESSING_MODE": "openai"}
SLOW_DIVISOR = 5
"""With a provider of 50 ms there are this many times fewer tasks: 6,000 for 30,000."""
ENDLESS_FACTOR = 50 / 3
"""The API that ignores `limit` has this many times more tasks: 500,000 for 30,000."""


class Case(NamedTuple):
    """An API, a provider, and how many tasks are pending."""

    name: str
    share: float = 1.0
    """Of the size's number of tasks."""
    api: Mapping[str, Any] = MappingProxyType({})
    """Settings of the stand-in for the API."""
    settings: Mapping[str, Any] = MappingProxyType({})
    """Settings of the pipeline."""


CASES = (
    Case("mock"),
    Case("provider of 50 ms", 1 / SLOW_DIVISOR, {}, SLOW),
    Case("mock, pages of at most 100", 1.0, {"page_cap": CAP}),
    Case("provider of 50 ms, pages of at most 100", 1 / SLOW_DIVISOR, {"page_cap": CAP}, SLOW),
)


def measure(report: Report, size: Size) -> None:
    """Measure all cases as often as wanted."""
    for _ in range(size.runs):
        for case in CASES:
            listed(report, case, max(1, round(size.tasks * case.share)))
        endless(report, round(size.tasks * ENDLESS_FACTOR), size.tasks)


def listed(report: Report, case: Case, tasks: int, **settings: object) -> float:
    """Add how often each task was listed, and return it."""
    with stand_ins() as sandbox, short_folder() as folder:
        sandbox.settings(api=dict(case.api), openai={"latency_seconds": PROVIDER_S})
        queue(sandbox, tasks)
        with started_pipeline(sandbox, folder, **case.settings, **settings):
            api = sandbox.wait_until(lambda summary: summary["api"]["accepted"] >= tasks, TIMEOUT_S)["api"]
    times = api["listed"] / tasks
    report.add(f"{case.name}: each task listed", "times", times)
    report.add(f"{case.name}: polls", "", api["gets"])
    report.add(f"{case.name}: bytes of responses", "B/task", api["bytes_out"] / tasks)
    return float(times)


def endless(report: Report, pending: int, done: int) -> None:
    """Process the first `done` tasks of an API that ignores `limit`."""
    name = "limit ignored"
    with stand_ins() as sandbox, short_folder() as folder:
        sandbox.settings(api={"honour_limit": False})
        queue(sandbox, pending)
        with started_pipeline(sandbox, folder) as pipeline:
            peak = Peak(lambda: each(pipeline_pids(pipeline), pss_bytes))  # again each time: programs still start
            with peak.watching():
                sandbox.wait_until(lambda summary: summary["api"]["gets"] > 0, TIMEOUT_S)
                first_byte_at = time.monotonic()
                sandbox.wait_until(lambda summary: summary["api"]["accepted"] > 0, TIMEOUT_S)
                first_patch_s = time.monotonic() - first_byte_at
                api = sandbox.wait_until(lambda summary: summary["api"]["accepted"] >= done, TIMEOUT_S)["api"]
    report.add(f"{name}: first PATCH after the first byte", "s", first_patch_s)
    report.add(f"{name}: polls until {done:,} of {pending:,} were done", "", api["gets"])
    report.add(f"{name}: one page", "MiB", api["bytes_out"] / api["gets"] / MIB)
    report.add(f"{name}: most memory, all processes", "MiB PSS", peak.total / MIB)
    report.add(f"{name}: most memory, fetcher", "MiB PSS", peak.parts.get("fetcher", 0.0) / MIB)
