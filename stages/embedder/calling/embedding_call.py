"""A provider call for embeddings: its request, the check of its vectors, and its metrics.

`embed_texts` sends texts to one provider until each has a vector or a final failure, or is deferred.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import structlog

from common.process import metrics
from common.task_types import token_count
from common.wire.messages import Failure
from stages.embedder.calling.backend import Backend
from stages.embedder.calling.call_actions import ProviderUnavailable, Succeeded
from stages.embedder.calling.driver import CallRuntime, Driver
from stages.embedder.calling.request_budget import RequestBudget
from stages.embedder.calling.vector_guard import COUNT, LENGTH, Vector, VectorGuard
from stages.embedder.providers import Embeddings
from stages.embedder.providers.request_metrics import counted_embed

INVALID_VECTOR = "invalid_vector"
"""The failure's code if a provider gave no usable vector for a text, twice."""

log = structlog.get_logger()


class EmbeddingExchange:
    """Requests for vectors from one provider."""

    def __init__(self, backend: Backend, model: str, task_model: str, guard: VectorGuard) -> None:
        """`model` is the provider's name of the model, `task_model` that of the tasks. They differ for a fallback."""
        self._provider = backend.provider
        self._gate = backend.gate
        self._model = model
        self._task_model = task_model
        self._guard = guard

    def request(self, texts: Sequence[str]) -> Embeddings:
        """Make one request."""
        return counted_embed(self._provider, self._model, texts)

    def check(self, texts: Sequence[str], response: Embeddings, now: float) -> Succeeded[Vector] | ProviderUnavailable:
        """Let the guard check the vectors."""
        name = self._provider.name
        checked = self._guard.check(self._task_model, response, len(texts), name)
        metrics.EMBEDDED_INPUTS.labels(name, "embedded").inc(len(texts) - len(checked.rejected))
        if not checked.rejected:
            return Succeeded(now, checked.vectors)
        reason = next(iter(checked.rejected.values()))
        log.warning("vectors_rejected", provider=name, model=self._model, inputs=len(checked.rejected), reason=reason)
        if checked.kind == LENGTH and self._task_model != self._model:
            return self._refuse_fallback(reason, now)
        rejected = {
            index: Failure(INVALID_VECTOR, f"{name} gave no usable vector: {why}")
            for index, why in checked.rejected.items()
        }
        return Succeeded(now, checked.vectors, rejected, checked.kind == COUNT)

    def most_tokens(self, text: str) -> int:
        """An upper bound of the tokens of a text."""
        return token_count.upper_bound(self._model, text)

    def _refuse_fallback(self, reason: str, now: float) -> ProviderUnavailable:
        """A fallback with vectors of another length is another model, whatever FALLBACK_MODELS says."""
        words = f"FALLBACK_MODELS maps {self._task_model} to {self._model}, which is another model: {reason}"
        self._gate.block_model(self._model, words)
        return ProviderUnavailable(now, self._gate.cooldown_until(self._model))


class EmbeddingOutcomes(NamedTuple):
    """The outcome of a call for each text."""

    by_text: dict[str, Vector | Failure | None]
    """None: deferred."""
    wait_until: float
    """When the deferred texts may be sent again (monotonic seconds)."""


def embed_texts(
    backend: Backend,
    model: str,
    task_model: str,
    texts: Sequence[str],
    budget: RequestBudget,
    guard: VectorGuard,
    runtime: CallRuntime,
) -> EmbeddingOutcomes:
    """Embed distinct texts with one provider; for `model` and `task_model` see `EmbeddingExchange`."""
    exchange = EmbeddingExchange(backend, model, task_model, guard)
    rechecks = guard.take_rejected(task_model, texts)
    call = Driver(backend, model, texts, budget, runtime, exchange).run(rechecks)
    guard.remember_rejected(task_model, [texts[position] for position in call.open_rechecks])
    for outcome in call.outcomes:
        if isinstance(outcome, Failure):
            label = "invalid" if outcome.code == INVALID_VECTOR else "refused"
            metrics.EMBEDDED_INPUTS.labels(backend.provider.name, label).inc()
    return EmbeddingOutcomes(dict(zip(texts, call.outcomes, strict=True)), call.wait_until)
