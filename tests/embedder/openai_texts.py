"""Ten texts for the tests of the OpenAI provider, and what an engine makes of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from stages.embedder.engine import EmbeddingEngine
from stages.embedder.session import Session
from tests.embedder.conftest import Make

SMALL, LARGE, ADA = "text-embedding-3-small", "text-embedding-3-large", "text-embedding-ada-002"
TEXTS = [f"text number {number}" for number in range(10)]


def got(engine: EmbeddingEngine, texts: list[str] = TEXTS, model: str = SMALL) -> tuple[Session, list[Any]]:
    session = engine.session()
    return session, session.embed(model, texts)


def truth(make: Make, texts: list[str] = TEXTS) -> Any:
    return np.array(got(make(), texts)[1])
