"""A sandbox and a pipeline against it, shared by the tests of one file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.client import Sandbox
from sandbox.pipeline import Pipeline


@pytest.fixture(scope="module")
def outside() -> Iterator[Sandbox]:
    with Sandbox.start() as sandbox:
        sandbox.settings(api={"keep_results": True})
        yield sandbox


@pytest.fixture(scope="module")
def pipeline(outside: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    folder: Path = tmp_path_factory.mktemp("pipeline")
    with Pipeline(outside, folder, EMBEDDER_PROCESSES=3, POLLING_INTERVAL_SECONDS=0.3) as running:
        running.wait_ready()
        yield running
