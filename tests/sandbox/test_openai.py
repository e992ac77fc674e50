"""The stand-in for OpenAI, partly tested with the official SDK."""

import base64
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import requests
from openai import OpenAI

from sandbox.client import Sandbox

MODEL = "text-embedding-3-small"


def post(sandbox: Sandbox, session: requests.Session, texts: Any, key: str = "sk-good", **fields: Any) -> Any:
    body = {"model": MODEL, "input": texts, **fields}
    return session.post(f"{sandbox.openai}/embeddings", json=body, headers={"Authorization": f"Bearer {key}"})


def vectors(response: Any) -> npt.NDArray[np.float32]:
    items = sorted(response.json()["data"], key=lambda item: item["index"])
    return np.array([item["embedding"] for item in items], np.float32)


def test_the_official_sdk_works(sandbox: Sandbox) -> None:
    with OpenAI(base_url=sandbox.openai, api_key="sk-good", max_retries=0) as client:
        response = client.embeddings.create(model=MODEL, input=["one", "two"])
    assert len(response.data) == 2
    assert np.linalg.norm(response.data[0].embedding) == pytest.approx(1.0, abs=1e-6)


def test_vectors_are_unit_vectors_that_depend_only_on_the_text(sandbox: Sandbox, session: requests.Session) -> None:
    first = vectors(post(sandbox, session, ["one", "two", "one"]))
    assert first.shape == (3, 1536)
    assert np.allclose(np.linalg.norm(first, axis=1), 1.0, atol=1e-6)
    assert np.array_equal(first[0], first[2])
    assert abs(float(first[0] @ first[1])) < 0.15
    assert np.array_equal(vectors(post(sandbox, session, "two"))[0], first[1])
    other = vectors(post(sandbox, session, "one", model="text-embedding-3-large"))
    assert other.shape == (1, 3072)
    short = vectors(post(sandbox, session, "one", dimensions=256))
    assert short.shape == (1, 256)
    assert np.allclose(np.linalg.norm(short, axis=1), 1.0, atol=1e-6)


def test_noise_makes_embeddings_of_one_text_differ(sandbox: Sandbox, session: requests.Session) -> None:
    sandbox.settings(openai={"noise": 1e-4})
    first, second = (vectors(post(sandbox, session, "one"))[0] for _ in range(2))
    assert not np.array_equal(first, second)
    assert float(first @ second) > 0.99


def test_base64_carries_the_same_floats(sandbox: Sandbox, session: requests.Session) -> None:
    floats = vectors(post(sandbox, session, "one"))[0]
    encoded = post(sandbox, session, "one", encoding_format="base64").json()["data"][0]["embedding"]
    assert np.array_equal(np.frombuffer(base64.b64decode(encoded), "<f4"), floats)


@pytest.mark.parametrize(
    ("texts", "status", "code"),
    [
        ("", 400, None),
        ([], 400, None),
        (["fine", ""], 400, None),
        (["fine", 3], 400, None),
        (None, 400, None),
        (["x"] * 2049, 400, None),
        ("x" * 4 * 8193, 400, None),
        (["x" * 4 * 8000] * 38, 400, "max_tokens_per_request"),
    ],
)
def test_inputs_over_the_limits_of_openai_are_refused(
    sandbox: Sandbox, session: requests.Session, texts: Any, status: int, code: str | None
) -> None:
    response = post(sandbox, session, texts)
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (status, code)
    assert set(error) == {"message", "type", "param", "code"}
    assert sandbox.summary()["openai"]["inputs"] == 0


def test_keys_and_models_are_checked(sandbox: Sandbox, session: requests.Session) -> None:
    bad_key = post(sandbox, session, "x", key="sk-bad")
    assert (bad_key.status_code, bad_key.json()["error"]["code"]) == (401, "invalid_api_key")
    unknown = post(sandbox, session, "x", model="text-embedding-9")
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")


def test_caps_and_headers_can_be_configured(sandbox: Sandbox, session: requests.Session) -> None:
    sandbox.settings(openai={"max_inputs": 2, "headers": {"x-ratelimit-remaining-requests": "7"}})
    assert post(sandbox, session, ["a", "b", "c"]).status_code == 400
    assert post(sandbox, session, ["a", "b"]).headers["x-ratelimit-remaining-requests"] == "7"


def test_charges_are_counted(sandbox: Sandbox, session: requests.Session) -> None:
    post(sandbox, session, ["a", "b"])
    post(sandbox, session, ["b", "c" * 40])
    post(sandbox, session, "a", model="text-embedding-3-large")
    summary = sandbox.summary()["openai"]
    expected = {"inputs": 5, "tokens": 14, "paid": 4, "paid_twice": 1, "paid_again": 1, "charged_requests": 3}
    assert {name: summary[name] for name in expected} == expected
    assert [(charge["inputs"], charge["tokens"]) for charge in sandbox.charges()] == [(2, 2), (2, 11), (1, 1)]


@pytest.mark.parametrize(
    ("transform", "shape"),
    [("too_few", (1, 8)), ("too_many", (3, 8)), ("wrong_length", (2, 4)), ("nan", (2, 8)), ("zero", (2, 8))],
)
def test_a_fault_can_corrupt_vectors(
    sandbox: Sandbox, session: requests.Session, transform: str, shape: tuple[int, int]
) -> None:
    sandbox.fault("openai", transform=transform)
    corrupted = vectors(post(sandbox, session, ["a", "b"], dimensions=8))
    assert corrupted.shape == shape
    if transform == "nan":
        assert np.isnan(corrupted[0]).any()
    if transform == "zero":
        assert not corrupted[0].any()


def test_a_fault_can_shuffle_the_order(sandbox: Sandbox, session: requests.Session) -> None:
    straight = vectors(post(sandbox, session, ["a", "b"]))
    sandbox.fault("openai", transform="shuffled")
    response = post(sandbox, session, ["a", "b"])
    assert [item["index"] for item in response.json()["data"]] == [1, 0]
    assert np.array_equal(vectors(response), straight)


@pytest.mark.parametrize(
    ("transform", "status", "start"),
    [
        ("truncated_json", 200, b'{"object":"list"'),
        ("html", 200, b"<html>"),
        ("error_in_200", 200, b'{"error"'),
        ("string_error", 500, b'{"detail"'),
    ],
)
def test_a_fault_can_corrupt_the_body(
    sandbox: Sandbox, session: requests.Session, transform: str, status: int, start: bytes
) -> None:
    sandbox.fault("openai", transform=transform)
    response = post(sandbox, session, "a")
    assert response.status_code == status
    assert response.content.startswith(start)
