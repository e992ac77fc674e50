"""The stand-in for Ollama."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import requests

from sandbox.client import Sandbox

MODEL = "nomic-embed-text"


def embed(sandbox: Sandbox, session: requests.Session, texts: Any, **fields: Any) -> requests.Response:
    return session.post(f"{sandbox.ollama}/api/embed", json={"model": MODEL, "input": texts, **fields})


def pull(sandbox: Sandbox, session: requests.Session, model: str) -> list[Any]:
    response = session.post(f"{sandbox.ollama}/api/pull", json={"model": model})
    assert response.status_code == 200
    return [json.loads(line) for line in response.iter_lines()]


def tags(sandbox: Sandbox, session: requests.Session) -> set[str]:
    return {model["name"] for model in session.get(f"{sandbox.ollama}/api/tags").json()["models"]}


def test_embeddings_are_unit_vectors(sandbox: Sandbox, session: requests.Session) -> None:
    content = embed(sandbox, session, ["one", "two two"]).json()
    assert content["model"] == MODEL
    assert content["prompt_eval_count"] == 2
    vectors = np.array(content["embeddings"])
    assert vectors.shape == (2, 768)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)
    assert len(embed(sandbox, session, "one", dimensions=64).json()["embeddings"][0]) == 64
    assert sandbox.summary()["ollama"]["paid_twice"] == 1


def test_a_single_empty_string_gives_no_embedding(sandbox: Sandbox, session: requests.Session) -> None:
    response = embed(sandbox, session, "")
    assert (response.status_code, response.json()["embeddings"]) == (200, [])


def test_a_too_long_input_is_truncated_or_refused(sandbox: Sandbox, session: requests.Session) -> None:
    text = "x" * 4 * 3000
    assert embed(sandbox, session, text).json()["prompt_eval_count"] == 2048
    refused = embed(sandbox, session, text, truncate=False)
    assert (refused.status_code, refused.json()["error"]) == (400, "the input length exceeds the context length")


def test_a_missing_model_can_be_pulled(sandbox: Sandbox, session: requests.Session) -> None:
    sandbox.settings(ollama={"pull_seconds": 0.05, "pull_steps": 4})
    missing = embed(sandbox, session, "x", model="all-minilm")
    assert (missing.status_code, missing.json()["error"]) == (
        404,
        'model "all-minilm" not found, try pulling it first',
    )
    lines = pull(sandbox, session, "all-minilm")
    assert lines[0] == {"status": "pulling manifest"}
    assert [line["completed"] for line in lines if "completed" in line][-1] == lines[1]["total"]
    assert lines[-1] == {"status": "success"}
    assert "all-minilm:latest" in tags(sandbox, session)
    assert len(embed(sandbox, session, "x", model="all-minilm").json()["embeddings"][0]) == 384
    assert sandbox.summary()["ollama"]["pulls"] == 1


def test_a_pull_can_fail_after_its_200(sandbox: Sandbox, session: requests.Session) -> None:
    assert "error" in pull(sandbox, session, "no-such-model")[-1]
    sandbox.settings(ollama={"pull_error": "connection reset", "pull_seconds": 0})
    assert pull(sandbox, session, "all-minilm")[-1] == {"error": "connection reset"}
    assert "all-minilm:latest" not in tags(sandbox, session)


def test_a_pull_under_way_can_be_accelerated(sandbox: Sandbox, session: requests.Session) -> None:
    sandbox.settings(ollama={"pull_seconds": 60, "pull_steps": 600})
    with ThreadPoolExecutor(1) as pool:
        pulling = pool.submit(pull, sandbox, session, "all-minilm")
        sandbox.wait_until(lambda summary: summary["ollama"]["pulling"] == 1)
        sandbox.settings(ollama={"pull_seconds": 0})
        assert pulling.result(30)[-1] == {"status": "success"}


def test_too_many_concurrent_requests_are_refused_with_503(sandbox: Sandbox, session: requests.Session) -> None:
    sandbox.settings(ollama={"max_under_way": 1})
    sandbox.fault("ollama", hold=True, times=1)
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(embed, sandbox, session, "x")
        sandbox.wait_until(lambda summary: summary["ollama"]["held"] == 1)
        busy = requests.post(f"{sandbox.ollama}/api/embed", json={"model": MODEL, "input": "y"})
        assert (busy.status_code, busy.json()["error"][:11]) == (503, "server busy")
        sandbox.release()
        assert held.result().status_code == 200


@pytest.mark.parametrize("transform", ["nan", "not_normalised", "too_few"])
def test_a_fault_can_corrupt_vectors(sandbox: Sandbox, session: requests.Session, transform: str) -> None:
    sandbox.fault("ollama", transform=transform)
    vectors = np.array(embed(sandbox, session, ["a", "b"]).json()["embeddings"])
    healthy = vectors.shape == (2, 768) and np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    assert not healthy
