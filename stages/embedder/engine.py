"""From a batch of texts to one outcome for each: a vector, a failure that nothing mends, or "not now".

    texts.py     refuse the hopeless, merge the identical          nothing is sent for those
    reuse/       what was embedded before, or is right now         nor for those
    routes.py    which provider, and who stands in for it
    sending.py   requests, retries, halving; with gate.py, caps.py and guard.py

`Embedding` lives as long as the process and is shared by its worker threads; each batch gets a `Session`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, TypeGuard

import numpy as np

from common.failures.retry import Backoff
from common.failures.wait_hints import LONGEST_WAIT_S
from common.process import clock as clocks
from common.process import metrics
from common.process.actions import Instant
from common.settings.settings import Mode, Settings
from common.task_types import Deferral
from common.wire.messages import Failure
from stages.embedder import providers
from stages.embedder.calling.gate import PROBE_PATIENCE, Gate
from stages.embedder.calling.learned_caps import LearnedCaps
from stages.embedder.calling.provider_call import Backend, Sending, Tools
from stages.embedder.calling.request_budget import Tally
from stages.embedder.calling.routes import Routes
from stages.embedder.calling.vector_guard import Guard, Vector
from stages.embedder.preflight import sort_out
from stages.embedder.providers import Provider
from stages.embedder.reuse import InFlight, Outcome, Reuse, keys_of

SHORT = 5.0
"""Seconds: a provider that asks for less patience than this is no reason to call the service not ready."""
MOST_SEEN = 1000
"""Models remembered for `paused`."""


Landed: TypeAlias = Outcome | None
"""None: it could not be embedded now."""

Candidates: TypeAlias = list[tuple[Backend, str]]
"""Providers for a model, first choice first, and what each calls it."""


class Embedding:
    """All that is shared: providers, their gates and caps, the guard, the cache."""

    def __init__(
        self,
        settings: Settings,
        *,
        made: Sequence[Provider] | None = None,
        clock: Callable[[], Instant] = clocks.now,
        wait: Callable[[float], bool] | None = None,
    ) -> None:
        self.stopping = threading.Event()
        self._clock = clock
        self.truncate = settings.truncate_long_texts
        backoff = Backoff(factor=settings.retry_backoff_factor)
        opening = Backoff(first=2.0, factor=settings.retry_backoff_factor)
        found = providers.of_settings(settings) if made is None else made
        self._backends = [
            Backend(
                provider,
                Gate(provider.name, settings.circuit_breaker_threshold, opening, clock),
                LearnedCaps(provider.name, provider.caps, clock),
            )
            for provider in found
        ]
        self.routes = Routes(settings, self._backends)
        stopping = self.stopping
        self.tools = Tools(Guard(), backoff, settings.max_retries, clock, wait or stopping.wait, stopping.is_set)
        self.dimensions = settings.embedding_dimensions
        paid = any(not provider.free for provider in found)
        size = settings.embedding_cache_size if paid else 0  # it is not worth its while where vectors cost nothing
        self.reuse = Reuse(settings.state_dir / "cache", size, alone=settings.embedder_processes == 1)
        self._seen: dict[str, Candidates] = {}
        self.facts: dict[str, Any] = {
            "mode": settings.mode.value,
            "mock": settings.mode is Mode.MOCK,
            "providers": [provider.name for provider in found],
        }

    def session(self, most_requests: int | None = None) -> Session:
        """Begin a batch; with a bound to its requests, where a quota is in force (tally.py)."""
        return Session(self, most_requests)

    def blockers(self) -> list[str]:
        """Say why no text could be embedded now, in words for `/ready`; empty when one could."""
        now = self._clock().mono
        closed = [self._in_words(backend, now) for backend in self._backends]
        if all(closed):
            return closed
        paused = self.paused(self._clock().wall)
        if self._seen and all(model in paused for model in list(self._seen)):
            return [f"{model}: {why}" for model, why in self.notices().items()]
        return []

    def remarks(self) -> list[str]:
        """Say what is wrong, or under way, with any provider or model, also while others go on."""
        now = self._clock().mono
        closed = [words for backend in self._backends if (words := self._in_words(backend, now))]
        return closed + [f"{model}: {why}" for model, why in sorted(self.notices().items())]

    def notices(self) -> dict[str, str]:
        """Say what keeps single models from being served, by model: no such model, or a download and how far it is."""
        said: dict[str, str] = {}
        for backend in self._backends:
            said |= backend.gate.reasons()[1]
            said |= backend.provider.notices()
        return said

    def paused(self, now_wall: float) -> dict[str, float]:
        """Models that cannot be served now → not before (seconds since the epoch); `*` stands for all models."""
        now = self._clock().mono
        closed = [backend.gate.closed_until() for backend in self._backends]
        if all(closed):
            return {"*": now_wall + min(closed) - now}
        paused = {}
        for model, candidates in list(self._seen.items()):
            untils = [backend.gate.closed_until(name) for backend, name in candidates]
            if untils and all(untils):
                paused[model] = now_wall + min(untils) - now
        return paused

    def patience(self, now: Instant) -> dict[str, float]:
        """Providers that asked to be left alone → until when (seconds since the epoch)."""
        resting = {backend.provider.name: backend.gate.resting_until() for backend in self._backends}
        return {name: now.wall + until - now.mono for name, until in resting.items() if until > now.mono}

    def obey(self, patience: Mapping[str, float], now: Instant) -> None:
        """Leave those providers alone too that asked another embedder for patience."""
        for backend in self._backends:
            seconds = min(patience.get(backend.provider.name, 0.0) - now.wall, LONGEST_WAIT_S)
            backend.gate.rest_until(now.mono + seconds, "it asked another embedder for patience")

    def stop(self) -> None:
        """Begin no request and wait for nothing any more: all but what running requests bring goes back at once."""
        self.stopping.set()

    def close(self) -> None:
        """Let go of connections, threads and files, after the last session."""
        self.stop()
        for backend in self._backends:
            backend.provider.close()
        self.reuse.close()

    def candidates(self, model: str) -> Candidates:
        """Who may embed for the model; may ask the providers, so it is for worker threads. Remembered for `paused`."""
        while len(self._seen) >= MOST_SEEN:
            self._seen.pop(next(iter(self._seen)), None)
        found = self._seen[model] = self.routes.candidates(model)
        return found

    def _in_words(self, backend: Backend, now: float) -> str:
        """Why the provider as a whole cannot be used; empty if it can, or soon."""
        until = backend.gate.closed_until()
        reason, _ = backend.gate.reasons()
        if not until or (until - now < SHORT and not backend.gate.broken()):
            return ""
        return f"{backend.provider.name}: {reason} (asked again in {max(until - now, 0):.0f} s)"


class Session:
    """One batch; `embed` may be called more than once, and the figures add up."""

    def __init__(self, embedding: Embedding, most_requests: int | None = None) -> None:
        self._embedding = embedding
        self._tally = Tally(most_requests)
        self.refused = 0
        """Texts that were not worth sending."""
        self.cached = 0
        """Texts that got their vector without being sent: known, or the same as another in this batch or another."""

    @property
    def tokens(self) -> int:
        """What the providers reported as used, and the most that requests of unknown outcome may have used."""
        return self._tally.tokens

    @property
    def requests(self) -> int:
        """Requests made to providers, failed ones included."""
        return self._tally.requests

    @property
    def reached_at(self) -> float:
        """Monotonic seconds by which the last of them had reached its provider; 0 if there was none."""
        return self._tally.reached_at

    @property
    def sent(self) -> bool:
        """Whether any text may have reached a provider."""
        return bool(self._tally.reached)

    def embed(self, model: str, texts: Sequence[str]) -> list[Vector | Failure | Deferral]:
        """Embed the texts, in their order: for each a unit vector (d,) float32, a final failure, or "not now"."""
        refusal = self._embedding.routes.refusal(model)
        if refusal is not None:
            self.refused += len(texts)
            return [Failure("unsupported_model", refusal) for _ in texts]
        wanted, refused = sort_out(model, texts, truncate=self._embedding.truncate)
        if refused:
            self.refused += len(refused)
            metrics.EMBEDDED_INPUTS.labels("none", "refused").inc(len(refused))
        found, until = self._find(model, list(wanted))
        outcomes: dict[int, Vector | Failure | Deferral] = {**refused}
        for text, positions in wanted.items():
            landed = found[text]
            outcome = self._deferral(text, until) if landed is None else landed
            outcomes.update(dict.fromkeys(positions, outcome))
            if len(positions) > 1 and _is_vector(landed):
                self.cached += len(positions) - 1
        return [outcomes[position] for position in range(len(texts))]

    def _deferral(self, text: str, until: float) -> Deferral:
        return Deferral(until, text not in self._tally.reached, self._tally.left.get(text, 0))

    def _find(self, model: str, texts: list[str]) -> tuple[dict[str, Landed], float]:
        """Ask one candidate after the other; None: not before the time returned, in seconds since the epoch."""
        found: dict[str, Landed] = dict.fromkeys(texts)
        untils = []
        for backend, name in self._embedding.candidates(model):
            missing = [text for text in texts if found[text] is None]
            if not missing:
                break
            send = self._send if backend.provider.free else self._share
            outcomes, until = send(backend, name, model, missing)
            found |= outcomes
            untils.append(until)
        now = self._embedding.tools.clock()
        return found, now.wall + max(min(untils, default=0.0) - now.mono, 0.0)

    def _send(self, backend: Backend, name: str, model: str, texts: list[str]) -> tuple[dict[str, Landed], float]:
        sending = Sending(backend, name, texts, self._tally, self._embedding.tools)
        sending.run(model)
        return dict(zip(texts, sending.outcomes, strict=True)), sending.until

    def _share(self, backend: Backend, name: str, model: str, texts: list[str]) -> tuple[dict[str, Landed], float]:
        """Reuse vectors from the cache and from batches that are under way, and send the rest."""
        provider, shared = backend.provider, self._embedding
        keys = keys_of(provider.name, provider.vendor, name, shared.dimensions, texts)
        text_of = dict(zip(keys, texts, strict=True))
        outcomes, others, until = self._pay_once(backend, name, model, text_of)
        theirs = shared.reuse.await_others(others, shared.stopping.wait, shared.tools.guard.length_of(model))
        by_thread = sum(others[key] is not None and _is_vector(outcome) for key, outcome in theirs.items())
        self._spared(backend, "shared", by_thread)
        self._spared(backend, "cached", len(theirs) - sum(others[key] is not None for key in theirs))
        outcomes |= theirs
        # another process failed on these, or was killed: this one may succeed
        abandoned = {key: text_of[key] for key, holder in others.items() if holder is None and key not in theirs}
        if abandoned:
            late, _, later = self._pay_once(backend, name, model, abandoned)
            outcomes |= late
            until = max(until, later)
        if any(key not in outcomes for key in others):
            until = until or backend.gate.closed_until(name) or shared.tools.clock().mono + PROBE_PATIENCE
        return {text: outcomes.get(key) for key, text in text_of.items()}, until

    def _pay_once(
        self, backend: Backend, name: str, model: str, text_of: Mapping[bytes, str]
    ) -> tuple[dict[bytes, Landed], dict[bytes, InFlight | None], float]:
        """Recall texts by key and send those that nobody else embeds; returns also what others embed."""
        reuse = self._embedding.reuse
        recall = reuse.recall(text_of, self._embedding.tools.guard.length_of(model))
        self._spared(backend, "cached", len(recall.vectors))
        outcomes: dict[bytes, Landed] = {**recall.vectors}
        until = 0.0
        if recall.mine:
            try:
                fresh, until = self._send(backend, name, model, [text_of[key] for key in recall.mine])
                landed = {key: fresh[text_of[key]] for key in recall.mine}
                outcomes |= landed
                reuse.publish({key: outcome for key, outcome in landed.items() if outcome is not None})
            finally:
                reuse.release(recall.mine)
        return outcomes, recall.others, until

    def _spared(self, backend: Backend, how: str, count: int) -> None:
        if count:
            self.cached += count
            metrics.EMBEDDED_INPUTS.labels(backend.provider.name, how).inc(count)


def _is_vector(outcome: Landed) -> TypeGuard[Vector]:
    return isinstance(outcome, np.ndarray)
