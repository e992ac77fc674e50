"""The whole pipeline while the API answers 401 or 403: the fault of a token, of one task, or of the API."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox.client import Sandbox
from sandbox.pipeline import Pipeline
from stages.dead_letters import Letters
from stages.dead_letters import letters as read_letters
from tests.pipelines import pipeline_with_own_sandbox
from tests.processes import run_module

SETTINGS: dict[str, object] = {
    "PROCESSING_MODE": "openai",
    "EMBEDDING_DIMENSIONS": 64,
    "POLLING_INTERVAL_SECONDS": 0.5,
    "LEASE_SECONDS": 3,
    "MAX_IN_FLIGHT": 512,
}
TASKS = 2000
PATCH = {"method": "PATCH"}
FORBIDDEN = json.dumps({"requestId": "r-7", "statusCode": 403, "message": "Forbidden resource", "error": "Forbidden"})


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    with pipeline_with_own_sandbox(tmp_path_factory.mktemp("p"), None, **SETTINGS) as running:
        yield running


@pytest.fixture(autouse=True)
def at_rest(outside: Sandbox, pipeline: Pipeline) -> Iterator[None]:
    """Begin and end each test with an API that works, without dead letters and pending tasks."""
    pipeline.wait_ready()
    (task_id,) = outside.queue(1)
    outside.wait_until(lambda _: outside.task(task_id)["state"] == "succeeded")
    yield
    outside.clear_faults()
    if letters(pipeline):
        run_module("stages", "dead-letters", "drop", "all", environment=pipeline.environment)
    outside.wait_until(lambda summary: summary["api"]["tasks"]["pending"] == 0, 90)


def letters(pipeline: Pipeline) -> Letters:
    return read_letters(Path(pipeline.environment["STATE_DIR"]))


def token_requests(sandbox: Sandbox) -> int:
    return int(sandbox.summary()["oauth2"]["token_requests"])


def openings(pipeline: Pipeline) -> int:
    """How often a circuit breaker for the API has opened."""
    return len([event for event in pipeline.events("breaker_opened") if event["service"].startswith("api")])


def wait_done(sandbox: Sandbox, pending: int = 0, seconds: float = 60) -> None:
    """Wait until this number of tasks is left."""
    sandbox.wait_until(lambda summary: summary["api"]["tasks"]["pending"] == pending, seconds)


def seconds_for(sandbox: Sandbox, count: int) -> float:
    """Queue tasks; returns how long it takes until all are done."""
    began = time.monotonic()
    sandbox.queue(count)
    wait_done(sandbox)
    return time.monotonic() - began


def queue_bad(sandbox: Sandbox, count: int, bad: int, **effect: Any) -> list[str]:
    """Queue tasks; the API refuses every PATCH of some of them, which this returns."""
    waits = sandbox.fault("api", **PATCH, delay=1)  # no PATCH ends before the fault is in force
    ids = sandbox.queue(count)[count // 2 :][:bad]
    sandbox.fault("api", **PATCH, path="|".join(ids), **effect)
    sandbox.clear_faults(waits)
    return ids


def wait_dead(sandbox: Sandbox, pipeline: Pipeline, ids: Iterable[str]) -> list[int]:
    """Queue a good task now and then until these are dead letters; returns the statuses of /ready meanwhile."""
    statuses: list[int] = []

    def are_dead() -> bool:
        sandbox.queue(1)
        statuses.append(pipeline.get("/ready")[0])
        return set(letters(pipeline)) >= set(ids)

    pipeline.wait_until(are_dead, "the dead letters", 60)
    return statuses


def test_a_403_on_every_fortieth_patch_with_tokens_of_three_seconds_slows_nothing_down(
    outside: Sandbox, pipeline: Pipeline
) -> None:
    outside.settings(oauth2={"expires_in": 3})
    outside.revoke()  # from now on tokens last three seconds
    seconds_for(outside, 500)
    without_s = seconds_for(outside, TASKS)
    opened, requested, began = openings(pipeline), token_requests(outside), time.monotonic()
    fault = outside.fault("api", **PATCH, status=403, body=FORBIDDEN, every=40)
    with_s = seconds_for(outside, TASKS)
    passed_s = time.monotonic() - began
    assert next(entry for entry in outside.faults() if entry["number"] == fault)["applied"] >= TASKS // 40
    # The scheduler of a busy machine is allowed a second; waits for breakers and back-off would take many.
    assert with_s <= 1.2 * without_s + 1.5
    assert openings(pipeline) == opened
    assert letters(pipeline) == {}
    assert token_requests(outside) - requested <= 4 + passed_s / 1.2


@pytest.mark.parametrize(("status", "bad"), [(401, 1), (403, 1), (403, 2), (401, 3)])
def test_tasks_that_are_always_refused_become_dead_letters_and_all_others_are_done_at_speed(
    outside: Sandbox, pipeline: Pipeline, status: int, bad: int
) -> None:
    opened, requested = openings(pipeline), token_requests(outside)
    refused = queue_bad(outside, TASKS, bad, status=status, body=FORBIDDEN)
    wait_done(outside, bad, 20)
    assert set(wait_dead(outside, pipeline, refused)) == {200}
    found = letters(pipeline)
    assert set(found) == set(refused)
    for letter in found.values():
        assert letter.status == status
        assert letter.reason == f"PATCH answered {status}: Forbidden resource (requestId r-7)"
    assert openings(pipeline) == opened
    assert token_requests(outside) - requested <= 8


def test_an_outage_of_the_check_of_tokens_fails_nothing_and_ends_with_a_probe(
    outside: Sandbox, pipeline: Pipeline
) -> None:
    requested = token_requests(outside)
    waits = outside.fault("api", **PATCH, delay=0.2)
    ids = outside.queue(TASKS)
    outside.clear_faults(waits)
    outside.fault("api", status=403, body=FORBIDDEN)
    began = time.monotonic()
    pipeline.wait_until(lambda: pipeline.get("/ready")[0] == 503, "the outage on /ready")
    pipeline.run_for(max(0.0, 8 - (time.monotonic() - began)))
    assert "403" in json.dumps(pipeline.get("/ready")[1])
    assert token_requests(outside) - requested <= 6
    outside.clear_faults()
    accepted = outside.summary()["api"]["accepted"]
    outside.wait_until(lambda summary: summary["api"]["accepted"] > accepted, 12)  # the longest pause by then is 8 s
    wait_done(outside)
    pipeline.wait_ready()
    assert {outside.task(task_id)["state"] for task_id in ids[:20]} == {"succeeded"}
    assert letters(pipeline) == {}


def test_tokens_that_are_revoked_are_replaced_at_once(outside: Sandbox, pipeline: Pipeline) -> None:
    opened = openings(pipeline)
    for _ in range(3):
        accepted = outside.summary()["api"]["accepted"]
        outside.queue(TASKS // 4)
        outside.wait_until(lambda summary, before=accepted: summary["api"]["accepted"] > before)  # type: ignore[misc]
        outside.revoke()
        wait_done(outside, seconds=15)
    assert openings(pipeline) == opened
    assert letters(pipeline) == {}


@pytest.mark.parametrize("status", [401, 403])
def test_a_burst_of_refusals_while_a_token_is_rotated_costs_nothing_but_the_rotation(
    outside: Sandbox, pipeline: Pipeline, status: int
) -> None:
    opened = openings(pipeline)
    outside.fault("api", **PATCH, status=status, body=FORBIDDEN, skip=200, times=30)
    outside.queue(TASKS)
    wait_done(outside, seconds=20)
    assert openings(pipeline) - opened <= 1
    assert letters(pipeline) == {}


def test_a_token_that_works_for_polls_and_not_for_results_is_told_and_not_replaced_again_and_again(
    outside: Sandbox, pipeline: Pipeline
) -> None:
    requested = token_requests(outside)
    outside.fault("api", **PATCH, status=403, body=FORBIDDEN)
    outside.queue(200)
    pipeline.wait_until(lambda: pipeline.get("/ready")[0] == 503, "the refusals on /ready")
    pipeline.run_for(10)
    assert "40" in json.dumps(pipeline.get("/ready")[1])
    assert token_requests(outside) - requested <= 8
    assert letters(pipeline) == {}
    outside.clear_faults()
    wait_done(outside, seconds=40)
    pipeline.wait_ready()


def test_a_token_that_is_not_valid_yet_is_tried_again_instead_of_replaced_in_a_circle(
    outside: Sandbox, pipeline: Pipeline
) -> None:
    outside.settings(oauth2={"valid_after": 3})
    requested = token_requests(outside)
    outside.queue(200)
    outside.revoke()
    wait_done(outside, seconds=30)
    assert token_requests(outside) - requested <= 6
    assert letters(pipeline) == {}


@pytest.mark.parametrize("form", ["form", "json_with_mark"])
def test_a_token_in_an_uncommon_form_is_used(outside: Sandbox, pipeline: Pipeline, form: str) -> None:
    outside.settings(oauth2={"response_form": form})
    issued = outside.summary()["oauth2"]["issued"]
    outside.revoke()
    seconds_for(outside, 100)
    assert outside.summary()["oauth2"]["issued"] > issued
