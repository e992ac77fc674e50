"""The whole pipeline with a real NestJS application and a certified OAuth2 server."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import requests

from sandbox.pipeline import Pipeline
from tests.edges.counterparts import TESTS, Nest, nest

TASKS = 2000
TOKEN_SECONDS = 3


@pytest.fixture(scope="module")
def outside() -> Iterator[Nest]:
    with nest(TOKEN_SECONDS) as running:
        yield running


@pytest.fixture(scope="module")
def pipeline(outside: Nest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    settings = {"POLLING_INTERVAL_SECONDS": 0.5, "RETRY_BACKOFF_FACTOR": 1.2}
    with Pipeline(outside.as_sandbox(), tmp_path_factory.mktemp("p"), **settings) as running:
        running.wait_ready()
        yield running


def done(outside: Nest, count: int) -> bool:
    return bool(outside.summary()["states"].get("succeeded", 0) == count)


def given(outside: Nest, count: int) -> bool:
    return outside.issued() >= count


def outbox(pipeline: Pipeline) -> int:
    return int(pipeline.get("/health")[1]["processes"]["publisher"]["outbox"])


def test_two_thousand_large_results_while_tokens_expire(outside: Nest, pipeline: Pipeline) -> None:
    """Queued over several lives of a token; 3,072 dimensions pass under the default limit for bodies."""
    began = outside.issued()
    for wave in range(1, 5):
        outside.queue(TASKS // 4, "text-embedding-3-large")
        pipeline.wait_until(partial(done, outside, TASKS // 4 * wave), f"wave {wave}", 60)
        pipeline.wait_until(partial(given, outside, began + wave), "the next token")
    told = outside.summary()
    assert told["states"] == {"succeeded": TASKS}
    assert (told["lengths"], told["different"]) == ([3072], 0)
    assert told["twice"] == 0
    assert not pipeline.events("dead_letter")


def test_a_token_that_is_over_is_replaced(outside: Nest, pipeline: Pipeline) -> None:
    """The broker sleeps for longer than a token lives: nothing is sent with the old one, and nothing is lost."""
    before = outside.summary()["states"].get("succeeded", 0)
    broker = pipeline.kill("token_broker", signal.SIGSTOP)
    over = time.monotonic() + TOKEN_SECONDS + 0.5
    pipeline.wait_until(lambda: time.monotonic() > over, "the token to be over")
    outside.queue(100, "text-embedding-3-small")
    assert broker == pipeline.kill("token_broker", signal.SIGCONT)
    pipeline.wait_until(lambda: done(outside, before + 100), "all tasks")


def test_callbacks_that_fail_after_the_state_is_stored_are_repaired(outside: Nest, pipeline: Pipeline) -> None:
    before = outside.summary()["states"].get("succeeded", 0)
    outside.fail_callbacks(20)
    outside.queue(60, "text-embedding-3-small")
    pipeline.wait_until(lambda: done(outside, before + 60), "all tasks")
    pipeline.wait_until(
        lambda: not pipeline.get("/health")[1]["processes"]["publisher"]["outbox"], "an empty outbox", 60
    )
    told = outside.summary()
    assert (told["failuresLeft"], told["different"], told["twice"]) == (0, 0, 0)


def test_the_guard_refuses_who_has_no_token(outside: Nest) -> None:
    for headers in ({}, {"Authorization": "Bearer nonsense"}, {"Authorization": "Basic eDp5"}):
        assert requests.get(f"{outside.api}/api/ai-tasks/pending", headers=headers, timeout=5).status_code == 401
        assert requests.patch(f"{outside.api}/api/ai-tasks/1", json={}, headers=headers, timeout=5).status_code == 401


def test_the_documentation_shows_these_very_files() -> None:
    shown = (TESTS.parent / "docs" / "nestjs.md").read_text()
    for source in sorted(Path(TESTS / "nestjs" / "src").iterdir()):
        if source.name != "main.ts":
            assert f"`{source.name}`:\n\n```ts\n{source.read_text()}```\n" in shown, f"{source.name} differs"
