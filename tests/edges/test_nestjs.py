"""The whole pipeline with a real NestJS application and a certified OAuth2 server."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import requests

from sandbox.pipeline import Pipeline
from tests.edges.counterparts import TESTS, Nest, nest
from tests.pipelines import ready_pipeline

TASKS = 2000
TOKEN_SECONDS = 3


@pytest.fixture(scope="module")
def application() -> Iterator[Nest]:
    with nest(TOKEN_SECONDS) as running:
        yield running


@pytest.fixture(scope="module")
def pipeline(application: Nest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    settings = {"POLLING_INTERVAL_SECONDS": 0.5, "RETRY_BACKOFF_FACTOR": 1.2}
    with ready_pipeline(application.as_sandbox(), tmp_path_factory.mktemp("p"), **settings) as running:
        yield running


def done(application: Nest, count: int) -> bool:
    return bool(application.summary()["states"].get("succeeded", 0) == count)


def tokens_issued(application: Nest, count: int) -> bool:
    return application.issued() >= count


def outbox(pipeline: Pipeline) -> int:
    return int(pipeline.get("/health")[1]["processes"]["publisher"]["outbox"])


def test_two_thousand_large_results_arrive_while_tokens_expire(application: Nest, pipeline: Pipeline) -> None:
    """Tasks are queued over several lifetimes of a token; 3,072 dimensions fit into the default limit for bodies."""
    issued_before = application.issued()
    for wave in range(1, 5):
        application.queue(TASKS // 4, "text-embedding-3-large")
        pipeline.wait_until(partial(done, application, TASKS // 4 * wave), f"wave {wave}", 60)
        pipeline.wait_until(partial(tokens_issued, application, issued_before + wave), "the next token")
    summary = application.summary()
    assert summary["states"] == {"succeeded": TASKS}
    assert (summary["lengths"], summary["different"]) == ([3072], 0)
    assert summary["twice"] == 0
    assert not pipeline.events("result_dead_lettered")


def test_an_expired_token_is_replaced(application: Nest, pipeline: Pipeline) -> None:
    """The broker is suspended for longer than the lifetime of a token: no task is lost."""
    before = application.summary()["states"].get("succeeded", 0)
    broker = pipeline.kill("token_broker", signal.SIGSTOP)
    try:
        pipeline.run_for(TOKEN_SECONDS + 0.5)
        application.queue(100, "text-embedding-3-small")
    finally:
        assert broker == pipeline.kill("token_broker", signal.SIGCONT)
    pipeline.wait_until(lambda: done(application, before + 100), "all tasks")


def test_results_are_sent_again_if_a_callback_fails_after_storing(application: Nest, pipeline: Pipeline) -> None:
    before = application.summary()["states"].get("succeeded", 0)
    application.fail_callbacks(20)
    application.queue(60, "text-embedding-3-small")
    pipeline.wait_until(lambda: done(application, before + 60), "all tasks")
    pipeline.wait_until(
        lambda: not pipeline.get("/health")[1]["processes"]["publisher"]["outbox"], "an empty outbox", 60
    )
    summary = application.summary()
    assert (summary["failuresLeft"], summary["different"], summary["twice"]) == (0, 0, 0)


def test_the_guard_refuses_requests_without_a_valid_token(application: Nest) -> None:
    tasks = f"{application.api}/api/ai-tasks"
    for headers in ({}, {"Authorization": "Bearer nonsense"}, {"Authorization": "Basic eDp5"}):
        assert requests.get(f"{tasks}/pending", headers=headers, timeout=30).status_code == 401
        assert requests.patch(f"{tasks}/1", json={}, headers=headers, timeout=30).status_code == 401


def test_the_documentation_contains_the_source_files() -> None:
    shown = (TESTS.parent / "docs" / "nestjs.md").read_text()
    for source in sorted(Path(TESTS / "nestjs" / "src").iterdir()):
        if source.name != "main.ts":
            assert f"`{source.name}`:\n\n```ts\n{source.read_text()}```\n" in shown, f"{source.name} differs"
