"""Runs a `ProviderCall` on a thread: passes the gate of the provider, makes the requests, waits, and reports outcomes.

The driver turns the errors of a provider into events, and records the cost of each request in the request budget. It
knows nothing about the kind of call: an `Exchange` makes the request and checks the response.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

import structlog

from common.failures.errors import Error, Permanent, Throttled, Transient
from common.failures.retry import Backoff
from common.process.actions import Instant, Log
from common.wire.messages import Failure
from stages.embedder.calling.backend import Backend
from stages.embedder.calling.call_actions import (
    Action,
    CallRefused,
    CanaryServed,
    Event,
    InputRefused,
    LearnCap,
    NotCovered,
    ProviderPaused,
    ProviderUnavailable,
    R,
    RequestFailed,
    RetryAtOnce,
    SendCanary,
    SendRequest,
    Steps,
    Succeeded,
    WaitEnded,
    WaitUntil,
)
from stages.embedder.calling.evidence import CANARY
from stages.embedder.calling.pieces import RetryPolicy
from stages.embedder.calling.provider_call import ProviderCall
from stages.embedder.calling.request_budget import RequestBudget
from stages.embedder.providers import (
    AskAgain,
    BadInput,
    NeedsOperator,
    NoModelYet,
    ProviderServerError,
    may_be_paid,
    odd_forms,
    sending,
)
from stages.embedder.providers.redaction import redact

log = structlog.get_logger()


class CallRuntime(NamedTuple):
    """What all calls of a process share."""

    backoff: Backoff
    max_retries: int
    clock: Callable[[], Instant]
    wait: Callable[[float], bool]
    """Waits for a number of seconds; returns True, and at once, when the embedder is told to stop."""
    is_stopping: Callable[[], bool]
    """Whether the embedder is told to stop: running requests end, and no further request begins."""


class CallResponse(Protocol):
    """The unchecked response to one request."""

    @property
    def tokens(self) -> int:
        """Tokens used, as the provider reports them; 0 if it does not."""
        ...

    @property
    def pause(self) -> float:
        """Seconds for which the provider should be left alone, because its quota is nearly used up."""
        ...


Resp = TypeVar("Resp", bound=CallResponse)


class Exchange(Protocol[Resp, R]):
    """What is particular to one kind of call."""

    def request(self, texts: Sequence[str]) -> Resp:
        """Make one request. Raises the errors that `stages.embedder.providers` lists."""
        ...

    def check(
        self, texts: Sequence[str], response: Resp, now: float
    ) -> Succeeded[R] | NotCovered | ProviderUnavailable:
        """Turn the response into results. `ProviderUnavailable`: this provider must not serve the model at all."""
        ...

    def most_tokens(self, text: str) -> int:
        """An upper bound of the tokens that a text costs, for a request whose outcome is unknown."""
        ...


class Driver(Generic[Resp, R]):
    """Runs one call to one provider."""

    def __init__(
        self,
        backend: Backend,
        model: str,
        texts: Sequence[str],
        budget: RequestBudget,
        runtime: CallRuntime,
        exchange: Exchange[Resp, R],
    ) -> None:
        """`model` is the provider's name of the model."""
        self._backend = backend
        self._gate = backend.gate
        self._model = model
        self._texts = texts
        self._budget = budget
        self._runtime = runtime
        self._exchange = exchange
        self._log = log.bind(provider=backend.provider.name, model=model)

    def run(self, rechecks: Sequence[int] = ()) -> ProviderCall[R]:
        """Run a call to its end, and return it; see `ProviderCall` for `rechecks`."""
        policy = RetryPolicy(self._runtime.backoff, self._runtime.max_retries)
        call: ProviderCall[R] = ProviderCall(
            self._texts,
            self._budget,
            policy,
            lambda part: self._backend.caps.split(part, self._texts),
            self._gate.evidence.of(self._model),
            rechecks,
        )
        steps = call.run()
        action = _advance(steps, None)
        while action is not None:
            action = _advance(steps, self._perform(action))
        return call

    def _perform(self, action: Action) -> Event[R] | None:
        match action:
            case SendRequest():
                return self._send(self._texts_at(action.positions))
            case SendCanary():
                return self._send([CANARY], is_canary=True)
            case WaitUntil():
                is_stopping = self._runtime.wait(action.until - self._now())
                return WaitEnded(self._now(), is_stopping)
            case LearnCap():
                halves = [self._texts_at(half) for half in action.halves]
                self._backend.caps.learn(self._texts_at(action.refused), halves, action.reason)
            case Log():
                getattr(self._log, action.level)(action.event, **action.fields)
        return None

    def _send(self, texts: list[str], *, is_canary: bool = False) -> Event[R]:
        """Make one request, if it may be made now."""
        return self._hindrance(is_canary=is_canary) or self._exchanged(texts, is_canary=is_canary)

    def _hindrance(self, *, is_canary: bool) -> Event[R] | None:
        """Why no request can be made; None: it may be made, and the gate expects its outcome."""
        now = self._now()
        if self._runtime.is_stopping():
            return ProviderUnavailable(now, now)
        if self._budget.is_late(now):
            return NotCovered(now)
        until = (self._gate.enter_canary if is_canary else self._gate.enter)(self._model)
        if not until:
            return None
        # a pause may be short; if it is more than a pause, another provider may serve the batch meanwhile
        is_broken = self._gate.is_broken(self._model)
        return ProviderUnavailable(now, until) if is_broken else ProviderPaused(now, until)

    def _exchanged(self, texts: list[str], *, is_canary: bool) -> Event[R]:
        """Make one request; its outcome."""
        began = self._now()
        try:
            with self._gate.outcome(self._model, is_canary=is_canary), sending.covered_until(self._budget.send_by):
                response = self._request(texts)
        except sending.NotCoveredError:
            return NotCovered(self._now())
        except (Transient, Permanent) as error:
            self._budget.add_request(sending.written_at() or began, self._now())
            return self._canary_failed(error) if is_canary else self._failed(error, texts)
        self._budget.add_request(sending.written_at() or began, self._now())
        # without a reported number the quota stays charged with the estimate: a token is at least one byte
        tokens = odd_forms.bounded(response.tokens)
        self._add_payment(texts, tokens or sum(len(text.encode()) for text in texts))
        self._gate.cool_down(response.pause, "its quota is nearly used up, as its response headers say")
        if is_canary:
            self._log.info("canary_served")
            return CanaryServed(self._now())
        self._backend.caps.request_passed(len(texts))
        return self._exchange.check(texts, response, self._now())

    def _request(self, texts: list[str]) -> Resp:
        try:
            return self._exchange.request(texts)
        except Error as error:
            if texts == [CANARY]:  # the words may repeat a text of the request before it
                error.args = (redact(str(error), self._texts),)
            raise

    def _canary_failed(self, error: Transient | Permanent) -> Event[R]:
        """Turn the error of a canary into an event: whatever refuses it refuses every text."""
        if isinstance(error, Permanent | ProviderServerError) and not isinstance(error, AskAgain):
            self._log.warning("canary_refused", reason=str(error))
            return ProviderUnavailable(self._now(), self._gate.cooldown_until(self._model))
        return self._failed(error, [CANARY])

    def _failed(self, error: Transient | Permanent, texts: list[str]) -> Event[R]:
        """Turn the error of a request into an event."""
        now, words, name = self._now(), str(error), self._backend.provider.name
        match error:
            case NoModelYet():
                return ProviderUnavailable(now, now + error.delay)
            case Transient():
                if may_be_paid(error):
                    self._add_payment(texts, sum(map(self._exchange.most_tokens, texts)))
                retry_after_s = error.delay if isinstance(error, Throttled) else 0.0
                failure = None
                if isinstance(error, ProviderServerError):
                    failure = Failure("refused_by_provider", f"{name} fails on the text: {words}")
                return RequestFailed(now, words, retry_after_s, self._gate.cooldown_until(self._model), failure)
            case AskAgain():
                if error.may_be_paid:
                    self._add_payment(texts, sum(map(self._exchange.most_tokens, texts)))
                return RetryAtOnce(now)
            case BadInput():
                return InputRefused(now, Failure(error.code, f"{name} refused the text: {words}"), words)
        self._add_payment(texts, 0)
        if isinstance(error, NeedsOperator):
            return ProviderUnavailable(now, self._gate.cooldown_until(self._model))
        return CallRefused(now, Failure(error.code, words))

    def _add_payment(self, texts: list[str], tokens: int) -> None:
        """Note that the texts of a request, or its canary, may have been paid for."""
        is_canary = texts == [CANARY]
        self._budget.canaries += is_canary
        self._budget.add_payment(() if is_canary else texts, tokens)

    def _texts_at(self, positions: Sequence[int]) -> list[str]:
        return [self._texts[position] for position in positions]

    def _now(self) -> float:
        return self._runtime.clock().mono


def _advance(steps: Steps[R, None], event: Event[R] | None) -> Action | None:
    """The next action; None at the end of the call."""
    try:
        return next(steps) if event is None else steps.send(event)
    except StopIteration:
        return None
