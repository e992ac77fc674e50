"""Which provider embeds for which model, and which one may stand in for it.

In the mode `hybrid` a model goes to the provider that has it: OpenAI has those named `text-embedding-…`, and what a
compatible server lists; Ollama those in SUPPORTED_MODELS and those it lists. What nobody has, Ollama downloads, and a
server that does not list its models is asked before that. Who is known not to have a model is never sent its texts,
also when the one that has it, or might have it, is down.

When the first provider cannot be used now, the next one in line is tried, and that is either the same model there,
under the same name, or what FALLBACK_MODELS says. That map (`{"bge-m3": "BAAI/bge-m3"}`) means: *these two names are
one model*, with the same vectors. It must not name a model that merely is similar, because its vectors would end up
under the first one's name and compare with none of the others; a fallback with vectors of another length is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from common.settings.settings import Mode, Settings
from stages.embedder.calling.provider_call import Backend

HAS, MAY_HAVE, COULD_GET, NEVER = range(4)
"""Whether a provider has a model. `COULD_GET`: Ollama would download it, if SUPPORTED_MODELS lets it."""


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
        """Who may embed for the model, first choice first, and what each calls it. May ask providers what they have."""
        if len(self._backends) == 1:
            return [(self._backends[0], model)]
        ranked = sorted((self._rank(backend, model), index) for index, backend in enumerate(self._backends))
        best = ranked[0][0]
        # Ollama would download it: that is only asked for where nobody has it for sure
        may = [self._backends[index] for rank, index in ranked if rank < COULD_GET or (best > HAS and rank < NEVER)]
        if best == NEVER:  # one of them shall say so itself, and be asked again now and then
            may = [backend for backend in self._backends if backend.provider.name != "ollama"]
        other = self._fallbacks.get(model)
        if other is None or not may:
            return [(backend, model) for backend in may]
        return [(may[0], model), *((backend, other) for backend in self._backends if backend is not may[0])]

    def _rank(self, backend: Backend, model: str) -> int:
        has = backend.provider.has(model)
        ollama = backend.provider.name == "ollama"
        if has or (ollama and model in self._supported):
            return HAS
        if ollama and self._supported:
            return NEVER
        return MAY_HAVE if has is None else COULD_GET if ollama else NEVER
