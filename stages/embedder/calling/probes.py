"""Bounds the requests that one provider is sent in vain, and remembers since when a model is unknown to it.

A closed gate is probed again and again. Each probe that is refused is wasted, and with many models or embedders many
would be. The probes of all models, and those that other embedders have reported, count against one limit.
"""

from __future__ import annotations

from collections import deque

from common.failures.breaker import Breaker, State

MOST_PER_MINUTE = 10
"""Requests of one provider that may be wasted in a minute, by all embedders together."""
MINUTE_S = 60.0
UNKNOWN_MODEL_S = 3600.0
"""How long a model must be refused as unknown before its tasks fail, if UNKNOWN_MODEL is `fail`."""
MAX_MODELS = 1000
"""Number of unknown models that are remembered."""


class WastedRequests:
    """The probes of the last minute that were refused, until their scope is served. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._probes: deque[tuple[float, str]] = deque(maxlen=MOST_PER_MINUTE)

    def add(self, scope: str, now: float) -> None:
        """Count a probe that was refused; `scope` is a model, or a name for all models."""
        self._probes.append((now, scope))

    def refused(self, breaker: Breaker, scope: str, now: float) -> None:
        """Count a refusal if it was that of a probe: the breaker of the scope is half-open."""
        if breaker.state is State.HALF_OPEN:
            self.add(scope, now)

    def works(self, *scopes: str) -> None:
        """Note that these scopes are served again: what was wasted on them is over."""
        if self._probes:
            left = [probe for probe in self._probes if probe[1] not in scopes]
            self._probes = deque(left, maxlen=MOST_PER_MINUTE)

    def next_probe_at(self, now: float) -> float:
        """When the next probe may be sent; 0.0 if it may be sent now."""
        if len(self._probes) < MOST_PER_MINUTE or now - self._probes[0][0] >= MINUTE_S:
            return 0.0
        return self._probes[0][0] + MINUTE_S


class UnknownModels:
    """The models that the provider refuses as unknown, each with the first refusal and the latest words."""

    def __init__(self, fails_after_s: float = UNKNOWN_MODEL_S) -> None:
        self._fails_after_s = fails_after_s
        self._known: dict[str, tuple[float, str]] = {}

    def refused(self, model: str, words: str, now: float) -> None:
        """Note a refusal."""
        since, _ = self._known.get(model, (now, ""))
        self._known[model] = (since, words)
        while len(self._known) > MAX_MODELS:
            self._known.pop(next(iter(self._known)))

    def served(self, model: str) -> None:
        """Note that the model is served, or that it was refused for another reason."""
        self._known.pop(model, None)

    def verdict(self, model: str, now: float) -> str:
        """The provider's words if the model has been unknown for so long that its tasks may fail; otherwise empty."""
        since, words = self._known.get(model, (now, ""))
        return words if now - since >= self._fails_after_s else ""
