"""SIGTERM in the middle of provider calls: they end, their results are stored, and nothing else is begun."""

from __future__ import annotations

import time
from pathlib import Path

from sandbox.client import Sandbox
from sandbox.pipeline import Pipeline
from tests.providers.conftest import SETTINGS
from tests.providers.job import Job
from tests.waiting import wait_until

TASKS = 800
THINKS = 0.4
NO_CACHE = {"EMBEDDING_CACHE_SIZE": 0, "LEASE_SECONDS": 3}
"""Nothing but the stop itself keeps a text from being paid for twice, and what was leased is free again soon."""


def test_nothing_that_was_paid_for_is_lost(sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.settings(openai={"latency_seconds": THINKS})
    with Pipeline(sandbox, tmp_path, **{**SETTINGS, **NO_CACHE}) as pipeline:
        pipeline.wait_ready()
        job = Job(pipeline).queue(TASKS)
        wait_until(lambda: 0 < job.paid < TASKS / 2 and sandbox.summary()["openai"]["under_way"] == 4)
        pipeline.stop()
        paid = job.paid
        assert paid < TASKS
        assert len(pipeline.events("stopped")) == 7
        pipeline.start()
        job.wait_done(60)
        assert job.states == {"succeeded": TASKS}
        assert (job.paid, job.paid_again) == (TASKS, 0)


def test_a_back_off_does_not_delay_it(sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.fault("openai", status=429, headers={"retry-after": "9"}, body='{"error": {"message": "slow down"}}')
    with Pipeline(sandbox, tmp_path, **{**SETTINGS, **NO_CACHE}) as pipeline:
        pipeline.wait_ready()
        job = Job(pipeline).queue(TASKS)
        wait_until(lambda: "429" in job.statuses)
        began = time.monotonic()
        for program in ("embedder_00", "embedder_01"):
            pipeline.supervisor("stopProcess", f"embedder:{program}", False)
        pipeline.wait_until(lambda: len(pipeline.events("stopped")) == 2, "both embedders to stop")
        assert time.monotonic() - began < 3
        pipeline.supervisor("stopAllProcesses", False)
    assert job.states == {"pending": TASKS}
