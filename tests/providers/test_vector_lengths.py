"""A vector of a wrong length never reaches the API: its tasks wait, loudly, and none fails."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sandbox.client import Sandbox
from sandbox.pipeline import Pipeline
from tests.pipelines import ready_pipeline
from tests.providers.conftest import SETTINGS, running
from tests.providers.job import Job, wait_for_words

SMALL = "text-embedding-3-small"
TASKS = 60
OWN = {**SETTINGS, "EMBEDDING_DIMENSIONS": 0}


def lengths(sandbox: Sandbox) -> set[int]:
    return {len(result) for result in sandbox.results().values()}


def wrong_models(sandbox: Sandbox) -> None:
    sandbox.settings(openai={"models": {SMALL: 8}})


def deaf_to_dimensions(sandbox: Sandbox) -> None:
    sandbox.settings(openai={"models": {SMALL: 32}, "ignore_dimensions": True})


def right_models(sandbox: Sandbox) -> None:
    sandbox.settings(openai={"models": {SMALL: 1536}, "ignore_dimensions": False})


@pytest.mark.parametrize(
    ("dimensions", "wrong", "words", "right"),
    [
        (0, wrong_models, ("has 8 numbers", "have 1536", 'EMBEDDING_LENGTHS={"text-embedding-3-small": 8}'), 1536),
        (8, deaf_to_dimensions, ("has 32 numbers", "8 were asked for"), 8),
    ],
)
def test_tasks_wait_while_a_server_sends_vectors_of_a_wrong_length_and_are_done_afterwards(
    tmp_path: Path, dimensions: int, wrong: Callable[[Sandbox], None], words: tuple[str, ...], right: int
) -> None:
    with running(tmp_path, EMBEDDING_DIMENSIONS=dimensions) as pipeline:
        wrong(pipeline.sandbox)
        job = Job(pipeline).queue(TASKS, distinct=True)
        wait_for_words(pipeline, *words)
        pipeline.run_for(5)
        assert job.accepted == 0
        assert job.requests <= 20
        right_models(pipeline.sandbox)
        job.wait_done(90)
        assert job.states == {"succeeded": TASKS}
        assert lengths(pipeline.sandbox) == {right}


def test_a_server_that_uses_a_known_name_for_another_size_can_be_configured(tmp_path: Path) -> None:
    told = {"EMBEDDING_DIMENSIONS": 0, "EMBEDDING_LENGTHS": json.dumps({SMALL: 8})}
    with running(tmp_path, **told) as pipeline:
        wrong_models(pipeline.sandbox)
        job = Job(pipeline).queue(TASKS, distinct=True).wait_done()
        assert job.states == {"succeeded": TASKS}
        assert lengths(pipeline.sandbox) == {8}
        assert job.requests == len(job.charges), "no canary is needed"


@pytest.mark.parametrize("wrong", [{"times": 1}, {"times": 1, "skip": 1}], ids=["the first", "the second"])
def test_a_wrong_response_among_the_first_decides_nothing(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with running(tmp_path, EMBEDDING_DIMENSIONS=0) as pipeline:
        pipeline.sandbox.settings(openai={"models": {"mine": 32}})
        pipeline.sandbox.fault("openai", path="embeddings", transform="wrong_length", **wrong)
        job = Job(pipeline).queue(TASKS, distinct=True, model="mine").wait_done(60)
        assert job.states == {"succeeded": TASKS}
        assert lengths(pipeline.sandbox) == {32}


def test_a_length_that_was_learnt_holds_after_a_restart(sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.settings(api={"keep_results": True}, openai={"models": {"mine": 32}})

    def run(work: Callable[[Pipeline], None]) -> None:
        with ready_pipeline(sandbox, tmp_path, **OWN) as pipeline:
            work(pipeline)

    run(lambda pipeline: ended(Job(pipeline).queue(TASKS, distinct=True, model="mine").wait_done()))
    assert json.loads((tmp_path / "state" / "vector_lengths.json").read_text()) == {"mine": 32}
    sandbox.settings(openai={"models": {"mine": 16}})

    def later(pipeline: Pipeline) -> None:
        job = Job(pipeline).queue(TASKS, distinct=True, model="mine")
        wait_for_words(pipeline, "has 16 numbers", "had 32 before")
        assert job.accepted == 0

    run(later)
    assert lengths(sandbox) == {32}


def ended(job: Job) -> None:
    assert job.states == {"succeeded": TASKS}
