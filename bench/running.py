"""Runs a program on tasks of the API stand-in, and measures from outside its time, and its CPU time."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.processes import cpu_s, each, pipeline_pids
from sandbox.client import Sandbox
from sandbox.pipeline import Pipeline

TIMEOUT_S = 600.0
"""Each run must end within this time."""
TEXT = "Task {n}: " + "lorem ipsum dolor sit amet " * 7
"""The text of a task: about 200 bytes, all different."""
POLL_S = 5.0
"""The polling interval. The wait for the first poll is not measured; polls without a reason should be few."""
QUEUE_CHUNK = 50_000
"""Tasks queued with one request to the stand-in."""


@dataclass
class Run:
    """The measurements of one program."""

    tasks: int
    seconds: float
    cpu_s: dict[str, float]
    """CPU seconds, user and system, by process; all that the program needed, Redis included."""
    sandbox_cpu_s: float
    """CPU seconds of the stand-ins during the run."""
    listed_count: int
    """Tasks in the pages that the API sent, counting each as often as it was listed."""

    @property
    def rate(self) -> float:
        """Tasks per second."""
        return self.tasks / self.seconds

    @property
    def cpu_us_per_task(self) -> float:
        """CPU microseconds per task, of all processes."""
        return self.us_per_task(sum(self.cpu_s.values()))

    def us_per_task(self, seconds: float) -> float:
        """Seconds of the whole run as microseconds per task."""
        return seconds / self.tasks * 1e6

    def busy_percent(self, process: str) -> float:
        """How much of one core a process used, in percent."""
        return 100 * self.cpu_s.get(process, 0.0) / self.seconds


def queue(sandbox: Sandbox, tasks: int) -> None:
    """Queue tasks of about 200 bytes each, all different."""
    for start in range(0, tasks, QUEUE_CHUNK):
        sandbox.call("POST", "/tasks?ids=false", {"count": min(QUEUE_CHUNK, tasks - start), "text": TEXT})


@contextlib.contextmanager
def stand_ins() -> Iterator[Sandbox]:
    """Stand-ins that take a PATCH without reading its vector, so that they are not what limits the programs."""
    with Sandbox.start() as sandbox:
        sandbox.settings(api={"check_bodies": False})
        yield sandbox


@contextlib.contextmanager
def short_folder() -> Iterator[Path]:
    """A folder whose path is short enough for sockets; it is removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="atp-bench-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def started_pipeline(sandbox: Sandbox, folder: Path, **settings: object) -> Iterator[Pipeline]:
    """A pipeline with its state in `folder`; it may still be starting. At the end all programs stop at once."""
    with Pipeline(sandbox, folder, **settings) as pipeline:
        yield pipeline
        with contextlib.suppress(OSError):  # supervisord alone stops them one after another
            pipeline.supervisor("stopAllProcesses", False)


@contextlib.contextmanager
def pipeline_on(sandbox: Sandbox, **settings: object) -> Iterator[Pipeline]:
    """A pipeline in a folder of its own that is ready to process tasks; it polls every `POLL_S` when idle."""
    chosen = {"POLLING_INTERVAL_SECONDS": POLL_S, **settings}
    with short_folder() as folder, started_pipeline(sandbox, folder, **chosen) as pipeline:
        pipeline.wait_ready()
        yield pipeline


def drive(
    sandbox: Sandbox, tasks: int, usage: Callable[[], Mapping[str, float]], go: Callable[[], object] = lambda: None
) -> Run:
    """Queue the tasks, let the program `go`, and measure until the API has accepted all results."""
    api = sandbox.summary()["api"]
    queue(sandbox, tasks)
    before, sandbox_before = usage(), cpu_s(sandbox.pid)
    go()
    started = time.monotonic()
    end = sandbox.wait_until(lambda summary: summary["api"]["accepted"] >= api["accepted"] + tasks, TIMEOUT_S)["api"]
    seconds, after = time.monotonic() - started, usage()
    used = {name: after[name] - before.get(name, 0.0) for name in after}
    return Run(tasks, seconds, used, cpu_s(sandbox.pid) - sandbox_before, end["listed"] - api["listed"])


def run_pipeline(sandbox: Sandbox, tasks: int, **settings: object) -> Run:
    """Start a pipeline, and measure how it processes the tasks once it is ready."""
    with pipeline_on(sandbox, **settings) as pipeline:
        pids = pipeline_pids(pipeline)
        return drive(sandbox, tasks, lambda: each(pids, cpu_s), lambda: wait_for_poll(sandbox))


def wait_for_poll(sandbox: Sandbox) -> None:
    """Wait until the API has been polled again: how long an idle pipeline waits before it polls is not measured."""
    gets = sandbox.summary()["api"]["gets"]
    sandbox.wait_until(lambda summary: summary["api"]["gets"] > gets, TIMEOUT_S)
