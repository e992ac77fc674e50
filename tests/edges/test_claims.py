"""CLAIM_TASKS with a second pipeline that claims tasks, and with crashes."""

from __future__ import annotations

from collections import Counter
from typing import Any

from sandbox.client import Sandbox
from tests.pipelines import Start

TASKS = 600
SETTINGS: dict[str, Any] = {
    "PROCESSING_MODE": "openai",
    "EMBEDDING_DIMENSIONS": 256,
    "POLLING_INTERVAL_SECONDS": 0.5,
    "CLAIM_TASKS": "true",
    "LEASE_SECONDS": 2,
    "EMBED_BATCH_SIZE": 16,
}


def states(sandbox: Sandbox, task_id: str) -> list[Any]:
    return [patch["state"] for patch in sandbox.task(task_id)["patches"] if patch["accepted"]]


def done(sandbox: Sandbox, number: int) -> bool:
    return int(sandbox.summary()["api"]["accepted"]) >= number


def test_tasks_are_claimed_first_and_reclaimed_after_crashes(sandbox: Sandbox, start: Start) -> None:
    others = sandbox.queue(20)
    for task_id in others:
        sandbox.fault("api", method="PATCH", path=task_id, status=409)
    pipeline = start(**SETTINGS)
    pipeline.wait_until(lambda: len(pipeline.events("claim_refused")) == 20, "the claims to be refused")
    sandbox.clear_faults()
    ids = sandbox.queue(TASKS)
    pipeline.wait_until(lambda: done(sandbox, TASKS), "all tasks")
    assert Counter(tuple(states(sandbox, task_id)) for task_id in ids) == {("in_progress", "succeeded"): TASKS}
    assert not any(states(sandbox, task_id) for task_id in others)

    sandbox.settings(openai={"latency_seconds": 0.3})
    more = sandbox.queue(TASKS)
    for stage in ("rate_limiter", "fetcher"):
        pipeline.wait_until(lambda: sandbox.summary()["api"]["tasks"].get("in_progress", 0) > 50, "claimed tasks")
        pipeline.kill(stage)
    pipeline.wait_until(
        lambda: all(states(sandbox, task_id)[-1:] == ["succeeded"] for task_id in more),  # `others` may be done by now
        "the tasks that were claimed when a process died",
        60,
    )
    assert pipeline.events("claimed_tasks_recovered")
    summary = sandbox.summary()
    assert not any(states(sandbox, task_id)[-1:] == ["in_progress"] for task_id in ids)
    assert (summary["api"]["accepted_twice"], summary["openai"]["paid_again"]) == (0, 0)
