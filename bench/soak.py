"""The long run: many tasks without a pause, and whether rate, memory, disk and descriptors stay what they were.

The backlog is refilled as it is worked off. The run is divided into ten parts, and the first and the last part are
compared. The stand-in keeps a record of every task, so its own CPU time per task is shown beside the rate: if it grows,
the rate falls because of it.
"""

from __future__ import annotations

import itertools
import time
from typing import NamedTuple

from bench.figures import Report
from bench.processes import MIB, cpu_s, descriptor_count, disk_bytes, each, pipeline_pids, rss_bytes
from bench.running import TIMEOUT_S, pipeline_on, queue, stand_ins
from bench.sizes import Size
from sandbox.client import Sandbox
from sandbox.pipeline import Pipeline

PARTS = 10
BACKLOG = 20_000
"""Tasks that are pending at least, until all have been queued."""
LOOK_S = 0.05


class Sample(NamedTuple):
    """The state at the end of a part."""

    at_s: float
    accepted: int
    cpu_s: float
    sandbox_cpu_s: float
    rss: dict[str, float]
    """Bytes by process."""
    disk: float
    """Bytes."""
    descriptors: float


def measure(report: Report, size: Size) -> None:
    """Process `size.tasks` tasks in each run."""
    for _ in range(size.runs):
        with stand_ins() as sandbox, pipeline_on(sandbox) as pipeline:
            samples = run(sandbox, pipeline, size.tasks)
        _add(report, samples)


def run(sandbox: Sandbox, pipeline: Pipeline, tasks: int) -> list[Sample]:
    """Feed the tasks, and take a sample at the start and after each part."""
    pids = pipeline_pids(pipeline)
    part, backlog, queued = max(1, tasks // PARTS), min(BACKLOG, tasks), 0
    samples: list[Sample] = []
    deadline = time.monotonic() + TIMEOUT_S
    while len(samples) <= PARTS:
        accepted = sandbox.summary()["api"]["accepted"]
        if accepted >= len(samples) * part:
            samples.append(take_sample(sandbox, pipeline, pids, accepted))
            deadline = time.monotonic() + TIMEOUT_S
        if queued < part * PARTS and queued - accepted <= backlog:
            queue(sandbox, min(backlog, part * PARTS - queued))
            queued += min(backlog, part * PARTS - queued)
        elif time.monotonic() > deadline:
            raise TimeoutError(f"{part} tasks took longer than {TIMEOUT_S:g} s; the log ends with\n{pipeline.tail()}")
        else:
            time.sleep(LOOK_S)
    return samples


def take_sample(sandbox: Sandbox, pipeline: Pipeline, pids: dict[str, int], accepted: int) -> Sample:
    """Look at the processes now."""
    return Sample(
        time.monotonic(), accepted, sum(each(pids, cpu_s).values()), cpu_s(sandbox.pid), each(pids, rss_bytes),
        disk_bytes(pipeline.folder / "state"), sum(each(pids, descriptor_count).values()),
    )  # fmt: skip


def _add(report: Report, samples: list[Sample]) -> None:
    rates: list[float] = []
    costs: list[float] = []
    for number, (start, end) in enumerate(itertools.pairwise(samples), 1):
        done = max(1, end.accepted - start.accepted)  # a part can end between two looks, if parts are tiny
        rates.append(done / (end.at_s - start.at_s))
        report.add(f"part {number}: throughput", "tasks/s", rates[-1])
        costs.append((end.cpu_s - start.cpu_s) / done * 1e6)
        report.add(f"part {number}: CPU", "µs/task", costs[-1])
        stand_in_s = end.sandbox_cpu_s - start.sandbox_cpu_s
        report.add(f"part {number}: the stand-in's CPU", "µs/task", stand_in_s / done * 1e6)
    first, last = samples[1], samples[-1]
    report.add("last part / first part: throughput", "times", rates[-1] / rates[0])
    report.add("last part / first part: CPU a task", "times", costs[-1] / max(1.0, costs[0]))
    report.add("last part / first part: RSS", "times", sum(last.rss.values()) / sum(first.rss.values()))
    for name in first.rss:
        report.add(f"{name}: RSS after the first part", "MiB", first.rss[name] / MIB)
        report.add(f"{name}: RSS after the last part", "MiB", last.rss[name] / MIB)
    report.add("disk after the first part", "MiB", first.disk / MIB)
    report.add("disk after the last part", "MiB", last.disk / MIB)
    report.add("descriptors after the first part", "", first.descriptors)
    report.add("descriptors after the last part", "", last.descriptors)
