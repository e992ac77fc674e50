"""The mode `hybrid` through the whole pipeline: which provider embeds which model, and which is the fallback."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sandbox.client import Sandbox
from sandbox.pipeline import Pipeline
from tests.providers.conftest import running
from tests.providers.job import Job, wait_for_words

SMALL, NOMIC, MINILM = "text-embedding-3-small", "nomic-embed-text", "all-minilm"
ELSEWHERE = "nomic/embed"
"""The model's name at the OpenAI stand-in."""


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    settings = {
        "PROCESSING_MODE": "hybrid",
        "FALLBACK_MODELS": f'{{"{NOMIC}": "{ELSEWHERE}"}}',
        "TRUNCATE_LONG_TEXTS": "true",
    }
    with running(tmp_path_factory.mktemp("hybrid"), **settings) as pipeline:
        sandbox = pipeline.sandbox
        sandbox.settings(
            openai={"models": {SMALL: 1536, ELSEWHERE: 768}},
            ollama={"models": {f"{NOMIC}:latest": 768, f"{MINILM}:latest": 384}},
        )
        yield pipeline


@pytest.fixture
def both(outside: Sandbox, pipeline: Pipeline) -> tuple[Job, Job]:
    """Return a job that counts OpenAI's requests and one that counts Ollama's."""
    return Job(pipeline, "openai"), Job(pipeline, "ollama")


def test_each_model_goes_to_the_provider_that_has_it(both: tuple[Job, Job], pipeline: Pipeline) -> None:
    openai, ollama = both
    ollama.queue(60, model=NOMIC)
    openai.queue(40, model=SMALL)
    openai.pipeline.wait_until(lambda: openai.accepted == 100, "all results")
    assert openai.states == {"succeeded": 100}
    assert (openai.paid, ollama.paid) == (40, 60)


def test_only_models_in_fallback_models_go_to_the_other_provider(both: tuple[Job, Job], pipeline: Pipeline) -> None:
    openai, ollama = both
    pipeline.sandbox.down("ollama")
    openai.queue(60, model=NOMIC)
    ollama.queue(40, model=MINILM)
    pipeline.wait_until(lambda: openai.accepted == 60, "those with a fallback")
    assert (openai.paid, ollama.paid) == (60, 0)
    words = wait_for_words(pipeline, "ollama: no connection", status=200)
    assert "openai" not in words
    assert openai.statuses.keys() == {"200"}, "the others were never sent to OpenAI"
    pipeline.sandbox.up("ollama")
    pipeline.wait_until(lambda: openai.accepted == 100, "those without")
    assert openai.states == {"succeeded": 100}
    assert (openai.paid, ollama.paid) == (60, 40)


def test_a_long_text_is_truncated_if_truncate_long_texts_is_set(both: tuple[Job, Job]) -> None:
    openai, _ = both
    openai.queue_texts("a " * 20_000, model=SMALL).wait_done()
    assert openai.states == {"succeeded": 1}
    (charge,) = openai.charges
    assert charge["tokens"] == pytest.approx(8192 * 2 / 4, abs=2), "the stand-in counts four bytes as a token"
