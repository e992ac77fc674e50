"""The embedding engine: what all batches of an embedder share. Each batch gets a `Session` (session.py).

The engine has the providers, their gates and caps, the vector guard and the cache. It tells the stage which models and
providers cannot be used now, why, and until when.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from common.failures.retry import Backoff
from common.failures.wait_hints import LONGEST_WAIT_S
from common.process import clock as clocks
from common.process import zero_series
from common.process.actions import Instant
from common.settings.settings import Mode, Settings
from stages.embedder.calling.backend import Backend
from stages.embedder.calling.driver import CallRuntime
from stages.embedder.calling.gate import Gate
from stages.embedder.calling.learned_caps import LearnedCaps
from stages.embedder.calling.length_record import LengthRecord
from stages.embedder.calling.routes import Routes
from stages.embedder.calling.vector_guard import VectorGuard
from stages.embedder.calling.vector_lengths import VectorLengths
from stages.embedder.providers import Provider, registry
from stages.embedder.reuse import Reuse
from stages.embedder.session import Candidates, Session, SessionParts

NEGLIGIBLE_PAUSE_S = 5.0
"""A provider that asks for a shorter pause does not make the service not ready."""
MAX_MODELS_SEEN = 1000
"""Number of models remembered for `key_cooldowns`."""


class EmbeddingEngine:
    """Lives as long as the process; shared by the threads of the worker pool."""

    def __init__(
        self,
        settings: Settings,
        *,
        made: Sequence[Provider] | None = None,
        clock: Callable[[], Instant] = clocks.now,
        wait: Callable[[float], bool] | None = None,
    ) -> None:
        """`made` replaces the providers of the settings, `clock` and `wait` the real time: for tests."""
        self._stopping = threading.Event()
        self._clock = clock
        found = registry.of_settings(settings) if made is None else made
        self._backends = [_backend(provider, settings, clock) for provider in found]
        self._routes = Routes(settings, self._backends)
        is_paid = any(not provider.free for provider in found)
        cache_bytes = settings.embedding_cache_size if is_paid else 0  # vectors that cost nothing need no cache
        self.reuse = Reuse(settings.state_dir / "cache", cache_bytes, alone=settings.embedder_processes == 1)
        stopping = self._stopping
        self.parts = SessionParts(
            refusal=self._routes.refusal,
            candidates=self._candidates,
            reuse=self.reuse,
            guard=VectorGuard(
                VectorLengths(
                    settings.embedding_lengths, settings.embedding_dimensions, LengthRecord(settings.state_dir)
                )
            ),
            runtime=CallRuntime(
                Backoff(factor=settings.retry_backoff_factor),
                settings.max_retries,
                clock,
                wait or stopping.wait,
                stopping.is_set,
            ),
            wait_for_stop=stopping.wait,
            dimensions=settings.embedding_dimensions,
            truncate=settings.truncate_long_texts,
            unknown=self._unknown if settings.unknown_model == "fail" else lambda _: "",
        )
        self._seen: dict[str, Candidates] = {}
        self.facts: dict[str, Any] = {
            "mode": settings.mode.value,
            "mock": settings.mode is Mode.MOCK,
            "providers": [provider.name for provider in found],
        }

    def session(self, max_requests: int | None = None, send_by: float = 0.0) -> Session:
        """Begin a batch. `max_requests` is its request budget if a quota is in force, `send_by` its last moment."""
        return Session(self.parts, max_requests, send_by)

    def blockers(self) -> list[str]:
        """The reasons why no text can be embedded now, for `/ready`; empty if any can."""
        now = self._clock()
        closed = [self._describe(backend, now.mono) for backend in self._backends]
        if all(closed):
            return closed
        seen = list(self._seen.items())
        told = {model for backend in self._backends for model in backend.gate.told_models()}
        served = [model for model, candidates in seen if not all(_is_down(*candidate) for candidate in candidates)]
        if (seen or told) and not served:
            return [f"{model}: {reason}" for model, reason in self.model_notices().items()]
        return []

    def notices(self) -> list[str]:
        """What is wrong or under way with any provider or model, also while others are served."""
        now = self._clock().mono
        closed = [text for backend in self._backends if (text := self._describe(backend, now))]
        return closed + [f"{model}: {reason}" for model, reason in sorted(self.model_notices().items())]

    def model_notices(self) -> dict[str, str]:
        """Why single models are not served, by model: for example a download and its progress."""
        found: dict[str, str] = {}
        for backend in self._backends:
            found |= backend.gate.reasons()[1]
            found |= backend.provider.notices()
        return found

    def key_cooldowns(self, now_wall: float) -> dict[str, float]:
        """Models that cannot be served now → when to try again (seconds since the epoch); `*` means all models."""
        now = self._clock().mono
        closed = [backend.gate.cooldown_until() for backend in self._backends]
        if all(closed):
            return {"*": now_wall + min(closed) - now}
        cooldowns = {}
        for model, candidates in list(self._seen.items()):
            closed = [backend.gate.cooldown_until(name) for backend, name in candidates]
            if closed and all(closed) and not self.parts.unknown(model):
                cooldowns[model] = now_wall + min(closed) - now
        return cooldowns

    def provider_cooldowns(self, now: Instant) -> dict[str, float]:
        """Providers that asked for a pause → the end of the pause (seconds since the epoch).

        What was learned from refusals is named with its model: `openai bge-m3`, or `openai *` for all models.
        """
        cooldowns = {backend.provider.name: backend.gate.cooldown for backend in self._backends}
        found = {
            name: now.wall + cooldown.remaining_s(now.mono)
            for name, cooldown in cooldowns.items()
            if not cooldown.is_over(now.mono)
        }
        for backend in self._backends:
            for model, until in backend.gate.learned_cooldowns().items():
                if until > now.mono:
                    found[f"{backend.provider.name} {model}"] = now.wall + until - now.mono
        return found

    def apply_cooldowns(self, cooldowns: Mapping[str, float], now: Instant) -> None:
        """Take over what another embedder reports; `cooldowns` as in `provider_cooldowns`."""
        gates = {backend.provider.name: backend.gate for backend in self._backends}
        for key, until in cooldowns.items():
            name, _, model = key.partition(" ")
            end = now.mono + min(until - now.wall, LONGEST_WAIT_S)
            if name in gates and model:
                gates[name].tell(model, end)
            elif name in gates:
                gates[name].cool_down_until(end, "it asked another embedder for a pause")

    def stop(self) -> None:
        """Begin no request, and end every wait. What running requests bring is kept; all other texts are deferred."""
        self._stopping.set()

    def close(self) -> None:
        """Close connections, threads and files, after the last session."""
        self.stop()
        for backend in self._backends:
            backend.provider.close()
        self.reuse.close()

    def _candidates(self, model: str) -> Candidates:
        """The candidates for the model, remembered for `key_cooldowns`. May ask the providers: for worker threads."""
        while len(self._seen) >= MAX_MODELS_SEEN:
            self._seen.pop(next(iter(self._seen)), None)
        found = self._seen[model] = self._routes.candidates(model)
        return found

    def _unknown(self, model: str) -> str:
        """Why tasks of this model fail: all its providers have refused it as unknown for long; empty if they may wait.

        A probe of the model that is due comes first.
        """
        now = self._clock().mono
        found = [
            (backend.provider.name, backend.gate.unknown.verdict(name, now))
            for backend, name in self._seen.get(model, ())
        ]
        return "; ".join(f"{name}: {words}" for name, words in found) if all(words for _, words in found) else ""

    def _describe(self, backend: Backend, now: float) -> str:
        """Why the provider as a whole cannot be used; empty if it can, or soon."""
        until, is_down = backend.gate.cooldown_until(), backend.gate.is_down()
        reason, _ = backend.gate.reasons()
        if not is_down and until - now < NEGLIGIBLE_PAUSE_S:
            return ""
        return f"{backend.provider.name}: {reason} (asked again in {max(until - now, 0):.0f} s)"


def _is_down(backend: Backend, model: str) -> bool:
    return backend.gate.is_down(model) or model in backend.provider.notices()


def _backend(provider: Provider, settings: Settings, clock: Callable[[], Instant]) -> Backend:
    backoff = Backoff(first=2.0, factor=settings.retry_backoff_factor)
    gate = Gate(provider.name, settings.circuit_breaker_threshold, backoff, clock)
    zero_series.begin_provider(provider.name, {settings.default_embedding_model, *settings.rate_limit_models})
    return Backend(provider, gate, LearnedCaps(provider.name, provider.caps, clock))
