"""SIGKILL the rate limiter and the embedders while a quota is being used up: it is not exceeded, and little is lost."""

from __future__ import annotations

from sandbox.pipeline import Pipeline
from tests.faults.conftest import SETTINGS
from tests.pipelines import Start

LIMIT = 1500
BATCH = 8
SLOTS = 2 * 5
VICTIMS = ("rate_limiter", "embedder_00", "rate_limiter", "rate_limiter", "embedder_01")


def test_killed_again_and_again_no_quota_is_exceeded(start: Start) -> None:
    quota = {"RATE_LIMIT_PER_HOUR": LIMIT, "EMBED_BATCH_SIZE": BATCH, "EMBEDDING_CACHE_SIZE": 0}
    pipeline = start(**{**SETTINGS, **quota})
    sandbox = pipeline.sandbox
    sandbox.settings(openai={"latency_seconds": 0.5})
    sandbox.queue(2 * LIMIT, distinct=True)
    killed: set[int] = set()
    for victim in VICTIMS:
        before = inputs(pipeline)
        pipeline.wait_until(lambda before=before: inputs(pipeline) >= before + 20, "work to go on")  # type: ignore[misc]
        pipeline.wait_until(lambda victim=victim: runs(pipeline, victim, killed), "its restart")  # type: ignore[misc]
        killed.add(pipeline.kill(victim))
    pipeline.wait_until(lambda: pipeline.events("tasks_deferred"), "the quota to be used up", 90.0)
    sandbox.wait_until(lambda told: told["openai"]["under_way"] == 0)
    assert inputs(pipeline) <= LIMIT
    least = LIMIT - len(VICTIMS) * SLOTS * BATCH
    assert inputs(pipeline) >= least, "a kill leaves no more charged than a batch for each slot"


def inputs(pipeline: Pipeline) -> int:
    return int(pipeline.sandbox.summary()["openai"]["inputs"])


def runs(pipeline: Pipeline, program: str, killed: set[int]) -> bool:
    told = pipeline.programs()[program]
    return told["statename"] == "RUNNING" and told["pid"] not in killed
