"""Quotas in the whole pipeline, checked by the requests that the provider received, and when."""

from __future__ import annotations

import json
import re
import secrets
from typing import Any

import pytest

from sandbox.client import Sandbox
from sandbox.pipeline import Pipeline
from tests.pipelines import Start

SMALL, LARGE = "text-embedding-3-small", "text-embedding-3-large"
BASE = {"PROCESSING_MODE": "openai", "EMBEDDING_DIMENSIONS": 256, "POLLING_INTERVAL_SECONDS": 0.2, "HOLD_SECONDS": 1}


def limiting(pipeline: Pipeline) -> dict[str, Any]:
    found: dict[str, Any] = pipeline.get("/health")[1]["rate_limiting"]
    return found


def window(pipeline: Pipeline) -> dict[str, Any]:
    """The only quota window."""
    (found,) = limiting(pipeline)["windows"]
    return dict(found)


def metric(pipeline: Pipeline, series: str) -> float | None:
    found = re.search(rf"^{re.escape(series)} (\S+)$", pipeline.get("/metrics")[1], re.MULTILINE)
    return float(found[1]) if found else None


def spent(sandbox: Sandbox, unit: str = "inputs") -> int:
    return sum(charge[unit] for charge in sandbox.charges())


@pytest.mark.timeout(240)
def test_an_exhausted_quota_costs_no_polls_and_work_continues_when_it_opens(sandbox: Sandbox, start: Start) -> None:
    pipeline = start(**BASE, RATE_LIMIT_PER_MINUTE=7)
    sandbox.queue(30, distinct=True)
    sandbox.wait_until(lambda summary: summary["api"]["accepted"] == 7)
    pipeline.wait_until(lambda: pipeline.events("tasks_deferred"), "the other tasks to be deferred")
    shown = "to be shown in the next heartbeat"
    pipeline.wait_until(lambda: limiting(pipeline)["current_usage"]["minute"]["remaining"] == 0, shown)
    minute = limiting(pipeline)["current_usage"]["minute"]
    assert (minute["current"], minute["limit"], minute["remaining"]) == (7, 7, 0)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", minute["reset_at"])
    pipeline.wait_until(lambda: metric(pipeline, 'rate_limit_exceeded_total{period="minute"}') == 1.0, "the moment")
    assert metric(pipeline, 'rate_limit_window_current{period="minute",scope="",unit="tasks"}') == 7.0
    status, summary = pipeline.get("/ready")
    assert (status, summary["reasons"]) == (503, ["rate_limiter: waiting for a quota: 7 tasks a minute"])
    polls = sandbox.summary()["api"]["gets"]
    sandbox.wait_until(lambda summary: summary["api"]["accepted"] == 14, 90.0)
    charges = sandbox.charges()
    assert sandbox.summary()["api"]["gets"] <= polls + 3, "one poll when the quota opens, and those that follow it"
    for charge in charges:
        later = [other for other in charges if 0 <= other["time"] - charge["time"] < 60]
        assert sum(other["inputs"] for other in later) <= 7
    assert charges[-1]["time"] - charges[0]["time"] < 70, "work continued soon after the quota opened"


def test_a_model_that_waits_for_its_quota_blocks_no_other(sandbox: Sandbox, start: Start) -> None:
    pipeline = start(**BASE, RATE_LIMIT_MODELS=json.dumps({LARGE: {"per_day": 2}}))
    large = sandbox.queue(10, model=LARGE)
    small = sandbox.queue(40, model=SMALL)
    sandbox.wait_until(lambda summary: summary["api"]["accepted"] == 42)
    assert all(sandbox.task(task_id)["state"] == "succeeded" for task_id in small)
    assert sum(sandbox.task(task_id)["state"] == "succeeded" for task_id in large) == 2
    assert limiting(pipeline)["current_usage"] == {}
    pipeline.wait_until(lambda: window(pipeline)["remaining"] == 0, "the next heartbeat")
    assert (window(pipeline)["scope"], window(pipeline)["current"]) == (LARGE, 2)
    assert pipeline.get("/ready")[0] == 200
    (deferred,) = {event["key"] for event in pipeline.events("tasks_deferred")}
    assert deferred == LARGE


def test_a_token_quota_is_used_completely_and_not_exceeded(sandbox: Sandbox, start: Start) -> None:
    limit = 20_000
    pipeline = start(**BASE, RATE_LIMIT_TOKENS_PER_DAY=limit)
    sandbox.queue_tasks({"text": secrets.token_hex(100)} for _ in range(800))  # 50 tokens each, as the sandbox counts
    pipeline.wait_until(lambda: pipeline.events("tasks_deferred"), "the quota to be used up", 60.0)
    assert limit * 0.98 <= spent(sandbox, "tokens") <= limit
    pipeline.wait_until(lambda: window(pipeline)["current"] == spent(sandbox, "tokens"), "all to be settled")
    assert window(pipeline)["unit"] == "tokens"
    ratio = metric(pipeline, f'rate_limit_token_ratio{{model="{SMALL}"}}')
    assert ratio is not None
    assert 0.3 < ratio <= 1.0


def test_a_request_quota_is_not_exceeded_although_every_batch_is_halved(sandbox: Sandbox, start: Start) -> None:
    pipeline = start(**BASE, RATE_LIMIT_REQUESTS_PER_MINUTE=6, EMBED_BATCH_SIZE=16)
    sandbox.fault("openai", status=400, body='{"error":{"message":"cannot be read"}}', body_contains="poisoned")
    sandbox.queue_tasks({"text": f"poisoned {number}" if number == 5 else f"text {number}"} for number in range(16))
    pipeline.wait_until(lambda: window(pipeline)["remaining"] == 0, "the requests to be used up", 60.0)
    sandbox.wait_until(lambda summary: summary["api"]["tasks"].get("succeeded", 0) > 0)
    pipeline.run_for(2)  # in which nothing more is sent
    assert sum(sandbox.summary()["openai"]["statuses"].values()) == 6  # nine would find it
    assert {task["state"] for task in sandbox.record()} == {"pending", "succeeded"}


def test_rate_limiting_can_be_turned_off(sandbox: Sandbox, start: Start) -> None:
    pipeline = start(**BASE, RATE_LIMIT_ENABLED="false", RATE_LIMIT_PER_MINUTE=1, RATE_LIMIT_TOKENS_PER_DAY=1)
    sandbox.queue(100)
    sandbox.wait_until(lambda summary: summary["api"]["accepted"] == 100)
    assert limiting(pipeline) == {"enabled": False, "strategy": "rolling", "current_usage": {}, "windows": []}
