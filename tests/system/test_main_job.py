"""Pending tasks are processed, embeddings are sent to the API, and the pages of the monitor report it."""

from __future__ import annotations

from collections import Counter

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from sandbox.client import Sandbox
from sandbox.pipeline import Pipeline
from stages.embedder.providers.mock import vectors


def settled(sandbox: Sandbox, number: int) -> bool:
    return int(sandbox.summary()["api"]["accepted"]) >= number


def test_every_task_gets_its_vector_once_and_all_embedders_get_work(outside: Sandbox, pipeline: Pipeline) -> None:
    before = outside.summary()["api"]["accepted"]
    ids = outside.queue(1500, text="text {n}", model="text-embedding-3-small")
    pipeline.wait_until(lambda: settled(outside, before + 1500), "1,500 tasks")
    summary = outside.summary()["api"]
    assert summary["accepted_twice"] == 0
    results = outside.results()
    expected = vectors("text-embedding-3-small", [f"text {n}" for n in range(1500)])
    received = np.array([results[task_id] for task_id in ids], np.float32)
    np.testing.assert_array_equal(received, expected)
    busy = Counter(event["stage"] for event in pipeline.events("batch_started"))
    assert set(busy) == {"embedder_00", "embedder_01", "embedder_02"}


def test_a_vector_has_the_length_of_its_model(outside: Sandbox, pipeline: Pipeline) -> None:
    (task_id,) = outside.queue_tasks([{"text": "a longer vector", "model": "text-embedding-3-large"}])
    pipeline.wait_until(lambda: task_id in outside.results(), "the large vector")
    assert len(outside.results()[task_id]) == 3072


def test_one_task_can_be_followed_from_fetch_to_patch_by_its_id(outside: Sandbox, pipeline: Pipeline) -> None:
    (task_id,) = outside.queue_tasks([{"text": "follow me"}])
    pipeline.wait_until(lambda: outside.task(task_id)["state"] == "succeeded", "the task")

    def events() -> list[str]:
        return [e["event"] for e in pipeline.events() if task_id in (e.get("task_id"), *e.get("task_ids", ()))]

    pipeline.wait_until(lambda: "results_accepted" in events(), "the last event of the task")
    assert events() == ["tasks_leased", "batch_started", "results_stored", "results_accepted"]
    assert "follow me" not in pipeline.log.read_text()


def test_a_malformed_task_is_reported_failed_with_the_reason(outside: Sandbox, pipeline: Pipeline) -> None:
    (task_id,) = outside.queue_tasks([{"content": {"model": "text-embedding-3-small"}}])
    pipeline.wait_until(lambda: outside.task(task_id)["state"] == "failed", "the failure")
    error = outside.results()[task_id]["error"]
    assert error["code"] == "invalid_content"
    assert "text" in error["message"]


def test_a_task_of_an_unknown_type_is_left_alone(outside: Sandbox, pipeline: Pipeline) -> None:
    (other,) = outside.queue_tasks([{"type": "defining_topics", "text": "not ours"}])
    (ours,) = outside.queue_tasks([{"text": "ours"}])
    pipeline.wait_until(lambda: outside.task(ours)["state"] == "succeeded", "our task")
    assert outside.task(other)["state"] == "pending"
    pipeline.wait_until(lambda: pipeline.events("unknown_task_type"), "the log line")
    assert [event["type"] for event in pipeline.events("unknown_task_type")] == ["defining_topics"]


def test_the_pages_report_the_processed_tasks(outside: Sandbox, pipeline: Pipeline) -> None:
    outside.queue(10)
    done = outside.wait_until(lambda summary: summary["api"]["tasks"].get("succeeded", 0) >= 10)["api"]["tasks"][
        "succeeded"
    ]
    status, health = pipeline.get("/health")
    assert status == 200, health
    assert health["status"] == "healthy"
    assert health["service"] == "ai-task-processor"
    assert health["rate_limiting"]["enabled"] is True
    assert health["rate_limiting"]["strategy"] == "rolling"
    assert health["rate_limiting"]["current_usage"] == {}
    assert health["mock"] is True
    assert pipeline.get("/ready")[0] == 200

    def processed() -> float:
        families = {family.name: family for family in text_string_to_metric_families(pipeline.get("/metrics")[1])}
        samples = families["ai_tasks_processed"].samples
        return sum(s.value for s in samples if s.labels == {"task_type": "text_embedding", "status": "succeeded"})

    pipeline.wait_until(lambda: processed() >= done, "the metrics")


def test_the_program_names_are_those_of_the_contract(pipeline: Pipeline) -> None:
    programs = pipeline.programs()
    assert set(programs) == {
        "fetcher", "token_broker", "rate_limiter", "publisher", "monitor",
        "embedder_00", "embedder_01", "embedder_02",
    }  # fmt: skip
    assert {program["group"] for name, program in programs.items() if name.startswith("embedder")} == {"embedder"}
