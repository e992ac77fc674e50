"""A provider that throttles: all embedders pause, and then continue with full batches."""

from __future__ import annotations

import math
import time
from itertools import pairwise

import pytest

from sandbox.pipeline import Pipeline
from tests.providers.conftest import SETTINGS
from tests.providers.job import Job, wait_for_words

FULL = SETTINGS["EMBED_BATCH_SIZE"]
TASKS = 32 * FULL
THINKS = 0.1
"""Seconds in which requests that were sent before the 429 may still arrive."""
TOO_MANY = (
    '{"error": {"message": "Rate limit reached for requests", "type": "requests", "code": "rate_limit_exceeded"}}'
)


def moment(job: Job) -> tuple[float, float]:
    """Return the two times between which the 429 was sent."""
    earliest = time.time()

    def sent() -> bool:
        nonlocal earliest
        now = time.time()
        if "429" in job.statuses:
            return True
        earliest = now
        return False

    job.pipeline.wait_until(sent, "the 429")
    return earliest, time.time()


@pytest.mark.parametrize(
    ("seconds", "headers"),
    [
        (3.0, {"retry-after": "3"}),
        (2.5, {"retry-after-ms": "2500", "retry-after": "60"}),
        (12.0, {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "12s"}),
    ],
    ids=["seconds", "milliseconds", "longer than a slot waits"],
)
def test_one_429_pauses_all_embedders_and_then_full_batches_go_out(
    job: Job, seconds: float, headers: dict[str, str]
) -> None:
    job.sandbox.settings(openai={"latency_seconds": THINKS})
    job.sandbox.fault("openai", skip=5, times=1, status=429, headers=headers, body=TOO_MANY)
    job.queue(TASKS)
    earliest, asked = moment(job)
    if seconds > 5:
        assert "asked again in" in wait_for_words(job.pipeline, "openai: 429: Rate limit reached for requests")
    job.wait_done()
    assert job.states == {"succeeded": TASKS}
    assert (job.paid, job.paid_again) == (TASKS, 0)
    times = [charge["time"] for charge in job.charges]
    late = [at - asked for at in times if asked + 2 * THINKS + 0.1 < at < earliest + seconds - 0.2]
    assert late == [], "the pause holds for both embedders"
    assert max(b - a for a, b in pairwise(sorted(times))) < seconds + 8, "and ends when it is over"
    afterwards = sorted(charge["inputs"] for charge in job.charges if charge["time"] > earliest + seconds - 0.2)
    assert len(afterwards) <= math.ceil(sum(afterwards) / FULL) + 3
    assert job.requests == len(times) + 1, "only one request was refused"
    assert {event["stage"] for event in job.pipeline.events("batch_started")} == {"embedder_00", "embedder_01"}


def test_rate_limit_headers_slow_requests_down_before_a_429(job: Job, pipeline: Pipeline) -> None:
    job.queue(1, text="sees the headers {n}").wait_done()
    left = {"remaining": "0", "limit": "100", "reset": "200s"}
    job.sandbox.settings(openai={"headers": {f"x-ratelimit-{name}-requests": value for name, value in left.items()}})
    job.queue(1, text="sees the headers {n}").wait_done()
    job.sandbox.settings(openai={"headers": {}})
    job.queue(100).wait_done()
    told, *others = (charge["time"] for charge in job.charges[1:])
    assert min(others) - told > 1.0, "one request in two seconds is left"
