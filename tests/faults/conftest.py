"""Pipelines for the faults: they take seconds to start, so tests that leave them as they were share them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox.client import Sandbox
from sandbox.pipeline import Pipeline
from tests.faults.ledger import Ledger

SETTINGS: dict[str, Any] = {
    "PROCESSING_MODE": "openai",  # so that the sandbox counts what is paid
    "EMBEDDER_PROCESSES": 2,
    "EMBEDDING_DIMENSIONS": 64,
    "EMBED_BATCH_SIZE": 64,
    "POLLING_INTERVAL_SECONDS": 1,
}
LATENCY = 0.1
"""Seconds for which the provider thinks about each request, so that work waits in every stage."""
IN_SLOTS = 5 * 64
"""CONCURRENCY_LIMIT batches of EMBED_BATCH_SIZE: what one embedder may hold."""
SHORT_LEASE = 4.0
"""Seconds; a restart under load must still be shorter."""


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """A ready pipeline with the defaults that the service has."""
    with Sandbox.start() as sandbox, Pipeline(sandbox, tmp_path_factory.mktemp("p"), **SETTINGS) as running:
        sandbox.settings(openai={"latency_seconds": LATENCY})
        running.wait_ready()
        yield running


@pytest.fixture(scope="session")
def short_lease(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """A ready pipeline whose leases end soon."""
    settings = {**SETTINGS, "LEASE_SECONDS": SHORT_LEASE}
    with Sandbox.start() as sandbox, Pipeline(sandbox, tmp_path_factory.mktemp("p"), **settings) as running:
        sandbox.settings(openai={"latency_seconds": LATENCY})
        running.wait_ready()
        yield running


@pytest.fixture
def start(tmp_path: Path, sandbox: Sandbox) -> Iterator[Callable[..., Pipeline]]:
    """Starts a pipeline of the test's own, with more settings."""
    started: list[Pipeline] = []

    def start(**settings: object) -> Pipeline:
        pipeline = Pipeline(sandbox, tmp_path, **{**SETTINGS, **settings})
        started.append(pipeline)
        sandbox.settings(openai={"latency_seconds": LATENCY})
        pipeline.start()
        pipeline.wait_ready()
        return pipeline

    yield start
    for pipeline in started:
        pipeline.stop()


@pytest.fixture
def ledger(pipeline: Pipeline) -> Iterator[Ledger]:
    """The costs of one test on the pipeline with the defaults."""
    yield from on(pipeline)


@pytest.fixture
def short_ledger(short_lease: Pipeline) -> Iterator[Ledger]:
    """The costs of one test on the pipeline whose leases end soon."""
    yield from on(short_lease)


def on(pipeline: Pipeline) -> Iterator[Ledger]:
    """A ledger; at the end the sandbox is as it was."""
    yield Ledger(pipeline.sandbox, pipeline)
    pipeline.sandbox.clear_faults()
    pipeline.sandbox.release()
