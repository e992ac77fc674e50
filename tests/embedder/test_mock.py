"""Mock vectors are the same on every machine, of norm one, and far apart."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from stages.embedder.providers import mock
from tests.embedder.fakes import settings

SMALL = "text-embedding-3-small"
TEXTS = [f"text number {number}" for number in range(300)]


def test_mock_vectors_are_the_same_on_every_machine() -> None:
    digest = hashlib.sha256(mock.vectors(SMALL, TEXTS).tobytes()).hexdigest()
    assert digest[:16] == "7f819cc19e248fd7"
    assert np.array_equal(mock.vectors(SMALL, TEXTS)[7:8], mock.vectors(SMALL, [TEXTS[7]]))


@pytest.mark.parametrize("dimensions", [1536, 3072, 256, 33, 8])
def test_mock_vectors_have_norm_one(dimensions: int) -> None:
    matrix = mock.vectors(SMALL, TEXTS, dimensions)
    assert matrix.shape == (300, dimensions)
    assert matrix.dtype == np.float32
    assert np.abs(np.linalg.norm(matrix.astype(np.float64), axis=1) - 1).max() < 1e-6


def test_mock_vectors_of_different_texts_and_models_are_far_apart() -> None:
    matrix = np.concatenate([mock.vectors(SMALL, TEXTS), mock.vectors("text-embedding-ada-002", TEXTS)])
    cosines = matrix @ matrix.T - np.eye(600)
    assert np.abs(cosines).max() < 0.2
    assert abs(cosines.mean()) < 0.001


def test_a_mock_vector_of_fewer_dimensions_is_the_beginning_of_a_longer_one() -> None:
    whole, short = mock.vectors(SMALL, TEXTS), mock.vectors(SMALL, TEXTS, 256)
    beginning = whole[:, :256] / np.linalg.norm(whole[:, :256], axis=1, keepdims=True)
    assert np.allclose(short, beginning, atol=1e-6)


@pytest.mark.parametrize(
    ("model", "dimensions"),
    [
        (SMALL, 1536),
        ("text-embedding-3-large", 3072),
        ("text-embedding-ada-002", 1536),
        ("nomic-embed-text", 768),
        ("nomic-embed-text:v1.5", 768),
        ("Qwen/Qwen3-Embedding-0.6B", 1024),
        ("mxbai-embed-large", 1024),
        ("whatever-large", 3072),
        ("whatever", 1536),
    ],
)
def test_mock_vectors_are_as_long_as_the_model_s(model: str, dimensions: int) -> None:
    assert mock.vectors(model, ["a"]).shape == (1, dimensions)


def test_embedding_dimensions_shortens_mock_vectors_except_for_models_that_refuse_it() -> None:
    provider = mock.Mock(settings(processing_mode="mock", embedding_dimensions=256))
    assert provider.embed(SMALL, ["a"]).matrix.shape == (1, 256)
    assert provider.embed("text-embedding-ada-002", ["a"]).matrix.shape == (1, 1536)


def test_the_mock_provider_counts_four_bytes_as_a_token() -> None:
    provider = mock.Mock(settings(processing_mode="mock"))
    assert provider.embed(SMALL, ["a", "ä" * 10]).tokens == 1 + 5
    assert provider.embed(SMALL, []).matrix.shape == (0, 1536)
