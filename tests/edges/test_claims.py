"""CLAIM_TASKS with a second pipeline that claims tasks, and with crashes."""

from __future__ import annotations

import time
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
    sandbox.settings(api={"refuse_second_claims": True})
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


def test_claims_that_the_api_refuses_for_some_tasks_delay_no_other_task(sandbox: Sandbox, start: Start) -> None:
    sandbox.settings(api={"refuse_second_claims": True})
    pipeline = start(**SETTINGS, MAX_IN_FLIGHT=32)
    waits_for_fault = sandbox.fault("api", path="pending", delay=1)
    bad = sandbox.queue(32)
    sandbox.fault("api", method="PATCH", path="|".join(bad), status=500)
    sandbox.clear_faults(waits_for_fault)
    pipeline.wait_until(lambda: pipeline.events("claim_failed"), "the refused claims")
    good = sandbox.queue(200)
    pipeline.wait_until(lambda: all(states(sandbox, task_id)[-1:] == ["succeeded"] for task_id in good), "the others")
    pipeline.wait_ready(5)
    waits = []
    for _ in range(10):
        (task_id,), queued_at = sandbox.queue(1), time.time()
        pipeline.wait_until(lambda done=task_id: states(sandbox, done)[-1:] == ["succeeded"], "a good task")  # type: ignore[misc]
        waits.append(sandbox.task(task_id)["patches"][-1]["time"] - queued_at)
    assert max(waits) < 3
    assert pipeline.get("/ready")[0] == 200
    assert not any(states(sandbox, task_id) for task_id in bad)
    sandbox.clear_faults()
    # the back-off of a refused claim is at most a minute
    pipeline.wait_until(lambda: all(states(sandbox, i)[-1:] == ["succeeded"] for i in bad), "the refused ones", 75)


def test_an_api_that_accepts_two_claims_of_one_task_is_told_on_ready(sandbox: Sandbox, start: Start) -> None:
    pipeline = start(**SETTINGS)
    (task_id,) = sandbox.queue(1)
    pipeline.wait_until(lambda: "accepted a second claim" in str(pipeline.get("/ready")), "the notice")
    assert pipeline.get("/ready")[0] == 200
    assert pipeline.events("second_claim_accepted")
    pipeline.wait_until(lambda: states(sandbox, task_id)[-1:] == ["succeeded"], "the task")
    metric = 'api_second_claims_total{outcome="accepted"} 1'
    pipeline.wait_until(lambda: metric in str(pipeline.get("/metrics")[1]), "the metric")
