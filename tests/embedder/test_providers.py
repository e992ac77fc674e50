"""The providers of each mode, and those of other packages."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from common.settings.settings import PLACEHOLDER_API_KEY
from stages.embedder.engine import EmbeddingEngine
from stages.embedder.providers import registry
from tests.embedder.fakes import ScriptedProvider, settings


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({}, ["openai"]),
        ({"processing_mode": "ollama"}, ["ollama"]),
        ({"processing_mode": "hybrid"}, ["ollama", "openai"]),
        ({"processing_mode": "mock"}, ["mock"]),
        ({"openai_api_key": PLACEHOLDER_API_KEY}, ["mock"]),
    ],
)
def test_each_mode_uses_its_providers(fields: dict[str, Any], names: list[str]) -> None:
    engine = EmbeddingEngine(settings(**fields))
    assert engine.facts["providers"] == names
    assert engine.facts["mock"] is (names == ["mock"])
    engine.close()


class Point:
    """An entry point of another package."""

    name = "ours"

    def load(self) -> Any:
        def make(_: Any) -> ScriptedProvider:
            made = ScriptedProvider(name="ours")
            made.having = frozenset({"our-model"})
            return made

        return make


def test_a_provider_of_another_package_serves_its_models(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = {registry.ENTRY_POINTS: [Point()]}
    monkeypatch.setattr(registry, "entry_points", lambda group: groups[group])
    engine = EmbeddingEngine(settings(openai_base_url="http://127.0.0.1:1"))
    assert engine.facts["providers"] == ["ours", "openai"]
    assert isinstance(engine.session().embed("our-model", ["a"])[0], np.ndarray)
    small = engine.parts.candidates("text-embedding-3-small")
    assert [backend.provider.name for backend, _ in small] == ["openai"]
    engine.close()
    mock = EmbeddingEngine(settings(processing_mode="mock"))
    assert mock.facts["providers"] == ["mock"]
