"""Whether requests may go to a provider now, shared by all threads of the embedder.

Three things close it: the provider's breaker (an outage, or something that a person must mend), `not_before` (the
provider asked for patience), and, for one model alone, a breaker of its own (no such model) or a rest (it is being
fetched). Whoever wants to send asks `enter`; 0.0 means go, and then the outcome must be told, whatever it is: so the
request is made inside `with gate.outcome(model)`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import structlog

from common.failures.breaker import Breaker, State
from common.failures.errors import Permanent, Throttled, Transient
from common.failures.retry import Backoff
from common.process import breaker_report, metrics
from common.process.actions import Instant
from stages.embedder.providers import NeedsOperator, NoModelYet

PROBE_PATIENCE = 1.0
"""Seconds until somebody looks again how the probe of a half-open breaker fared."""
MOST_MODELS = 1000
"""Models with a breaker of their own; tasks may name any number of models that do not exist."""

log = structlog.get_logger()


class Gate:
    """The gate of one provider. Times are seconds of the monotonic clock."""

    def __init__(self, service: str, threshold: int, backoff: Backoff, clock: Callable[[], Instant]) -> None:
        self.service = service
        self._threshold = threshold
        self._backoff = backoff
        self._clock = clock
        self._lock = threading.Lock()
        self._breaker = Breaker(service, threshold, backoff)
        self._not_before = 0.0
        self._patience_for = ""
        self._models: dict[str, Breaker] = {}
        self._resting: dict[str, tuple[float, str]] = {}
        metrics.show_breaker(service, State.CLOSED, "")

    def enter(self, model: str) -> float:
        """Return 0.0 if a request for the model may be made, and count it as begun; else when to ask again."""
        with self._lock:
            until = self._closed_until(model)
            if not until:
                for breaker in self._breakers(model):
                    breaker.began()
            return until

    def closed_until(self, model: str | None = None) -> float:
        """When to ask again, for the model or (None) for the provider as a whole; 0.0 if requests may be made."""
        with self._lock:
            return self._closed_until(model)

    @contextmanager
    def outcome(self, model: str) -> Iterator[None]:
        """Learn from how the request inside it ends; its errors pass through."""
        try:
            yield
        except BaseException as error:
            with self._lock:
                self._failed(model, error)
            raise
        with self._lock:
            self._succeeded(model)

    def rest(self, seconds: float, why: str) -> None:
        """Let nobody send for so long."""
        if seconds > 0:
            with self._lock:
                self._rest(seconds, why)

    def rest_until(self, until: float, why: str) -> None:
        """Let nobody send before then."""
        with self._lock:
            self._rest_until(until, why)

    def resting_until(self) -> float:
        """When the provider may be asked again that asked for patience; in the past if it may."""
        return self._not_before

    def bar(self, model: str, reason: str) -> None:
        """Let nobody send for this model until its breaker probes again."""
        with self._lock:
            self._succeeded_but(model, reason, self._clock().mono)

    def reasons(self) -> tuple[str, Mapping[str, str]]:
        """Say in words why the provider is closed ("" if it is not), and why single models are."""
        now = self._clock().mono
        with self._lock:
            whole = ""
            if self._closed_until(None):
                whole = self._breaker.reason or self._patience_for
            models = {model: breaker.reason for model, breaker in self._models.items() if breaker.reason}
            models |= {model: why for model, (until, why) in self._resting.items() if until > now}
            return whole, models

    def broken(self, model: str | None = None) -> bool:
        """Whether there is more to it than a request for patience: an open breaker, or a model that is not there."""
        with self._lock:
            resting = model is not None and model in self._resting
            return resting or any(breaker.state is not State.CLOSED for breaker in self._breakers(model))

    def _breakers(self, model: str | None) -> list[Breaker]:
        own = self._models.get(model) if model is not None else None
        return [self._breaker, own] if own else [self._breaker]

    def _closed_until(self, model: str | None) -> float:
        now = self._clock().mono
        until = self._not_before if self._not_before > now else 0.0
        if model is not None and model in self._resting:
            if self._resting[model][0] > now:
                until = max(until, self._resting[model][0])
            else:
                del self._resting[model]
        for breaker in self._breakers(model):
            if not breaker.allows(now):
                until = max(until, breaker.cooldown.until if breaker.state is State.OPEN else now + PROBE_PATIENCE)
        breaker_report.tell(self._breaker)
        return until

    def _succeeded(self, model: str) -> None:
        self._breaker.succeeded()
        self._models.pop(model, None)
        self._resting.pop(model, None)
        breaker_report.tell(self._breaker)

    def _failed(self, model: str, error: BaseException) -> None:
        now = self._clock().mono
        reason = str(error) or type(error).__name__
        match error:
            case NoModelYet():
                self._succeeded(model)
                self._resting[model] = (now + error.delay, reason)
            case Throttled():
                self._rest(error.delay, reason)
                if self._breaker.state is State.HALF_OPEN:  # the probe must have an outcome
                    self._breaker.failed(now, reason, error=error)
            case NeedsOperator(model_only=True):
                self._succeeded_but(model, reason, now)
            case Permanent() if not isinstance(error, NeedsOperator):
                self._succeeded(model)  # an answer about a text: the service works
            case _:
                known = isinstance(error, Transient | NeedsOperator)
                self._open(reason if known else type(error).__name__, at_once=isinstance(error, NeedsOperator))

    def _succeeded_but(self, model: str, reason: str, now: float) -> None:
        """The service works, and one of its models does not."""
        own = self._models.get(model) or Breaker(model, 1, self._backoff)
        self._succeeded(model)
        own.failed(now, reason, at_once=True)
        while len(self._models) >= MOST_MODELS:
            del self._models[next(iter(self._models))]
        self._models[model] = own
        log.error("model_unusable", provider=self.service, model=model, reason=reason)

    def _open(self, reason: str, *, at_once: bool) -> None:
        self._breaker.failed(self._clock().mono, reason, at_once=at_once)
        breaker_report.tell(self._breaker)

    def _rest(self, seconds: float, why: str) -> None:
        self._rest_until(self._clock().mono + seconds, why)

    def _rest_until(self, until: float, why: str) -> None:
        if until > self._not_before:
            self._not_before, self._patience_for = until, why
