"""Pipelines for the providers: they take seconds to start, so tests share one where they can."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sandbox.client import Sandbox
from sandbox.pipeline import Pipeline
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


@contextmanager
def running(folder: Path, **settings: object) -> Iterator[Pipeline]:
    """A ready pipeline with a sandbox of its own."""
    with Sandbox.start() as sandbox:
        sandbox.settings(api={"keep_results": True})
        with Pipeline(sandbox, folder, **{**SETTINGS, **settings}) as pipeline:
            pipeline.wait_ready()
            yield pipeline
            stop_at_once(pipeline)


@pytest.fixture(scope="package")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """The pipeline of the tests that need no settings of their own."""
    with running(tmp_path_factory.mktemp("pipeline")) as pipeline:
        yield pipeline


def stop_at_once(pipeline: Pipeline) -> None:
    """Stop all programs together: one after another, as supervisord does it at its own end, takes ten seconds."""
    pipeline.supervisor("stopAllProcesses", False)


@pytest.fixture
def job(pipeline: Pipeline) -> Iterator[Job]:
    yield Job(pipeline)
    pipeline.sandbox.clear_faults()
    pipeline.sandbox.settings(openai={"latency_seconds": 0.0, "headers": {}})
