"""The whole pipeline against an API that refuses the PATCH of one task, and behind a proxy that answers for the API."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.client import Json, Sandbox
from sandbox.pipeline import Pipeline
from stages.dead_letters import Letters
from stages.dead_letters import letters as read_letters
from tests.pipelines import pipeline_with_own_sandbox
from tests.processes import run_module

TASKS = 300
WORDS = '{"requestId": "r-42", "statusCode": 500, "message": "the callback of this task failed"}'


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    settings: dict[str, object] = {"PROCESSING_MODE": "openai", "POLLING_INTERVAL_SECONDS": 0.5, "LEASE_SECONDS": 3}
    with pipeline_with_own_sandbox(tmp_path_factory.mktemp("p"), None, **settings) as running:
        yield running


def letters(pipeline: Pipeline) -> Letters:
    return read_letters(Path(pipeline.environment["STATE_DIR"]))


def paid(summary: Json) -> int:
    return int(summary["openai"]["inputs"])


@pytest.fixture(autouse=True)
def at_rest(outside: Sandbox, pipeline: Pipeline) -> Iterator[None]:
    """End each test without dead letters and without pending tasks."""
    pipeline.wait_ready()
    yield
    outside.clear_faults()
    run_module("stages", "dead-letters", "drop", "all", environment=pipeline.environment)
    outside.wait_until(lambda summary: summary["api"]["tasks"]["pending"] == 0, 90)


def queue_one_refused(outside: Sandbox, status: int, body: str, headers: dict[str, str]) -> str:
    """Queue `TASKS` tasks; the API refuses every PATCH of one of them, which this returns."""
    waits = outside.fault("api", method="PATCH", delay=1)  # no PATCH ends before the fault is in force
    refused = outside.queue(TASKS)[TASKS // 2]
    outside.fault("api", method="PATCH", path=refused, status=status, body=body, headers=headers)
    outside.clear_faults(waits)
    return refused


@pytest.mark.parametrize(
    ("status", "body", "headers", "words"),
    [
        (500, WORDS, {}, "PATCH answered 500: the callback of this task failed (requestId r-42)"),
        (302, "", {"Location": "/login"}, "PATCH answered 302"),
        (503, WORDS, {"Retry-After": "2"}, "PATCH answered 503: the callback of this task failed (requestId"),
        (200, "<html>a login page</html>", {}, "PATCH answered 200 (not in the API's own JSON"),
    ],
)
def test_one_task_that_is_always_refused_becomes_a_dead_letter_while_all_others_are_done(
    outside: Sandbox, pipeline: Pipeline, status: int, body: str, headers: dict[str, str], words: str
) -> None:
    refused = queue_one_refused(outside, status, body, headers)
    outside.wait_until(lambda summary: summary["api"]["tasks"]["pending"] == 1, 20)
    assert pipeline.get("/ready")[0] == 200, pipeline.get("/ready")
    number = 0

    def is_dead() -> bool:
        nonlocal number
        outside.queue(1, text=f"one more {status} {number}")
        number += 1
        return refused in letters(pipeline)

    pipeline.wait_until(is_dead, "the dead letter")
    letter = letters(pipeline)[refused]
    assert letter.status == status
    assert letter.reason.startswith(words)
    assert set(letters(pipeline)) == {refused}
    outside.wait_until(lambda summary: summary["api"]["tasks"]["pending"] == 1, 20)
    pipeline.wait_ready()
    assert len([patch for patch in outside.task(refused)["patches"] if not patch["accepted"]]) <= 4


@pytest.mark.parametrize(
    ("status", "body", "content_type"),
    [
        (404, "404 page not found", "text/plain"),
        (404, "", "text/plain"),
        (200, "<html><h1>Maintenance</h1></html>", "text/html"),
    ],
)
def test_a_proxy_that_answers_for_the_api_settles_no_task(
    outside: Sandbox, pipeline: Pipeline, status: int, body: str, content_type: str
) -> None:
    before = outside.summary()
    outside.fault("api", method="PATCH", status=status, body=body, headers={"Content-Type": content_type})
    ids = outside.queue(TASKS)
    pipeline.wait_until(lambda: pipeline.get("/ready")[0] == 503, "the outage on /ready")
    pipeline.run_for(4)
    assert outside.summary()["api"]["tasks"]["pending"] == TASKS
    outside.clear_faults()
    summary = outside.wait_until(lambda told: told["api"]["tasks"]["pending"] == 0, 60)
    assert {outside.task(task_id)["state"] for task_id in ids} == {"succeeded"}
    assert paid(summary) - paid(before) == TASKS  # none was paid again
    assert letters(pipeline) == {}
    pipeline.wait_ready()
