"""A provider that cannot be used, for some seconds or until an operator acts: no task fails, and requests stay rare."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sandbox.pipeline import Pipeline
from tests.providers.job import MODEL, Job, wait_for_words

TASKS = 200
WATCHED = 2.0
"""Seconds in which requests are counted, while nothing can succeed."""


def error(code: str, message: str) -> str:
    return json.dumps({"error": {"message": message, "type": code, "param": None, "code": code}})


def requests_within(job: Job, seconds: float) -> int:
    """Return the number of requests within so much time."""
    before = job.requests
    job.pipeline.run_for(seconds)
    return job.requests - before


def resumes(job: Job) -> None:
    """Wait until all tasks succeed without help, and check that nothing was paid for twice."""
    job.wait_done()
    assert job.states == {"succeeded": TASKS}
    assert (job.paid, job.paid_again) == (TASKS, 0)
    job.pipeline.wait_ready()


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"status": 503, "body": "<html>Service Unavailable</html>"}, "openai: 503"),
        ({"drop": "before", "reset": True}, "openai: the connection broke"),
        ({"delay": 4.0}, "no complete response within OPENAI_TIMEOUT"),
        (None, "openai: no connection"),
    ],
    ids=["503", "reset", "timeout", "refused"],
)
def test_tasks_wait_and_then_succeed_when_a_provider_is_down_for_some_seconds(
    job: Job, fault: dict[str, Any] | None, words: str
) -> None:
    if fault is None:
        job.sandbox.down("openai")
    else:
        job.sandbox.fault("openai", **fault)
    job.queue(TASKS)
    wait_for_words(job.pipeline, words)
    assert requests_within(job, 1.0) <= 4
    job.sandbox.clear_faults()
    if fault is None:
        job.sandbox.up("openai")
    resumes(job)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (
            {"status": 429, "body": error("insufficient_quota", "You exceeded your current quota")},
            "quota is used up (429)",
        ),
        ({"status": 401, "body": error("invalid_api_key", "Incorrect API key provided")}, "OPENAI_API_KEY is refused"),
    ],
    ids=["no quota", "bad key"],
)
def test_a_provider_that_needs_an_operator_gets_only_a_few_probes(job: Job, fault: dict[str, Any], words: str) -> None:
    job.sandbox.fault("openai", **fault)
    job.queue(TASKS)
    wait_for_words(job.pipeline, "openai", words)
    assert job.requests <= 4, "at most one of each slot"
    assert requests_within(job, WATCHED) <= 4, "a probe of each embedder every one to two seconds"
    job.sandbox.clear_faults()
    resumes(job)


def test_tasks_of_a_model_that_does_not_exist_wait_and_other_models_go_on(job: Job, pipeline: Pipeline) -> None:
    models = job.sandbox.settings()["openai"]["models"]
    job.queue(TASKS // 2, model="text-embedding-4-huge")
    job.queue(TASKS // 2, model=MODEL)
    words = wait_for_words(pipeline, "text-embedding-4-huge cannot be used (404)", status=200)
    assert "does not exist" in words
    pipeline.wait_until(lambda: job.accepted == TASKS // 2, "the tasks of the other model")
    assert requests_within(job, WATCHED) <= 4
    job.sandbox.settings(openai={"models": {**models, "text-embedding-4-huge": 1536}})
    resumes(job)
