"""Whether requests may go to a provider now; shared by all threads of the embedder.

A gate is closed by the provider's circuit breaker (an outage, or something that an operator must repair) and by a
cooldown that the provider asked for. For a single model it is closed by a breaker of the model (the provider does not
have it) and by a cooldown of the model (it is being downloaded).

Before each request, the caller calls `enter`; 0.0 means that the request may be made. It must then be made inside
`with gate.outcome(model)`, so that the gate learns its outcome, whatever this is.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import structlog

from common.failures.breaker import Breaker, State
from common.failures.cooldown import Cooldown
from common.failures.errors import Permanent, Throttled, Transient
from common.failures.retry import Backoff
from common.process import breaker_report, metrics
from common.process.actions import Instant
from stages.embedder.calling.request_budget import BudgetSpent
from stages.embedder.providers import NeedsOperator, NoModelYet
from stages.embedder.providers.sending import TooLateError

PROBE_POLL_S = 1.0
"""When to look again at a half-open breaker whose probe is under way."""
MAX_MODELS = 1000
"""Number of models that can have a breaker of their own; tasks may name any number of models that do not exist."""

log = structlog.get_logger()


class Gate:
    """The gate of one provider. All times are seconds of the monotonic clock."""

    def __init__(self, service: str, threshold: int, backoff: Backoff, clock: Callable[[], Instant]) -> None:
        self.service = service
        self._backoff = backoff
        self._clock = clock
        self._lock = threading.Lock()
        self._breaker = Breaker(service, threshold, backoff)
        self._cooldown = Cooldown()
        self._model_breakers: dict[str, Breaker] = {}
        self._model_cooldowns: dict[str, Cooldown] = {}
        metrics.show_breaker(service, State.CLOSED, "")

    def enter(self, model: str) -> float:
        """Return 0.0 if a request for the model may be made, and count it as begun; otherwise when to ask again."""
        with self._lock:
            until = self._cooldown_until(model)
            if not until:
                for breaker in self._breakers(model):
                    breaker.began()
            return until

    def cooldown_until(self, model: str | None = None) -> float:
        """When to ask again for the model, or (None) for any model; 0.0 if requests may be made now."""
        with self._lock:
            return self._cooldown_until(model)

    @contextmanager
    def outcome(self, model: str) -> Iterator[None]:
        """Learn from the outcome of the request inside; its errors pass through."""
        try:
            yield
        except BaseException as error:
            with self._lock:
                self._failed(model, error)
            raise
        with self._lock:
            self._succeeded(model)

    def cool_down(self, seconds: float, reason: str) -> None:
        """Allow no request for a number of seconds."""
        if seconds > 0:
            self.cool_down_until(self._clock().mono + seconds, reason)

    def cool_down_until(self, until: float, reason: str) -> None:
        """Allow no request before this time."""
        with self._lock:
            self._cooldown = self._cooldown.extended(until, reason)

    @property
    def cooldown(self) -> Cooldown:
        """The cooldown that the provider asked for."""
        return self._cooldown

    def block_model(self, model: str, reason: str) -> None:
        """Allow no request for this model until its breaker probes it again."""
        with self._lock:
            self._model_failed(model, reason, self._clock().mono)

    def reasons(self) -> tuple[str, Mapping[str, str]]:
        """Why the provider is closed (empty if it is not), and why single models are."""
        now = self._clock().mono
        with self._lock:
            whole = ""
            if self._cooldown_until(None):
                whole = self._breaker.reason or self._cooldown.reason
            models = {model: breaker.reason for model, breaker in self._model_breakers.items() if breaker.reason}
            models |= {model: rest.reason for model, rest in self._model_cooldowns.items() if not rest.is_over(now)}
            return whole, models

    def is_broken(self, model: str | None = None) -> bool:
        """Whether more than a cooldown of the provider closes it: an open breaker, or a model that is not there."""
        with self._lock:
            is_cooling = model is not None and model in self._model_cooldowns
            return is_cooling or any(breaker.state is not State.CLOSED for breaker in self._breakers(model))

    def _breakers(self, model: str | None) -> list[Breaker]:
        own = self._model_breakers.get(model) if model is not None else None
        return [self._breaker, own] if own else [self._breaker]

    def _cooldown_until(self, model: str | None) -> float:
        now = self._clock().mono
        until = 0.0 if self._cooldown.is_over(now) else self._cooldown.until
        if model is not None and model in self._model_cooldowns:
            if self._model_cooldowns[model].is_over(now):
                del self._model_cooldowns[model]
            else:
                until = max(until, self._model_cooldowns[model].until)
        for breaker in self._breakers(model):
            if not breaker.allows(now):
                until = max(until, breaker.cooldown.until if breaker.state is State.OPEN else now + PROBE_POLL_S)
        breaker_report.tell(self._breaker)
        return until

    def _succeeded(self, model: str) -> None:
        self._breaker.succeeded()
        self._model_breakers.pop(model, None)
        self._model_cooldowns.pop(model, None)
        breaker_report.tell(self._breaker)

    def _failed(self, model: str, error: BaseException) -> None:
        now = self._clock().mono
        reason = str(error) or type(error).__name__
        match error:
            case NoModelYet():
                self._succeeded(model)
                self._model_cooldowns[model] = Cooldown(now + error.delay, reason)
            case BudgetSpent() | TooLateError():
                if self._breaker.state is State.HALF_OPEN:  # every probe must have an outcome
                    self._breaker.failed(now, self._breaker.reason)
            case Throttled():
                self._cooldown = self._cooldown.extended(now + error.delay, reason)
                if self._breaker.state is State.HALF_OPEN:  # every probe must have an outcome
                    self._breaker.failed(now, reason, error=error)
            case NeedsOperator(model_only=True):
                self._model_failed(model, reason, now)
            case Permanent() if not isinstance(error, NeedsOperator):
                self._succeeded(model)  # the response is about a text, so the provider works
            case _:
                is_known = isinstance(error, Transient | NeedsOperator)  # the text of another error may hold secrets
                self._breaker.failed(
                    now, reason if is_known else type(error).__name__, at_once=isinstance(error, NeedsOperator)
                )
                breaker_report.tell(self._breaker)

    def _model_failed(self, model: str, reason: str, now: float) -> None:
        """Open the model's breaker: the provider works, but it cannot serve this model."""
        own = self._model_breakers.get(model) or Breaker(model, 1, self._backoff)
        self._succeeded(model)
        own.failed(now, reason, at_once=True)
        while len(self._model_breakers) >= MAX_MODELS:
            del self._model_breakers[next(iter(self._model_breakers))]
        self._model_breakers[model] = own
        log.error("model_blocked", provider=self.service, model=model, reason=reason)
