"""The models that OpenAI or a compatible server has: other models are never sent there while Ollama is down."""

from __future__ import annotations

import pytest

from sandbox.client import Sandbox
from stages.embedder.providers.model_list import ModelList
from stages.embedder.providers.openai import OpenAI
from tests.embedder.conftest import Make
from tests.embedder.fakes import settings


def test_a_compatible_server_is_asked_for_its_models(make: Make, sandbox: Sandbox) -> None:
    provider = make()._backends[0].provider
    sandbox.settings(openai={"models": {"BAAI/bge-m3": 8}})
    assert [provider.has(name) for name in ("BAAI/bge-m3", "bge-m3", "text-embedding-3-small")] == [True, False, True]
    sandbox.fault("openai", path="models", status=404, body='{"detail": "Not Found"}')
    silent = make()._backends[0].provider
    assert silent.has("bge-m3") is None
    assert silent.has("text-embedding-3-small") is True


def test_the_last_list_counts_while_the_server_sends_none(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [None, frozenset({"a"}), None, frozenset({"b"})]
    listing = ModelList(lambda: answers.pop(0))
    assert [listing.has("a") for _ in range(3)] == [None, None, None], "it is not asked again at once"
    monkeypatch.setattr("stages.embedder.providers.model_list.MAX_AGE_S", 0.0)
    assert [listing.has("a") for _ in range(3)] == [True, True, False]


def test_openai_has_only_its_own_models() -> None:
    official = OpenAI(settings())
    assert [official.has(name) for name in ("text-embedding-3-large", "nomic-embed-text")] == [True, False]
    official.close()
