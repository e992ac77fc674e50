"""From the texts of one batch to one outcome for each: a vector, a final failure, or a deferral.

preflight.py           refuses texts that no provider accepts, and merges identical ones
calling/routes.py      which providers may embed, first choice first
reuse/                 takes vectors from the cache, and from batches that embed the same text now
calling/               sends the rest
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeAlias, TypeGuard

import numpy as np

from common.process import metrics
from common.task_types import Deferral
from common.wire.messages import Failure
from stages.embedder.calling.backend import Backend
from stages.embedder.calling.driver import CallRuntime
from stages.embedder.calling.embedding_call import EmbeddingOutcomes, embed_texts
from stages.embedder.calling.gate import PROBE_POLL_S
from stages.embedder.calling.request_budget import RequestBudget
from stages.embedder.calling.vector_guard import Vector, VectorGuard
from stages.embedder.preflight import run_preflight
from stages.embedder.reuse import InFlight, Outcome, Reuse, keys_of

Candidates: TypeAlias = list[tuple[Backend, str]]
"""Backends for a model, first choice first, each with its name for the model."""
Found: TypeAlias = dict[bytes, Outcome | None]
"""By key of `Reuse`; None: deferred."""


class SessionParts(NamedTuple):
    """What all sessions of a process share."""

    refusal: Callable[[str], str | None]
    """Why a model is not supported; None if it is."""
    candidates: Callable[[str], Candidates]
    reuse: Reuse
    guard: VectorGuard
    runtime: CallRuntime
    wait_for_stop: Callable[[float], bool]
    """Waits for a number of seconds of the real clock; returns True, and at once, when the embedder is told to stop."""
    dimensions: int
    """EMBEDDING_DIMENSIONS: part of the cache's keys."""
    truncate: bool
    """TRUNCATE_LONG_TEXTS."""
    unknown: Callable[[str], str]
    """Why the tasks of a model fail, because its providers have not had it for long; empty if they wait."""


class Route(NamedTuple):
    """A backend that is asked for the vectors of a model."""

    backend: Backend
    model: str
    """The provider's name of the model."""
    task_model: str
    """The name in the tasks."""


class Session:
    """One batch. `embed` may be called more than once; the numbers are totals."""

    def __init__(self, parts: SessionParts, max_requests: int | None = None, send_by: float = 0.0) -> None:
        """`max_requests` is the request budget, None means unlimited; for `send_by` see `messages.Charge`."""
        self._parts = parts
        self._budget = RequestBudget(max_requests, send_by)
        self.refused = 0
        """Texts that the preflight refused, or of a model that is not supported."""
        self._reused = 0

    @property
    def tokens(self) -> int:
        """Tokens that the providers reported, and the most that requests of unknown outcome may have used."""
        return self._budget.tokens

    @property
    def requests(self) -> int:
        """Requests made to providers, failed ones included."""
        return self._budget.requests

    @property
    def cached(self) -> int:
        """Texts that got their vector without being sent: from the cache, from another batch, or as a duplicate.

        Less the canaries: each costs as much as a text.
        """
        return self._reused - self._budget.canaries

    @property
    def reached_at(self) -> float:
        """When the last request had reached its provider at the latest (monotonic seconds); 0 if there was none."""
        return self._budget.reached_at

    def embed(self, model: str, texts: Sequence[str]) -> list[Vector | Failure | Deferral]:
        """Embed the texts; one outcome for each, in their order. Vectors are (d,) float32 with norm 1."""
        self._budget.cover(len(texts))
        refusal = self._parts.refusal(model)
        if refusal is not None:
            self.refused += len(texts)
            return [Failure("unsupported_model", refusal) for _ in texts]
        wanted, refused = run_preflight(model, texts, truncate=self._parts.truncate)
        if refused:
            self.refused += len(refused)
            metrics.EMBEDDED_INPUTS.labels("none", "refused").inc(len(refused))
        found, until = self._ask_candidates(model, list(wanted))
        unknown = self._parts.unknown(model) if any(outcome is None for outcome in found.values()) else ""
        if unknown:
            failure = Failure("unknown_model", f"the model {model[:100]} is not served by its provider: {unknown}")
            found = {text: failure if outcome is None else outcome for text, outcome in found.items()}
        outcomes: dict[int, Vector | Failure | Deferral] = {**refused}
        for text, positions in wanted.items():
            outcome = found[text]
            result = self._deferral(text, until) if outcome is None else outcome
            outcomes.update(dict.fromkeys(positions, result))
            if _is_vector(outcome):
                self._reused += len(positions) - 1
        return [outcomes[position] for position in range(len(texts))]

    def _deferral(self, text: str, until: float) -> Deferral:
        return Deferral(until, text not in self._budget.maybe_paid, self._budget.requeue.get(text, 0))

    def _ask_candidates(self, model: str, texts: list[str]) -> tuple[dict[str, Outcome | None], float]:
        """Ask one candidate after the other. Returns also when to try the deferred texts again (wall seconds)."""
        found: dict[str, Outcome | None] = dict.fromkeys(texts)
        wait_times = []
        for backend, name in self._parts.candidates(model):
            missing = [text for text in texts if found[text] is None]
            if not missing:
                break
            route = Route(backend, name, model)
            outcomes, wait_until = (self._send if backend.provider.free else self._reuse_or_send)(route, missing)
            found |= outcomes
            wait_times.append(wait_until)
        now = self._parts.runtime.clock()
        return found, now.wall + max(min(wait_times, default=0.0) - now.mono, 0.0)

    def _send(self, route: Route, texts: list[str]) -> EmbeddingOutcomes:
        return embed_texts(*route, texts, self._budget, self._parts.guard, self._parts.runtime)

    def _reuse_or_send(self, route: Route, texts: list[str]) -> EmbeddingOutcomes:
        """Reuse vectors from the cache and from batches that are under way, and send the rest."""
        provider, parts = route.backend.provider, self._parts
        keys = keys_of(provider.name, provider.vendor, route.model, parts.dimensions, texts)
        text_of = dict(zip(keys, texts, strict=True))
        found, others, wait_until = self._embed_once(route, text_of)
        theirs = parts.reuse.await_others(others, parts.wait_for_stop, parts.guard.length_of(route.task_model))
        from_threads = [outcome for key, outcome in theirs.items() if others[key] is not None]
        self._count_reused(route, "shared", sum(map(_is_vector, from_threads)))
        self._count_reused(route, "cached", len(theirs) - len(from_threads))
        found |= theirs
        # another process failed on these texts, or was killed: this process may succeed
        abandoned = {key: text_of[key] for key, holder in others.items() if holder is None and key not in theirs}
        if abandoned:
            late, _, late_wait_until = self._embed_once(route, abandoned)
            found |= late
            wait_until = max(wait_until, late_wait_until)
        if any(key not in found for key in others):
            cooldown_until = route.backend.gate.cooldown_until(route.model)
            wait_until = wait_until or cooldown_until or parts.runtime.clock().mono + PROBE_POLL_S
        return EmbeddingOutcomes({text: found.get(key) for key, text in text_of.items()}, wait_until)

    def _embed_once(
        self, route: Route, text_of: Mapping[bytes, str]
    ) -> tuple[Found, Mapping[bytes, InFlight | None], float]:
        """Look up the texts by key, and send those that no one else embeds. Returns also those that others embed."""
        reuse = self._parts.reuse
        recall = reuse.recall(text_of, self._parts.guard.length_of(route.task_model))
        self._count_reused(route, "cached", len(recall.vectors))
        found: Found = {**recall.vectors}
        if not recall.mine:
            return found, recall.others, 0.0
        try:
            sent = self._send(route, [text_of[key] for key in recall.mine])
            fresh = {key: sent.by_text[text_of[key]] for key in recall.mine}
            reuse.publish({key: outcome for key, outcome in fresh.items() if outcome is not None})
        finally:
            reuse.release(recall.mine)
        return found | fresh, recall.others, sent.wait_until

    def _count_reused(self, route: Route, how: str, count: int) -> None:
        if count:
            self._reused += count
            metrics.EMBEDDED_INPUTS.labels(route.backend.provider.name, how).inc(count)


def _is_vector(outcome: Outcome | None) -> TypeGuard[Vector]:
    return isinstance(outcome, np.ndarray)
