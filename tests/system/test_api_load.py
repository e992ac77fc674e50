"""The whole pipeline as a guest of an API that has a throttle, or whose PATCHes wait for each other.

The throttle here has windows of seconds, so that the tests are short. The quarter of a second that may be caught up at
once weighs more in them than in a minute. So the throttle allows 5 % more than its part of the minute.
"""

from __future__ import annotations

from typing import Any

import pytest

from common.api.request_pace import PACED
from sandbox.client import Sandbox
from sandbox.pipeline import Pipeline
from tests.pipelines import Start
from tests.system.test_quotas import metric

BASE = {"PROCESSING_MODE": "openai", "EMBEDDING_DIMENSIONS": 256, "POLLING_INTERVAL_SECONDS": 0.2}
PER_MINUTE = 1200
THROTTLE = {"throttle_limit": PER_MINUTE // 10 * 105 // 100, "throttle_seconds": 6}


def patches(sandbox: Sandbox) -> list[dict[str, Any]]:
    """Every PATCH, in the order in which they came."""
    found = [patch for task in sandbox.record() for patch in task["patches"]]
    return sorted(found, key=lambda patch: patch["time"])


def shown(pipeline: Pipeline, name: str, stage: str = "publisher") -> float | None:
    return metric(pipeline, f'{name}{{stage="{stage}"}}')


@pytest.mark.timeout(120)
def test_at_the_set_pace_a_throttle_refuses_nothing_and_most_of_its_rate_is_used(
    sandbox: Sandbox, start: Start
) -> None:
    pipeline = start(**BASE, API_REQUESTS_PER_MINUTE=PER_MINUTE)
    sandbox.settings(api=THROTTLE)
    tasks = 200
    sandbox.queue(tasks)
    pipeline.wait_until(lambda: shown(pipeline, "api_paced") == 1.0, "the metric that says what limits")
    status, ready = pipeline.get("/ready")
    assert (status, ready["notices"]) == (200, [PACED])
    sandbox.wait_until(lambda summary: summary["api"]["accepted"] == tasks, 60)
    assert sandbox.summary()["api"]["throttled"] == 0
    times = [patch["time"] for patch in patches(sandbox)]
    assert len(times) == tasks
    assert (tasks - 1) / (times[-1] - times[0]) >= 0.9 * PER_MINUTE / 60
    pipeline.wait_until(lambda: shown(pipeline, "api_paced") == 0.0, "the end of the notice")
    assert "notices" not in pipeline.get("/ready")[1]


@pytest.mark.timeout(120)
def test_claims_and_results_share_the_pace(sandbox: Sandbox, start: Start) -> None:
    sandbox.settings(api={**THROTTLE, "refuse_second_claims": True})
    start(**BASE, API_REQUESTS_PER_MINUTE=PER_MINUTE, CLAIM_TASKS="true")
    tasks = 80
    sandbox.queue(tasks)
    summary = sandbox.wait_until(lambda summary: summary["api"]["accepted"] == tasks, 60)
    assert summary["api"]["throttled"] == 0
    assert summary["api"]["patches"] >= 2 * tasks


@pytest.mark.timeout(120)
def test_without_a_pace_a_throttle_refuses_many_and_nothing_is_lost(sandbox: Sandbox, start: Start) -> None:
    pipeline = start(**BASE)
    sandbox.settings(api={"throttle_limit": 100, "throttle_seconds": 1})
    tasks = 300
    sandbox.queue(tasks)
    summary = sandbox.wait_until(lambda summary: summary["api"]["accepted"] == tasks, 60)
    assert summary["api"]["throttled"] > 0
    assert summary["api"]["tasks"]["succeeded"] == tasks
    assert summary["api"]["accepted_twice"] == 0
    assert summary["openai"]["paid_twice"] == 0
    assert pipeline.events("result_dead_lettered") == []


@pytest.mark.timeout(120)
def test_an_api_with_one_worker_gets_fewer_connections_and_is_never_idle(sandbox: Sandbox, start: Start) -> None:
    pipeline = start(**BASE, API_CONNECTIONS=12)
    assert shown(pipeline, "api_connections_limit") == 12.0
    sandbox.settings(api={"workers": 1, "work_seconds": 0.05})
    tasks = 160
    sandbox.queue(tasks)
    pipeline.wait_until(lambda: (shown(pipeline, "api_connections_limit") or 12.0) <= 6.0, "the limit to fall")
    sandbox.wait_until(lambda summary: summary["api"]["accepted"] == tasks, 60)
    assert sandbox.summary()["api"]["most_patches_waiting"] <= 12
    times = [patch["time"] for patch in patches(sandbox)]
    assert times[-1] - times[0] <= 1.25 * tasks * 0.05


@pytest.mark.timeout(120)
def test_a_slow_api_that_works_on_all_at_a_time_gets_all_connections(sandbox: Sandbox, start: Start) -> None:
    pipeline = start(**BASE, API_CONNECTIONS=12)
    sandbox.settings(api={"workers": 12, "work_seconds": 0.3})
    tasks = 240
    sandbox.queue(tasks)
    sandbox.wait_until(lambda summary: summary["api"]["accepted"] == tasks, 60)
    pipeline.wait_until(lambda: shown(pipeline, "api_connections_in_use") == 0.0, "the end to be reported")
    assert shown(pipeline, "api_connections_limit") == 12.0
