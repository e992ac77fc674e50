"""Whether requests may go to a provider now; shared by all threads of the embedder.

A gate is closed by the provider's circuit breaker (an outage, or something that an operator must repair) and by a
cooldown that the provider asked for. For a single model it is closed by a breaker of the model (the provider does not
serve it) and by a cooldown of the model (it is being downloaded).

Which of the two breakers opens is decided on evidence (`common.failures.attribution`): the model's own if another model
was served after its first refusal, the provider's if several models are refused and none is served. Without such
evidence the gate closes for the model if the words are about it, or if another model was served in the last minute.

A breaker that a refusal opened tells the other embedders (`learned_cooldowns`), because they would be refused too. An
outage is not told: the network of this process alone may be broken.

Before each request, the caller calls `enter`; 0.0 means that the request may be made. It must then be made inside
`with gate.outcome(model)`, so that the gate learns its outcome, whatever this is.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import structlog

from common.failures.attribution import NEAR_S, Attribution, Blame
from common.failures.breaker import Breaker, State
from common.failures.cooldown import Cooldown
from common.failures.errors import Permanent, Throttled, Transient
from common.failures.retry import Backoff
from common.process import breaker_report, metrics
from common.process.actions import Instant
from stages.embedder.calling.evidence import Evidence
from stages.embedder.calling.probes import UnknownModels, WastedRequests
from stages.embedder.calling.told_cooldowns import ALL_MODELS, REASON, ToldCooldowns
from stages.embedder.providers import (
    AskAgain,
    MaybeAboutModel,
    NeedsOperator,
    NoModelYet,
    ProviderServerError,
    UnknownModel,
)
from stages.embedder.providers.sending import NotCoveredError

PROBE_POLL_S = 1.0
"""When to look again at a half-open breaker whose probe is under way."""
CANARY_POLL_S = 0.05
"""When to look again whether the canary of another thread was served."""
MAX_MODELS = 1000
"""Number of models that can have a breaker of their own; tasks may name any number of models that do not exist."""
UNTRIED_S = 60.0
"""How long `/ready` shows a gate as closed whose next probe is due: perhaps no task comes to try it."""

NEVER = Cooldown()
"""Nothing to wait for."""

log = structlog.get_logger()


class Gate:
    """The gate of one provider. All times are seconds of the monotonic clock."""

    def __init__(self, service: str, threshold: int, backoff: Backoff, clock: Callable[[], Instant]) -> None:
        self.service = service
        self._threshold = threshold
        self._backoff = backoff
        self._clock = clock
        self._lock = threading.Lock()
        self._breaker = Breaker(service, threshold, backoff)
        self._cooldown = Cooldown()
        self._model_breakers: dict[str, Breaker] = {}
        self._model_cooldowns: dict[str, Cooldown] = {}
        self._models = Attribution()
        self._refused: set[str] = set()
        """Models whose breakers were opened by refusals, not by an outage."""
        self._is_refused = False  # the same of the provider
        self._told = ToldCooldowns()
        self._canaries: set[str] = set()
        self._asked: dict[str, None] = {}
        self._wasted = WastedRequests()
        self.unknown = UnknownModels()
        self.evidence = Evidence()
        metrics.show_breaker(service, State.CLOSED, "")

    def enter(self, model: str) -> float:
        """Return 0.0 if a request for the model may be made, and count it as begun; otherwise when to ask again."""
        with self._lock:
            return self._enter(model)

    def enter_canary(self, model: str) -> float:
        """The same as `enter`, for a canary: only one for each model is under way at a time."""
        with self._lock:
            if model in self._canaries:
                return self._clock().mono + CANARY_POLL_S
            until = self._enter(model)
            if not until:
                self._canaries.add(model)
            return until

    def cooldown_until(self, model: str | None = None) -> float:
        """When to ask again for the model, or (None) for any model; 0.0 if requests may be made now."""
        with self._lock:
            return self._cooldown_until(model)

    @contextmanager
    def outcome(self, model: str, *, is_canary: bool = False) -> Iterator[None]:
        """Learn from the outcome of the request inside; its errors pass through."""
        try:
            yield
        except BaseException as error:
            with self._lock:
                if is_canary:
                    self._canaries.discard(model)
                if is_canary and isinstance(error, ProviderServerError | Permanent) and not isinstance(error, AskAgain):
                    self._canary_refused(model, error)
                else:
                    self._failed(model, error)
            raise
        with self._lock:
            if is_canary:
                self._canaries.discard(model)
            self._models.served(model, (self.service,), self._clock().mono)
            self.unknown.served(model)
            self._works(model)

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

    def learned_cooldowns(self) -> dict[str, float]:
        """The models (or `ALL_MODELS`) that are closed because of refusals → until when; for the other embedders."""
        with self._lock:
            closed = {ALL_MODELS: self._breaker} if self._is_refused else {}
            closed |= {model: self._model_breakers[model] for model in self._refused if model in self._model_breakers}
            return {name: own.cooldown.until for name, own in closed.items() if own.state is State.OPEN}

    def tell(self, model: str, until: float) -> None:
        """Take over what another embedder has learned: the model, or `ALL_MODELS`, is refused until then."""
        with self._lock:
            now = self._clock().mono
            if self._told.tell(model, until, now):
                self._wasted.add(model, now)

    def block_model(self, model: str, reason: str) -> None:
        """Allow no request for this model until its breaker probes it again."""
        with self._lock:
            self._open_model(model, reason, self._clock().mono)

    def reasons(self) -> tuple[str, Mapping[str, str]]:
        """Why the provider is closed (empty if it is not), and why single models are."""
        now = self._clock().mono
        with self._lock:
            whole = self._breaker.reason
            if not whole and self._cooldown_until(None):
                whole = REASON if self._cooldown.is_over(now) else self._cooldown.reason
            models = dict.fromkeys(self._told.models(now), REASON)
            models |= {model: breaker.reason for model, breaker in self._model_breakers.items() if breaker.reason}
            models |= {model: rest.reason for model, rest in self._model_cooldowns.items() if not rest.is_over(now)}
            return whole, models

    def is_broken(self, model: str | None = None) -> bool:
        """Whether more than a cooldown of the provider closes it: an open breaker, or a model that is not there."""
        with self._lock:
            is_waiting = model in self._model_cooldowns or self._told.until(model, self._clock().mono) > 0
            return is_waiting or any(breaker.state is not State.CLOSED for breaker in self._breakers(model))

    def is_down(self, model: str | None = None) -> bool:
        """Whether it is broken, or was a short time ago and has not been tried since; for `/ready`."""
        with self._lock:
            now = self._clock().mono
            if model is not None and not self._model_cooldowns.get(model, NEVER).is_over(now):
                return True
            now -= UNTRIED_S
            own = [breaker for breaker in self._breakers(model) if breaker.state is not State.CLOSED]
            is_told = self._told.until(model, now) > 0
            return is_told or any(not breaker.cooldown.is_over(now) for breaker in own)

    def told_models(self) -> set[str]:
        """Single models that another embedder has reported as refused."""
        with self._lock:
            return self._told.models(self._clock().mono)

    def _enter(self, model: str) -> float:
        until = self._cooldown_until(model)
        if not until:
            if len(self._asked) < MAX_MODELS:
                self._asked[model] = None
            for breaker in self._breakers(model):
                breaker.began()
        return until

    def _breakers(self, model: str | None) -> list[Breaker]:
        own = self._model_breakers.get(model) if model is not None else None
        return [self._breaker, own] if own else [self._breaker]

    def _cooldown_until(self, model: str | None) -> float:
        now = self._clock().mono
        until = max(0.0 if self._cooldown.is_over(now) else self._cooldown.until, self._told.until(model, now))
        if model is not None and model in self._model_cooldowns:
            if self._model_cooldowns[model].is_over(now):
                del self._model_cooldowns[model]
            else:
                until = max(until, self._model_cooldowns[model].until)
        for breaker in self._breakers(model):
            if not breaker.allows(now):
                until = max(until, breaker.cooldown.until if breaker.state is State.OPEN else now + PROBE_POLL_S)
            elif breaker.state is State.HALF_OPEN:
                until = max(until, self._wasted.next_probe_at(now))
        breaker_report.tell(self._breaker)
        return until

    def _works(self, model: str) -> None:
        """The provider serves this model: nothing that was concluded about the two is true any more."""
        self._breaker.succeeded()
        self._is_refused = False
        self._told.works(model)
        self._wasted.works(model, ALL_MODELS)
        self._refused.discard(model)
        self._model_breakers.pop(model, None)
        self._model_cooldowns.pop(model, None)
        breaker_report.tell(self._breaker)

    def _failed(self, model: str, error: BaseException) -> None:
        now = self._clock().mono
        reason = str(error) or type(error).__name__
        match error:
            case NoModelYet():
                self._works(model)
                self._model_cooldowns[model] = Cooldown(now + error.delay, reason)
                if error.is_unknown:
                    self.unknown.refused(model, reason, now)
            case Throttled():
                self._cooldown = self._cooldown.extended(now + error.delay, reason)
                for breaker in self._breakers(model):
                    if breaker.state is State.HALF_OPEN:  # every probe must have an outcome
                        breaker.failed(now, reason, error=error)
            case NeedsOperator():
                self._refuse(model, reason, now, names_model=error.model_only)
                if isinstance(error, UnknownModel):
                    self.unknown.refused(model, reason, now)
            case Permanent() | ProviderServerError() | NotCoveredError():
                self._undecided(model)  # perhaps because of a text: a canary finds out
            case _:
                # the text of another error may hold secrets
                self._met_outage(model, reason if isinstance(error, Transient) else type(error).__name__, now)

    def _canary_refused(self, model: str, error: ProviderServerError | Permanent) -> None:
        """No text can be the reason: the provider refuses the model, or everything."""
        now = self._clock().mono
        if isinstance(error, NeedsOperator):
            self._failed(model, error)
            return
        is_unknown = isinstance(error, MaybeAboutModel) and error.names_unknown_model
        names_model = isinstance(error, MaybeAboutModel) and error.names_model
        reason = f"it refuses every request, a canary included: {error}"
        self._refuse(model, reason, now, names_model=names_model)
        if is_unknown:
            self.unknown.refused(model, reason, now)

    def _refuse(self, model: str, reason: str, now: float, *, names_model: bool) -> None:
        """Close the gate after a refusal that is not about a text: for the model, or for the provider."""
        scope = (self.service,)
        blame = self._models.refused(model, scope, now).blame
        others_served = self._models.has_evidence(model, scope, now - NEAR_S)
        if names_model or blame is Blame.ITEM or (blame is Blame.UNKNOWN and others_served):
            self._open_model(model, reason, now)
            self._refused.add(model)
            return
        self._undecided(model)
        self._is_refused = True
        self._wasted.refused(self._breaker, ALL_MODELS, now)
        self._breaker.failed(now, reason, at_once=True)
        if len(self._asked) > 1:  # the next probe is for another model
            self._model_cooldowns[model] = Cooldown(self._breaker.cooldown.until + PROBE_POLL_S, reason)
        breaker_report.tell(self._breaker)

    def _met_outage(self, model: str, reason: str, now: float) -> None:
        """Count a failure for the model if another one was served meanwhile, else for the provider."""
        if self._models.refused(model, (self.service,), now).blame is Blame.ITEM:
            self._breaker.undecided()
            self._model_breaker(model).failed(now, reason)
        else:
            for breaker in self._breakers(model):  # the request may have been the probe of both
                breaker.failed(now, reason)
            breaker_report.tell(self._breaker)

    def _undecided(self, model: str) -> None:
        for breaker in self._breakers(model):
            breaker.undecided()

    def _model_breaker(self, model: str) -> Breaker:
        own = self._model_breakers.pop(model, None) or Breaker(model, self._threshold, self._backoff)
        while len(self._model_breakers) >= MAX_MODELS:
            del self._model_breakers[next(iter(self._model_breakers))]
        self._model_breakers[model] = own
        self._refused.intersection_update(self._model_breakers)
        return own

    def _open_model(self, model: str, reason: str, now: float) -> None:
        """Open the model's breaker: the provider works, but it does not serve this model."""
        own = self._model_breaker(model)
        self._wasted.refused(own, model, now)
        if own.state is State.CLOSED:
            log.error("model_blocked", provider=self.service, model=model, reason=reason)
        self._breaker.succeeded()
        self._is_refused = False
        own.failed(now, reason, at_once=True)
        breaker_report.tell(self._breaker)
