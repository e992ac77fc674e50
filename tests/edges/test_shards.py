"""Two pipelines on one API: each does its part, and no task is done twice."""

from __future__ import annotations

from typing import Any

from sandbox.client import Sandbox
from stages.fetcher.shard import Shard
from tests.pipelines import Start

TASKS = 1000
SETTINGS: dict[str, Any] = {
    "PROCESSING_MODE": "openai",  # so that the sandbox counts what is paid
    "EMBEDDING_DIMENSIONS": 256,
    "POLLING_INTERVAL_SECONDS": 0.5,
    "SHARD_COUNT": 2,
    "MAX_IN_FLIGHT": 400,
}


def named(event: dict[str, Any]) -> list[str]:
    return list(event.get("task_ids", [event.get("task_id")]))


def test_two_pipelines_do_disjoint_parts(sandbox: Sandbox, start: Start) -> None:
    ids = sandbox.queue(TASKS)
    mine = {index: [i for i in ids if Shard(index, 2).owns(i)] for index in (0, 1)}
    first = start(SHARD_INDEX=0, **SETTINGS)
    # alone, it does its own part and leaves the other: also where that hides its own on the page
    first.wait_until(lambda: sandbox.summary()["api"]["accepted"] == len(mine[0]), "the first part", 60)
    assert {sandbox.task(task_id)["state"] for task_id in mine[1][:50]} == {"pending"}
    second = start(SHARD_INDEX=1, **SETTINGS)
    second.wait_until(lambda: sandbox.summary()["api"]["accepted"] == TASKS, "the second part", 60)
    more = sandbox.queue(TASKS)
    second.wait_until(lambda: sandbox.summary()["api"]["accepted"] == 2 * TASKS, "both parts at a time", 60)
    told = sandbox.summary()
    assert told["api"]["tasks"]["succeeded"] == 2 * TASKS
    assert told["api"]["accepted_twice"] == 0
    assert told["openai"]["inputs"] == 2 * TASKS
    for index, pipeline in enumerate((first, second)):
        leased = {task_id for event in pipeline.events("tasks_leased") for task_id in named(event)}
        assert leased == {task_id for task_id in ids + more if Shard(index, 2).owns(task_id)}
