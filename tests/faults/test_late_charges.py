"""A request that leaves long after its charge would be counted in the wrong minute: it is not sent.

The embedder is stopped (SIGSTOP) while batches are on their way to it. The limit holds in every interval, as the
provider counts it.
"""

from __future__ import annotations

import random
import signal
from pathlib import Path
from typing import Any

import pytest

from sandbox.client import Json, Sandbox
from sandbox.pipeline import Pipeline
from tests.pipelines import pipeline_with_own_sandbox

LIMIT = 100
SETTINGS: dict[str, Any] = {
    "PROCESSING_MODE": "openai", "EMBEDDING_DIMENSIONS": 64, "POLLING_INTERVAL_SECONDS": 0.3, "EMBEDDER_PROCESSES": 2,
    "CONCURRENCY_LIMIT": 2, "EMBEDDING_CACHE_SIZE": 0, "RATE_LIMIT_PER_MINUTE": LIMIT, "HOLD_SECONDS": 600,
}  # fmt: skip


def most_in_a_minute(charges: list[Json]) -> int:
    """The most texts that the provider got in any interval of 60 s."""
    sums = [sum(other["inputs"] for other in charges if 0 <= other["time"] - one["time"] < 60) for one in charges]
    return int(max(sums))


def accepted(sandbox: Sandbox) -> int:
    return int(sandbox.summary()["api"]["accepted"])


@pytest.mark.timeout(400)
def test_what_an_embedder_could_not_send_in_time_is_not_sent_late(tmp_path: Path) -> None:
    with pipeline_with_own_sandbox(tmp_path, **SETTINGS) as pipeline:
        sandbox = pipeline.sandbox
        pipeline.kill("embedder_00", signal.SIGSTOP)
        try:
            sandbox.queue(2 * LIMIT)  # the rate limiter notices after 3 s that the embedder is silent
            pipeline.wait_until(lambda: accepted(sandbox) > 0, "the other embedder to work")
            pipeline.run_for(54)
        finally:
            pipeline.kill("embedder_00", signal.SIGCONT)
        pipeline.wait_until(lambda: accepted(sandbox) >= 2 * LIMIT, "the second minute's tasks", 120)
        assert most_in_a_minute(sandbox.charges("openai")) <= LIMIT
        assert sandbox.summary()["openai"]["paid_again"] == 0


@pytest.mark.timeout(400)
def test_the_limit_holds_while_embedders_are_stopped_at_any_moment(tmp_path: Path) -> None:
    chance = random.Random(11)
    with pipeline_with_own_sandbox(tmp_path, {"openai": {"latency_seconds": 0.05}}, **SETTINGS) as pipeline:
        sandbox = pipeline.sandbox
        sandbox.queue(1000)
        stopped: dict[str, float] = {}
        for _ in range(40):
            name = chance.choice(["embedder_00", "embedder_01", "rate_limiter"])
            if name not in stopped:
                stopped[name] = chance.choice([0.3, 2.0, 8.0, 15.0, 40.0])
                pipeline.kill(name, signal.SIGSTOP)
            pipeline.run_for(pause := chance.choice([0.2, 1.0, 4.0]))
            stopped = _continue_those_whose_time_is_over(pipeline, {n: left - pause for n, left in stopped.items()})
        _continue_those_whose_time_is_over(pipeline, dict.fromkeys(stopped, 0.0))
        had = accepted(sandbox)
        pipeline.wait_until(lambda: accepted(sandbox) > had, "work to go on", 120)
        charges = sandbox.charges("openai")
        assert sum(charge["inputs"] for charge in charges) > LIMIT
        assert most_in_a_minute(charges) <= LIMIT


def _continue_those_whose_time_is_over(pipeline: Pipeline, left_s: dict[str, float]) -> dict[str, float]:
    for name, left in left_s.items():
        if left <= 0:
            pipeline.kill(name, signal.SIGCONT)
    return {name: left for name, left in left_s.items() if left > 0}
