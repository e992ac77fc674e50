"""The pipeline that the tests of one file share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sandbox.pipeline import Pipeline
from tests.pipelines import pipeline_with_own_sandbox


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    folder, keeping = tmp_path_factory.mktemp("pipeline"), {"api": {"keep_results": True}}
    with pipeline_with_own_sandbox(folder, keeping, EMBEDDER_PROCESSES=3, POLLING_INTERVAL_SECONDS=0.3) as running:
        yield running
