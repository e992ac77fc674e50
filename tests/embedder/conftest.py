"""Embedders that talk to the sandbox."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from common.failures.retry import Backoff
from sandbox.client import Sandbox
from stages.embedder.engine import Embedding
from tests.embedder.fakes import settings

Make = Callable[..., Embedding]


@pytest.fixture
def make(sandbox: Sandbox, tmp_path: Path) -> Iterator[Make]:
    """Make an `Embedding` for the sandbox's providers, with quick retries; it is closed after the test."""
    made: list[Embedding] = []

    def _make(**fields: Any) -> Embedding:
        here = {
            "openai_base_url": sandbox.openai,
            "openai_api_key": "sk-sandbox-key",
            "ollama_base_url": sandbox.ollama,
            "state_dir": tmp_path,
            "runtime_dir": tmp_path / "run",
            "max_retries": 2,
        }
        embedding = Embedding(settings(**{**here, **fields}))
        embedding.tools = embedding.tools._replace(backoff=Backoff(first=0.01))
        made.append(embedding)
        return embedding

    yield _make
    for embedding in made:
        embedding.close()
