"""Pipelines for the providers: they take seconds to start, so tests share one where they can."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from sandbox.client import Sandbox
from sandbox.pipeline import Pipeline
from tests.pipelines import pipeline_with_own_sandbox
from tests.providers.job import Job

SETTINGS: dict[str, Any] = {
    "PROCESSING_MODE": "openai",
    "EMBEDDER_PROCESSES": 2,
    "CONCURRENCY_LIMIT": 2,
    "EMBED_BATCH_SIZE": 64,
    "EMBEDDING_DIMENSIONS": 64,
    "POLLING_INTERVAL_SECONDS": 0.3,
    "OPENAI_TIMEOUT": 1,
    "OLLAMA_TIMEOUT": 1.5,
    "MAX_RETRIES": 2,
    "RETRY_BACKOFF_FACTOR": 1.2,
}


def running(folder: Path, **settings: object) -> AbstractContextManager[Pipeline]:
    """A ready pipeline with a sandbox of its own."""
    return pipeline_with_own_sandbox(folder, {"api": {"keep_results": True}}, **{**SETTINGS, **settings})


@pytest.fixture(scope="package")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """The pipeline of the tests that need no settings of their own."""
    with running(tmp_path_factory.mktemp("pipeline")) as pipeline:
        yield pipeline


@pytest.fixture
def job(outside: Sandbox, pipeline: Pipeline) -> Job:
    return Job(pipeline)
