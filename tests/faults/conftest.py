"""Pipelines for the faults: they take seconds to start, so tests that leave them as they were share them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from sandbox.pipeline import Pipeline
from tests.faults.ledger import Ledger
from tests.pipelines import pipeline_with_own_sandbox, restored

SETTINGS: dict[str, Any] = {
    "PROCESSING_MODE": "openai",  # so that the sandbox counts what is paid
    "EMBEDDER_PROCESSES": 2,
    "EMBEDDING_DIMENSIONS": 64,
    "EMBED_BATCH_SIZE": 64,
    "POLLING_INTERVAL_SECONDS": 1,
}
OUTSIDE = {"openai": {"latency_seconds": 0.1}}
"""The provider thinks about each request, so that work waits in every stage."""
IN_SLOTS = 5 * 64
"""CONCURRENCY_LIMIT batches of EMBED_BATCH_SIZE: what one embedder may hold."""
SHORT_LEASE = 4.0
"""Seconds; a restart under load must still be shorter."""


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """A ready pipeline with the defaults that the service has."""
    with pipeline_with_own_sandbox(tmp_path_factory.mktemp("p"), OUTSIDE, **SETTINGS) as running:
        yield running


@pytest.fixture(scope="session")
def short_lease(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """A ready pipeline whose leases end soon."""
    with pipeline_with_own_sandbox(tmp_path_factory.mktemp("p"), OUTSIDE, LEASE_SECONDS=SHORT_LEASE, **SETTINGS) as running:
        yield running


@pytest.fixture
def ledger(pipeline: Pipeline) -> Iterator[Ledger]:
    """The costs of one test on the pipeline with the defaults."""
    yield from on(pipeline)


@pytest.fixture
def short_ledger(short_lease: Pipeline) -> Iterator[Ledger]:
    """The costs of one test on the pipeline whose leases end soon."""
    yield from on(short_lease)


def on(pipeline: Pipeline) -> Iterator[Ledger]:
    with restored(pipeline.sandbox) as sandbox:
        yield Ledger(sandbox, pipeline)
