"""`make demo`: runs the pipeline against stand-ins, shows the progress of some tasks and a summary, then cleans up.

With `--keep` it keeps running until Ctrl-C.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from sandbox.client import Sandbox
from sandbox.pipeline import Pipeline

STALLED_AFTER_S = 300.0
"""The demo fails if no task is done for this number of seconds."""
LOOK_EVERY_S = 0.2
"""Seconds between updates of the progress bar."""
PLAIN_EVERY_S = 1.0
"""Seconds between lines if the output is not a terminal."""


@dataclass
class TaskProgress:
    """The number of tasks in each state."""

    pending: int
    done: int
    failed: int
    in_flight: int
    """Leased by the fetcher."""
    rate: float
    """Tasks per second, over the last seconds."""

    @property
    def finished(self) -> int:
        """The number of tasks that are done or failed."""
        return self.done + self.failed

    @property
    def line(self) -> str:
        """The progress in one line."""
        return (
            f"{self.pending} pending, {self.in_flight} in flight, {self.done} done, {self.failed} failed, "
            f"{self.rate:.0f} tasks/s"
        )


class ProgressWatch:
    """Reads the progress from the sandbox (pending, done, failed) and the monitor (in flight)."""

    def __init__(self, sandbox: Sandbox, pipeline: Pipeline) -> None:
        self._sandbox = sandbox
        self._pipeline = pipeline
        self._finished: list[tuple[float, int]] = []

    def look(self) -> TaskProgress:
        """The progress now."""
        tasks = self._sandbox.summary()["api"]["tasks"]
        done, failed = tasks.get("succeeded", 0), tasks.get("failed", 0)
        now = time.monotonic()
        self._finished = [*self._finished, (now, done + failed)][-15:]
        (start, before), (_, after) = self._finished[0], self._finished[-1]
        rate = (after - before) / (now - start) if now > start else 0.0
        pending = tasks.get("pending", 0)
        in_flight = min(self._in_flight(), pending)  # the heartbeat may be a second old
        return TaskProgress(pending, done, failed, in_flight, rate)

    def _in_flight(self) -> int:
        status, health = self._pipeline.get("/health")
        if not status or not isinstance(health, dict):
            return 0
        return int(health.get("processes", {}).get("fetcher", {}).get("leased", 0))


def watch(console: Console, sandbox: Sandbox, pipeline: Pipeline, total: int) -> TaskProgress:
    """Show progress until all tasks are done; raises `TimeoutError` after `STALLED_AFTER_S` without progress."""
    tasks = ProgressWatch(sandbox, pipeline)
    with _display(console, total) as show:
        progress, changed = tasks.look(), time.monotonic()
        while progress.finished < total:
            time.sleep(LOOK_EVERY_S)
            before, progress = progress, tasks.look()
            show(progress)
            if progress.finished > before.finished:
                changed = time.monotonic()
            elif time.monotonic() - changed > STALLED_AFTER_S:
                raise TimeoutError(f"no task was done for {STALLED_AFTER_S:g} s; the log ends with\n{pipeline.tail()}")
        show(progress)
    return progress


@contextlib.contextmanager
def _display(console: Console, total: int) -> Iterator[Any]:
    """Show a progress bar on a terminal, otherwise one plain line per second."""
    if not console.is_terminal:
        shown = [0.0]

        def line(progress: TaskProgress) -> None:
            if time.monotonic() - shown[0] >= PLAIN_EVERY_S or progress.finished == total:
                shown[0] = time.monotonic()
                console.print(progress.line)

        yield line
        return
    columns = (
        SpinnerColumn(),
        BarColumn(20),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as bars:
        bar: TaskID = bars.add_task("starting the pipeline", total=total)
        yield lambda now: bars.update(bar, completed=now.finished, description=now.line)


def summary(console: Console, sandbox: Sandbox, seconds: float) -> None:
    """Print what the API received."""
    counters = sandbox.summary()
    api, oauth2 = counters["api"], counters["oauth2"]
    table = Table(title="What the API received", show_header=False)
    table.add_row("tasks succeeded", str(api["tasks"].get("succeeded", 0)))
    table.add_row("tasks failed", str(api["tasks"].get("failed", 0)))
    table.add_row("results accepted twice", str(api["accepted_twice"]))
    table.add_row("PATCH requests", str(api["patches"]))
    table.add_row("GET pending requests", str(api["gets"]))
    table.add_row("token requests", str(oauth2["token_requests"]))
    table.add_row("from start to last result", f"{seconds:.1f} s")
    console.print(table)


def main() -> int:
    """Run the demo; returns 0 if every task succeeded exactly once."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--tasks", type=int, default=2000)
    parser.add_argument("--keep", action="store_true", help="keep running until Ctrl-C")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    console = Console(highlight=False, soft_wrap=True)
    with tempfile.TemporaryDirectory(prefix="atp-demo-") as folder, Sandbox.start() as sandbox:
        sandbox.call("POST", "/tasks?ids=false", {"count": options.tasks})
        console.print(
            f"The API stand-in has {options.tasks} pending tasks. Starting the pipeline with mock embeddings …"
        )
        started = time.monotonic()
        progress = None
        with Pipeline(sandbox, Path(folder)) as pipeline:
            with contextlib.suppress(KeyboardInterrupt):
                progress = watch(console, sandbox, pipeline, options.tasks)
            if progress is None:
                console.print("Interrupted. Stopping everything …")
            signal.signal(signal.SIGINT, signal.SIG_IGN if progress is None else signal.default_int_handler)
            summary(console, sandbox, time.monotonic() - started)
            if options.keep and progress is not None:
                _stay(console, pipeline)
        twice = sandbox.summary()["api"]["accepted_twice"]
    console.print("Everything is stopped." + ("" if options.keep else " To look at it while it runs: make demo KEEP=1"))
    if progress is None:
        return 130
    return 0 if progress.done == options.tasks and not progress.failed and not twice else 1


def _stay(console: Console, pipeline: Pipeline) -> None:
    with contextlib.suppress(KeyboardInterrupt):
        for page in ("health", "ready", "metrics"):
            console.print(f"{page + ':':<9} http://127.0.0.1:{pipeline.port}/{page}")
        console.print(
            f"Staying up. The log is {pipeline.log}; the API stand-in is {pipeline.sandbox.api}. Ctrl-C stops all."
        )
        signal.pause()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C would leave processes behind
    console.print("Stopping everything …")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
