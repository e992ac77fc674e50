"""One run: feed and inflict as planned, end all faults, wait until all tasks are done, stop, collect the evidence."""

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sandbox.chaos import kinds
from sandbox.chaos.feeding import DIMENSIONS, Feeder
from sandbox.chaos.inflict import Inflictor
from sandbox.chaos.judge import ChaosEvidence
from sandbox.chaos.plan import ChaosPlan
from sandbox.client import Sandbox
from sandbox.pipeline import Pipeline

STEP_S = 0.02
LOOK_EVERY_S = 5.0
TASKS_PER_MINUTE = 10_000
"""More than the bursts bring on average, and less than what waits after a long fault."""
TOKENS_PER_MINUTE = 60_000
STALLED_AFTER_S = 150.0
"""After the last fault some task must be done at least this often: a minute of quota, and the longest back-off."""
PIPELINE: dict[str, Any] = {
    "PROCESSING_MODE": "openai",
    "EMBEDDER_PROCESSES": kinds.EMBEDDERS,
    "CONCURRENCY_LIMIT": kinds.CONCURRENCY_LIMIT,
    "EMBED_BATCH_SIZE": kinds.EMBED_BATCH_SIZE,
    "EMBEDDING_DIMENSIONS": DIMENSIONS,
    "POLLING_INTERVAL_SECONDS": 1,
    "REQUEST_TIMEOUT": int(kinds.REQUEST_TIMEOUT_S),
    "RATE_LIMIT_PER_MINUTE": TASKS_PER_MINUTE,
    "RATE_LIMIT_TOKENS_PER_MINUTE": TOKENS_PER_MINUTE,
}
OUTSIDE: dict[str, Any] = {"openai": {"latency_seconds": 0.25}, "api": {"keep_results": True}}
"""The provider takes some time, so that every stage has work; the API keeps the vectors for the judge."""
EXPECTED_ENDS = ("terminated by SIGKILL", "exit status 0")
_EXIT = re.compile(r"exited: (\S+) \((.*?);")


def run(plan: ChaosPlan, folder: Path, show: Callable[[str], None]) -> ChaosEvidence:
    """Carry out the plan with the pipeline's state and log in `folder`; `show` gets lines about the progress."""
    with Sandbox.start() as sandbox:
        sandbox.settings(**OUTSIDE)
        feeder = Feeder(sandbox, plan.seed)
        pipeline = Pipeline(sandbox, folder, **PIPELINE)
        inflictor = Inflictor(pipeline)
        with pipeline:
            pipeline.wait_ready()
            try:
                _carry_out(plan, feeder, inflictor, show)
            finally:
                inflictor.restore()
            show("all faults are over; waiting until all tasks are done")
            _finish(feeder, pipeline, show)
        charges = sandbox.charges(with_keys=True)
        return ChaosEvidence(
            feeder.tasks, sandbox.record(), sandbox.results(), charges, inflictor.inflicted,
            limits={"inputs": TASKS_PER_MINUTE, "tokens": TOKENS_PER_MINUTE},
            crashes=crashes(pipeline.log.read_text(errors="replace")), left_running=pipeline.left_running(),
        )  # fmt: skip


def _carry_out(plan: ChaosPlan, feeder: Feeder, inflictor: Inflictor, show: Callable[[str], None]) -> None:
    start = shown = time.time()
    faults, bursts = list(plan.faults), list(plan.bursts)
    while (now := time.time()) < start + plan.seconds:
        if bursts and bursts[0].at_s <= now - start:
            feeder.queue(bursts.pop(0).tasks)
        if faults and faults[0].at_s <= now - start:
            inflictor.begin(faults.pop(0))
        inflictor.work()
        if now - shown >= LOOK_EVERY_S:
            shown = now
            show(f"{now - start:.0f} s: {len(feeder.tasks)} tasks queued, {len(inflictor.inflicted)} faults are over")
        time.sleep(STEP_S)


def _finish(feeder: Feeder, pipeline: Pipeline, show: Callable[[str], None]) -> None:
    """Wait until only those tasks are pending whose result the API refuses; the judge names what is missing."""
    start = progress_at = shown = time.time()
    left = before = len(feeder.tasks)
    while left > 0 and (now := time.time()) < progress_at + STALLED_AFTER_S:
        left = pipeline.sandbox.summary()["api"]["tasks"]["pending"] - feeder.unfinished_at_the_end
        if left < before:
            before, progress_at = left, now
        if now - shown >= LOOK_EVERY_S:
            shown = now
            show(f"{now - start:.0f} s later: {left} tasks are not done")
        time.sleep(STEP_S)
    show(f"{time.time() - start:.0f} s after the last fault: {left} tasks are not done")


def crashes(log: str) -> list[str]:
    """The ends of processes that no fault explains, and the tracebacks, as the log of a run tells them."""
    ends = [match for match in _EXIT.finditer(log) if not match[2].startswith(EXPECTED_ENDS)]
    found = [f"{match[1]} ended by itself ({match[2]})" for match in ends]
    return found + ["a traceback is in the log"] * log.count("Traceback (most recent call last)")
