"""`make demo`: the whole pipeline on stand-ins, seen working: queues tasks, shows progress, sums up, leaves nothing.

With `--keep` it stays up, to be looked at, until Ctrl-C.
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

PATIENCE = 300.0
"""Seconds without any task done after which the demo has failed."""
LOOK_EVERY = 0.2
PLAIN_EVERY = 1.0
"""Seconds between lines where there is no terminal."""


@dataclass
class Seen:
    """How far the tasks are."""

    pending: int
    done: int
    failed: int
    in_flight: int
    rate: float
    """Tasks a second, over the last seconds."""

    @property
    def words(self) -> str:
        """One line."""
        return (
            f"{self.pending} pending, {self.in_flight} in flight, {self.done} done, {self.failed} failed, "
            f"{self.rate:.0f} tasks/s"
        )


class Watch:
    """Looks at the sandbox (pending, done, failed) and the monitor (in flight)."""

    def __init__(self, sandbox: Sandbox, pipeline: Pipeline) -> None:
        self._sandbox = sandbox
        self._pipeline = pipeline
        self._finished: list[tuple[float, int]] = []

    def look(self) -> Seen:
        """Look now."""
        tasks = self._sandbox.summary()["api"]["tasks"]
        done, failed = tasks.get("succeeded", 0), tasks.get("failed", 0)
        now = time.monotonic()
        self._finished = [*self._finished, (now, done + failed)][-15:]
        (then, before), (_, after) = self._finished[0], self._finished[-1]
        rate = (after - before) / (now - then) if now > then else 0.0
        pending = tasks.get("pending", 0)
        return Seen(pending, done, failed, min(self._in_flight(), pending), rate)  # the heartbeat is a second old

    def _in_flight(self) -> int:
        status, health = self._pipeline.get("/health")
        if not status or not isinstance(health, dict):
            return 0
        return int(health.get("processes", {}).get("fetcher", {}).get("leased", 0))


def watch(console: Console, sandbox: Sandbox, pipeline: Pipeline, total: int) -> Seen:
    """Show progress until all tasks are done; raise `TimeoutError` if nothing moves for long."""
    eyes = Watch(sandbox, pipeline)
    with _display(console, total) as show:
        seen, moved = eyes.look(), time.monotonic()
        while seen.done + seen.failed < total:
            time.sleep(LOOK_EVERY)
            before, seen = seen, eyes.look()
            show(seen)
            if seen.done + seen.failed > before.done + before.failed:
                moved = time.monotonic()
            elif time.monotonic() - moved > PATIENCE:
                raise TimeoutError(f"no task was done for {PATIENCE:g} s; the log ends with\n{pipeline.tail()}")
        show(seen)
    return seen


@contextlib.contextmanager
def _display(console: Console, total: int) -> Iterator[Any]:
    """A progress bar on a terminal, else a plain line a second."""
    if not console.is_terminal:
        shown = [0.0]

        def line(seen: Seen) -> None:
            if time.monotonic() - shown[0] >= PLAIN_EVERY or seen.done + seen.failed == total:
                shown[0] = time.monotonic()
                console.print(seen.words)

        yield line
        return
    columns = (
        SpinnerColumn(),
        BarColumn(20),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        bar: TaskID = progress.add_task("starting the pipeline", total=total)
        yield lambda seen: progress.update(bar, completed=seen.done + seen.failed, description=seen.words)


def summary(console: Console, sandbox: Sandbox, pipeline: Pipeline, seconds: float) -> None:
    """Print what the API received, and where to look further."""
    told = sandbox.summary()
    api, oauth2 = told["api"], told["oauth2"]
    table = Table(title="What the API received", show_header=False)
    table.add_row("tasks succeeded", str(api["tasks"].get("succeeded", 0)))
    table.add_row("tasks failed", str(api["tasks"].get("failed", 0)))
    table.add_row("results accepted twice", str(api["accepted_twice"]))
    table.add_row("PATCH requests", str(api["patches"]))
    table.add_row("GET pending requests", str(api["gets"]))
    table.add_row("token requests", str(oauth2["token_requests"]))
    table.add_row("from start to last result", f"{seconds:.1f} s")
    console.print(table)
    console.print(f"health:   http://127.0.0.1:{pipeline.port}/health")
    console.print(f"ready:    http://127.0.0.1:{pipeline.port}/ready")
    console.print(f"metrics:  http://127.0.0.1:{pipeline.port}/metrics")


def main() -> int:
    """Run the demo; the exit status is 0 if every task succeeded, exactly once."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--tasks", type=int, default=2000)
    parser.add_argument("--keep", action="store_true", help="stay up until Ctrl-C")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    console = Console(highlight=False, soft_wrap=True)
    with tempfile.TemporaryDirectory(prefix="atp-demo-") as folder, Sandbox.start() as sandbox:
        sandbox.call("POST", "/tasks?ids=false", {"count": options.tasks})
        console.print(
            f"The API stand-in has {options.tasks} pending tasks. Starting the pipeline with mock embeddings …"
        )
        began = time.monotonic()
        with Pipeline(sandbox, Path(folder)) as pipeline:
            seen = watch(console, sandbox, pipeline, options.tasks)
            summary(console, sandbox, pipeline, time.monotonic() - began)
            if options.keep:
                _stay(console, pipeline)
        twice = sandbox.summary()["api"]["accepted_twice"]
    console.print("Everything is stopped.")
    return 0 if seen.done == options.tasks and not seen.failed and not twice else 1


def _stay(console: Console, pipeline: Pipeline) -> None:
    with contextlib.suppress(KeyboardInterrupt):
        console.print(
            f"Staying up. The log is {pipeline.log}; the API stand-in is {pipeline.sandbox.api}. Ctrl-C stops all."
        )
        signal.pause()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
