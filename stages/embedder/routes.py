"""Which provider embeds for which model, and which one may stand in for it.

In the mode `hybrid` a model goes to the provider that has it: OpenAI has those named `text-embedding-…`; Ollama those
in SUPPORTED_MODELS and those it lists; of all others, Ollama is asked last, since it would download them. When the
first provider cannot be used now, the next one in line is tried, and that is either the same model there, under the
same name, or what FALLBACK_MODELS says. That map (`{"bge-m3": "BAAI/bge-m3"}`) means: *these two names are one model*,
with the same vectors. It must not name a model that merely is similar, because its vectors would end up under the
first one's name and compare with none of the others; a fallback with vectors of another length is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from common.settings import Mode, Settings
from stages.embedder.sending import Backend


class Routes:
    """The candidates for each model."""

    def __init__(self, settings: Settings, backends: Sequence[Backend]) -> None:
        self._mode = settings.mode
        self._supported = frozenset(settings.supported_models)
        self._fallbacks: Mapping[str, str] = settings.fallback_models
        self._backends = backends

    def refusal(self, model: str) -> str | None:
        """Say why no provider is ever asked for this model; None if one is."""
        if self._mode is Mode.OLLAMA and self._supported and model not in self._supported:
            return f"the model {model[:100]} is not in SUPPORTED_MODELS"
        return None

    def candidates(self, model: str) -> list[tuple[Backend, str]]:
        """Who may embed for the model, first choice first, and what each calls it."""
        if len(self._backends) == 1:
            return [(self._backends[0], model)]
        ranked = sorted(self._backends, key=lambda backend: self._rank(backend, model))
        named = [(backend, model) for backend in ranked if self._may_ask(backend, model)]
        other = self._fallbacks.get(model)
        if other is None:
            return named
        first = named[0][0] if named else ranked[0]
        return [(first, model), *((backend, other) for backend in ranked if backend is not first)]

    def _rank(self, backend: Backend, model: str) -> int:
        """0 for one that has the model, 1 for one that may have it, 2 for one that has it not."""
        if backend.provider.name == "ollama" and model in self._supported:
            return 0
        has = backend.provider.has(model)
        return 1 if has is None else 0 if has else 2

    def _may_ask(self, backend: Backend, model: str) -> bool:
        """Ollama would download what it has not: with SUPPORTED_MODELS set, only those."""
        if backend.provider.name != "ollama" or not self._supported:
            return True
        return model in self._supported or bool(backend.provider.has(model))
