"""Embedding engines that use the providers of the sandbox."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from common.failures.retry import Backoff
from sandbox.client import Sandbox
from stages.embedder.engine import EmbeddingEngine
from tests.embedder.fakes import settings

Make = Callable[..., EmbeddingEngine]


@pytest.fixture
def make(sandbox: Sandbox, tmp_path: Path) -> Iterator[Make]:
    """Make an `EmbeddingEngine` for the providers of the sandbox, with quick retries; it is closed after the test."""
    made: list[EmbeddingEngine] = []

    def _make(**fields: Any) -> EmbeddingEngine:
        here = {
            "openai_base_url": sandbox.openai,
            "openai_api_key": "sk-sandbox-key",
            "ollama_base_url": sandbox.ollama,
            "state_dir": tmp_path,
            "runtime_dir": tmp_path / "run",
            "max_retries": 2,
        }
        engine = EmbeddingEngine(settings(**{**here, **fields}))
        quick = engine.parts.runtime._replace(backoff=Backoff(first=0.01))
        engine.parts = engine.parts._replace(runtime=quick)
        made.append(engine)
        return engine

    yield _make
    for engine in made:
        engine.close()
