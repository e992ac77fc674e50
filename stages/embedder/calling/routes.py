"""Which provider embeds for which model, and which provider may replace it.

In the mode `hybrid`, a model goes to the provider that has it. OpenAI has the models named `text-embedding-…` and those
that a compatible server lists; Ollama has those in SUPPORTED_MODELS and those that it lists. Ollama downloads a model
that no provider has; a server that does not list its models is asked before that. A provider that is known not to have
a model is never sent its texts, not even if the right provider is down.

If the first provider cannot be used now, the next one is tried: with the same model under the same name, or with the
name that FALLBACK_MODELS gives. This map (`{"bge-m3": "BAAI/bge-m3"}`) means: *these two names are one model*, with the
same vectors. It must not name a model that is only similar: its vectors would be stored under the first name, and could
not be compared with the others. A fallback with vectors of another length is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from common.settings.settings import Mode, Settings
from stages.embedder.calling.backend import Backend

HAS, MAY_HAVE, COULD_GET, NEVER = range(4)
"""Whether a provider has a model. `COULD_GET`: Ollama would download it, if SUPPORTED_MODELS allows this."""


class Routes:
    """Knows the candidates for each model."""

    def __init__(self, settings: Settings, backends: Sequence[Backend]) -> None:
        self._mode = settings.mode
        self._supported = frozenset(settings.supported_models)
        self._fallbacks: Mapping[str, str] = settings.fallback_models
        self._backends = backends

    def refusal(self, model: str) -> str | None:
        """Why no provider may be asked for this model; None if one may."""
        if self._mode is Mode.OLLAMA and self._supported and model not in self._supported:
            return f"the model {model[:100]} is not in SUPPORTED_MODELS"
        return None

    def candidates(self, model: str) -> list[tuple[Backend, str]]:
        """The backends for the model, first choice first, with the name that each has for it. May ask the providers."""
        if len(self._backends) == 1:
            return [(self._backends[0], model)]
        ranked = sorted((self._rank(backend, model), index) for index, backend in enumerate(self._backends))
        best = ranked[0][0]
        # a download is only an option if no provider certainly has the model
        may = [self._backends[index] for rank, index in ranked if rank < COULD_GET or (best > HAS and rank < NEVER)]
        if best == NEVER:  # let a provider itself report that it has no such model, and ask it again from time to time
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
