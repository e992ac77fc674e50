"""Which models OpenAI, or a server like it, has: texts for others are never sent there while Ollama is down."""

from __future__ import annotations

import pytest

from sandbox.client import Sandbox
from stages.embedder.providers.model_list import ModelList
from stages.embedder.providers.openai import OpenAI
from tests.embedder.conftest import Make
from tests.embedder.fakes import settings


def test_a_compatible_server_is_asked_what_it_has(make: Make, sandbox: Sandbox) -> None:
    provider = make()._backends[0].provider
    sandbox.settings(openai={"models": {"BAAI/bge-m3": 8}})
    assert [provider.has(name) for name in ("BAAI/bge-m3", "bge-m3", "text-embedding-3-small")] == [True, False, True]
    sandbox.fault("openai", path="models", status=404, body='{"detail": "Not Found"}')
    silent = make()._backends[0].provider
    assert silent.has("bge-m3") is None
    assert silent.has("text-embedding-3-small") is True


def test_what_a_server_listed_last_holds_while_it_does_not_say(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [None, frozenset({"a"}), None, frozenset({"b"})]
    listing = ModelList(lambda: answers.pop(0))
    assert [listing.has("a") for _ in range(3)] == [None, None, None], "not asked again at once"
    monkeypatch.setattr("stages.embedder.providers.model_list.AGE", 0.0)
    assert [listing.has("a") for _ in range(3)] == [True, True, False]


def test_openai_itself_has_its_own_models_only() -> None:
    official = OpenAI(settings())
    assert [official.has(name) for name in ("text-embedding-3-large", "nomic-embed-text")] == [True, False]
    official.close()
