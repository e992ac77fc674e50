"""SIGTERM during provider calls: they end, their results are stored, and no other call begins."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from sandbox.pipeline import Pipeline
from tests.providers.conftest import running
from tests.providers.job import Job

TASKS = 800
THINKS = 0.4
EMBEDDERS = ("embedder:embedder_00", "embedder:embedder_01")
NO_CACHE = {"EMBEDDING_CACHE_SIZE": 0, "LEASE_SECONDS": 3}
"""Without a cache only the stop keeps a text from being paid for twice; short leases end soon."""


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    with running(tmp_path_factory.mktemp("stopping"), **NO_CACHE) as pipeline:
        yield pipeline


def test_a_back_off_does_not_delay_the_stop(job: Job, pipeline: Pipeline) -> None:
    job.sandbox.fault("openai", status=429, headers={"retry-after": "9"}, body='{"error": {"message": "slow down"}}')
    job.queue(TASKS)
    pipeline.wait_until(lambda: "429" in job.statuses, "the 429")
    began = time.monotonic()
    for program in EMBEDDERS:
        pipeline.supervisor("stopProcess", program, False)
    pipeline.wait_until(lambda: len(pipeline.events("process_stopped")) == 2, "both embedders to stop")
    assert time.monotonic() - began < 8, "less than what the provider asked for"
    assert job.states == {"pending": TASKS}
    job.sandbox.clear_faults()
    pipeline.wait_until(
        lambda: not any(pipeline.programs()[p.partition(":")[2]]["pid"] for p in EMBEDDERS), "their end"
    )
    for program in EMBEDDERS:
        pipeline.supervisor("startProcess", program, False)
    job.wait_done()
    assert job.states == {"succeeded": TASKS}


def test_a_stop_loses_no_vectors_that_were_paid_for(job: Job, pipeline: Pipeline) -> None:
    job.sandbox.settings(openai={"latency_seconds": THINKS})
    job.queue(TASKS)

    def in_the_middle() -> bool:
        return 0 < job.paid < TASKS / 2 and job.sandbox.summary()["openai"]["under_way"] == 4

    pipeline.wait_until(in_the_middle, "the middle of provider calls")
    job.sandbox.settings(openai={"latency_seconds": 3.0})  # so that it is still the middle when the stop arrives
    stopped = len(pipeline.events("process_stopped"))
    pipeline.stop()
    assert job.paid < TASKS
    assert len(pipeline.events("process_stopped")) == stopped + 7
    job.sandbox.settings(openai={"latency_seconds": 0.0})
    pipeline.start()
    job.wait_done(60)
    assert job.states == {"succeeded": TASKS}
    assert (job.paid, job.paid_again) == (TASKS, 0)
