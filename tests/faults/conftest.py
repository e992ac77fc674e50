"""Pipelines for the fault tests. They take seconds to start, so tests that restore what they change share them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from sandbox.pipeline import Pipeline
from tests.faults.ledger import Ledger
from tests.pipelines import pipeline_with_own_sandbox, restored

SETTINGS: dict[str, Any] = {
    "PROCESSING_MODE": "openai",  # so that the sandbox counts what is charged
    "EMBEDDER_PROCESSES": 2,
    "EMBEDDING_DIMENSIONS": 64,
    "EMBED_BATCH_SIZE": 64,
    "POLLING_INTERVAL_SECONDS": 1,
}
OUTSIDE = {"openai": {"latency_seconds": 0.1}}
"""The provider takes some time for each request, so that every stage has work."""
IN_SLOTS = 5 * 64
"""CONCURRENCY_LIMIT batches of EMBED_BATCH_SIZE: the most tasks that one embedder may hold."""
SHORT_LEASE_S = 4.0
"""A restart under load must be shorter than this."""


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """A ready pipeline with the default LEASE_SECONDS."""
    with pipeline_with_own_sandbox(tmp_path_factory.mktemp("p"), OUTSIDE, **SETTINGS) as running:
        yield running


@pytest.fixture(scope="session")
def short_lease(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """A ready pipeline with short leases."""
    with pipeline_with_own_sandbox(
        tmp_path_factory.mktemp("p"), OUTSIDE, LEASE_SECONDS=SHORT_LEASE_S, **SETTINGS
    ) as running:
        yield running


@pytest.fixture
def ledger(pipeline: Pipeline) -> Iterator[Ledger]:
    """The costs of one test on the pipeline with the default leases."""
    yield from restored_ledger(pipeline)


@pytest.fixture
def short_ledger(short_lease: Pipeline) -> Iterator[Ledger]:
    """The costs of one test on the pipeline with short leases."""
    yield from restored_ledger(short_lease)


def restored_ledger(pipeline: Pipeline) -> Iterator[Ledger]:
    with restored(pipeline.sandbox) as sandbox:
        yield Ledger(sandbox, pipeline)
