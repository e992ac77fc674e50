"""Two pipelines on one API: each processes its shard, and no task is processed twice."""

from __future__ import annotations

from typing import Any

from sandbox.client import Sandbox
from stages.fetcher.shard import Shard
from tests.pipelines import Start

TASKS = 1000
SETTINGS: dict[str, Any] = {
    "PROCESSING_MODE": "openai",  # so that the sandbox counts what is charged
    "EMBEDDING_DIMENSIONS": 256,
    "POLLING_INTERVAL_SECONDS": 0.5,
    "SHARD_COUNT": 2,
    "MAX_IN_FLIGHT": 400,
    "LOG_LEVEL": "DEBUG",  # so that the log names every id
}


def task_ids_of(event: dict[str, Any]) -> list[str]:
    return [*event.get("task_ids", ()), *([event["task_id"]] if "task_id" in event else ())]


def test_two_pipelines_process_disjoint_shards(sandbox: Sandbox, start: Start) -> None:
    ids = sandbox.queue(TASKS)
    mine = {index: [i for i in ids if Shard(index, 2).owns(i)] for index in (0, 1)}
    first = start(SHARD_INDEX=0, **SETTINGS)
    # Alone, the first pipeline processes only its shard, even if tasks of the other shard fill the page.
    first.wait_until(lambda: sandbox.summary()["api"]["accepted"] == len(mine[0]), "the first part", 60)
    assert {sandbox.task(task_id)["state"] for task_id in mine[1][:50]} == {"pending"}
    second = start(SHARD_INDEX=1, **SETTINGS)
    second.wait_until(lambda: sandbox.summary()["api"]["accepted"] == TASKS, "the second part", 60)
    more = sandbox.queue(TASKS)
    second.wait_until(lambda: sandbox.summary()["api"]["accepted"] == 2 * TASKS, "both shards together", 60)
    summary = sandbox.summary()
    assert summary["api"]["tasks"]["succeeded"] == 2 * TASKS
    assert summary["api"]["accepted_twice"] == 0
    assert summary["openai"]["inputs"] == 2 * TASKS
    for index, pipeline in enumerate((first, second)):
        leased = {task_id for event in pipeline.events("tasks_leased") for task_id in task_ids_of(event)}
        assert leased == {task_id for task_id in ids + more if Shard(index, 2).owns(task_id)}
