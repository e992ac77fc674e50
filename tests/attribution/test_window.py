"""The whole pipeline while the API refuses the results of some tasks: what these cost the others, and how they end."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox.client import Sandbox
from sandbox.pipeline import Pipeline
from stages.dead_letters import letters
from tests.pipelines import pipeline_with_own_sandbox
from tests.processes import run_module

MAX_IN_FLIGHT = 32
TIMEOUT_S = 12
SETTINGS: dict[str, object] = {
    "PROCESSING_MODE": "openai",
    "EMBEDDING_DIMENSIONS": 64,
    "MAX_IN_FLIGHT": MAX_IN_FLIGHT,
    "POLLING_INTERVAL_SECONDS": 0.5,
    "REQUEST_TIMEOUT": TIMEOUT_S,
    "LEASE_SECONDS": 3,
}
ONE_PROBE_S = 3.0
"""The longest pause before the first two probes of an open circuit breaker, and the time of a task without faults."""
PATCH = {"method": "PATCH"}


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    with pipeline_with_own_sandbox(tmp_path_factory.mktemp("p"), None, **SETTINGS) as running:
        yield running


@pytest.fixture(autouse=True)
def at_rest(outside: Sandbox, pipeline: Pipeline) -> Iterator[None]:
    """Begin and end each test with an API that works, without dead letters and pending tasks."""
    pipeline.wait_ready()
    (task_id,) = outside.queue(1)
    pipeline.wait_until(lambda: outside.task(task_id)["state"] == "succeeded", "the first task")
    yield
    outside.clear_faults()
    outside.wait_until(lambda summary: not summary["api"]["tasks"]["pending"] or drop(pipeline), 90)
    outside.wait_until(lambda summary: summary["api"]["tasks"]["pending"] == 0, 90)


def drop(pipeline: Pipeline) -> bool:
    run_module("stages", "dead-letters", "drop", "all", environment=pipeline.environment)
    return False


def dead(pipeline: Pipeline) -> set[str]:
    return set(letters(Path(pipeline.environment["STATE_DIR"])))


def queue_bad(sandbox: Sandbox, number: int, **effect: Any) -> list[str]:
    """Queue tasks whose results the API always refuses in this way, or lets hang."""
    waits = sandbox.fault("api", path="pending", delay=0.5)  # no page shows them before the fault is in force
    ids = sandbox.queue(number)
    sandbox.fault("api", **PATCH, path="|".join(ids), **effect)
    sandbox.clear_faults(waits)
    return ids


def wait_done(sandbox: Sandbox, pipeline: Pipeline, ids: Iterable[str], seconds: float) -> None:
    pipeline.wait_until(
        lambda: all(sandbox.task(task_id)["state"] == "succeeded" for task_id in ids), "the good tasks", seconds
    )


def one_each_second(sandbox: Sandbox, seconds: int) -> list[float]:
    """Queue a good task each second; returns how long each took."""
    queued = []
    for _ in range(seconds):
        queued.append((sandbox.queue(1)[0], time.time()))
        time.sleep(1)
    waits = []
    for task_id, queued_at in queued:
        sandbox.wait_until(lambda _, done=task_id: sandbox.task(done)["state"] == "succeeded", 60)  # type: ignore[misc]
        waits.append(sandbox.task(task_id)["patches"][-1]["time"] - queued_at)
    return waits


def test_as_many_refused_tasks_as_max_in_flight_keep_no_other_from_being_done(
    outside: Sandbox, pipeline: Pipeline
) -> None:
    bad = queue_bad(outside, MAX_IN_FLIGHT, status=500)
    good = outside.queue(200)
    wait_done(outside, pipeline, good, 30)

    def all_are_dead() -> bool:
        outside.queue(1)
        return dead(pipeline) == set(bad)

    pipeline.wait_until(all_are_dead, "the dead letters", 60)
    pipeline.wait_ready(5)


def test_a_deleted_task_that_is_redirected_becomes_a_dead_letter_while_polls_succeed(
    outside: Sandbox, pipeline: Pipeline
) -> None:
    bad = queue_bad(outside, 1, status=302, headers={"Location": "/not-found"})
    pipeline.wait_until(lambda: dead(pipeline) == set(bad), "the dead letter")
    letter = letters(Path(pipeline.environment["STATE_DIR"]))[bad[0]]
    assert letter.reason == "PATCH answered 302"
    assert pipeline.get("/ready")[0] == 200


def test_more_refused_tasks_than_max_in_flight_keep_no_other_from_being_done(
    outside: Sandbox, pipeline: Pipeline
) -> None:
    queue_bad(outside, MAX_IN_FLIGHT + MAX_IN_FLIGHT // 2, status=503)
    wait_done(outside, pipeline, outside.queue(100), 45)


def test_eight_refused_tasks_of_forty_delay_the_others_by_one_probe_at_most(
    outside: Sandbox, pipeline: Pipeline
) -> None:
    bad = queue_bad(outside, 8, status=500)
    began = time.time()
    good = outside.queue(32)
    wait_done(outside, pipeline, good, 30)
    assert max(outside.task(task_id)["patches"][-1]["time"] for task_id in good) - began < ONE_PROBE_S
    assert not {outside.task(task_id)["state"] for task_id in bad} - {"pending"}


def test_ten_refused_tasks_do_not_delay_a_good_one_each_second(outside: Sandbox, pipeline: Pipeline) -> None:
    queue_bad(outside, 10, status=500)
    waits = one_each_second(outside, 20)
    assert max(waits) < ONE_PROBE_S
    assert sorted(waits)[10] < 1
    assert pipeline.get("/ready")[0] == 200


def test_twenty_tasks_that_hang_do_not_delay_a_good_one_each_second(outside: Sandbox, pipeline: Pipeline) -> None:
    bad = queue_bad(outside, 20, delay=TIMEOUT_S + 5, status=500)
    waits = one_each_second(outside, 30)
    assert max(waits) < TIMEOUT_S
    assert sorted(waits)[15] < ONE_PROBE_S
    assert not {outside.task(task_id)["state"] for task_id in bad} - {"pending"}


@pytest.mark.parametrize("status", [429, 503])
def test_a_retry_after_for_one_task_is_that_tasks_own(outside: Sandbox, pipeline: Pipeline, status: int) -> None:
    bad = queue_bad(outside, 1, status=status, headers={"Retry-After": "20"})
    waits = one_each_second(outside, 8)
    assert max(waits) < ONE_PROBE_S
    assert pipeline.get("/ready")[0] == 200
    assert len(outside.task(bad[0])["patches"]) == 1


def test_a_retry_after_for_two_tasks_is_the_apis(outside: Sandbox, pipeline: Pipeline) -> None:
    outside.fault("api", **PATCH, status=429, headers={"Retry-After": "4"})
    good = outside.queue(2)
    pipeline.wait_until(lambda: "PATCH answered 429" in str(pipeline.get("/ready")), "the reason on /ready")
    outside.clear_faults()
    wait_done(outside, pipeline, good, 30)


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (404, "404 page not found", "answered 404"),
        (200, "<html>a login page</html>", "not a JSON array"),
        (200, "{}", "not a JSON array"),
        (500, "", "answered 500"),
    ],
)
def test_a_pipeline_is_not_ready_from_the_first_failed_poll_until_one_succeeds(
    outside: Sandbox, pipeline: Pipeline, status: int, body: str, words: str
) -> None:
    outside.fault("api", method="GET", status=status, body=body)
    pipeline.wait_until(lambda: words in str(pipeline.get("/ready")), "the reason on /ready", 10)
    until = time.monotonic() + 6
    while time.monotonic() < until:
        assert pipeline.get("/ready")[0] == 503
        time.sleep(0.1)
    outside.clear_faults()
    pipeline.wait_ready()


def test_a_pipeline_whose_api_cannot_be_resolved_is_never_ready(sandbox: Sandbox, tmp_path: Path) -> None:
    with Pipeline(sandbox, tmp_path, **SETTINGS, API_BASE_URL="http://api.invalid") as pipeline:
        pipeline.wait_until(lambda: "cannot be resolved" in str(pipeline.get("/ready")), "the reason on /ready")
        until = time.monotonic() + 10
        while time.monotonic() < until:
            assert pipeline.get("/ready")[0] == 503
            time.sleep(0.1)
