"""All quotas: the global ones, and those of single models (`RATE_LIMIT_MODELS`).

A charge of a model counts in two scopes, the model's own scope and the global one, and must fit into both. A model
without limits of its own has only the global scope. The caller has one queue for each model and asks for each queue
separately, so a model that waits for its own quota does not block the others.

The snapshot contains the scopes of the models that have limits. When a model gets limits for the first time, its own
scope starts empty: earlier charges were counted only in the global scope. When a model loses its limits, its counters
are dropped.
"""

from collections.abc import Mapping, Sequence
from itertools import chain

import numpy as np

from common.settings.model_limits import Strategy
from common.wire.parts import QuotaWindow
from stages.rate_limiter.quota.amounts import Amounts
from stages.rate_limiter.quota.counters import Counts, WindowId
from stages.rate_limiter.quota.scope import Quota, QuotaLimits, Receipt
from stages.rate_limiter.quota.snapshot import Snapshot, decode, encode

GLOBAL = ""
"""The name of the global scope, in which every charge counts."""


class Quotas:
    """The windows of all scopes, which share one latest time. All times are Unix seconds, as in `Quota`.

    Raises ValueError for a model whose name is empty, and as `Quota` does.
    """

    def __init__(
        self,
        limits: QuotaLimits,
        models: Mapping[str, QuotaLimits],
        strategy: Strategy,
        timezone: str = "UTC",
        reach_s: float = 0.0,
    ) -> None:
        if GLOBAL in models:
            raise ValueError("a model with limits of its own needs a name")
        self._timezone = timezone
        self._global = Quota(limits, strategy, timezone, GLOBAL, reach_s)
        self._models = {name: Quota(own, strategy, timezone, name, reach_s) for name, own in models.items()}

    @property
    def latest(self) -> float:
        """The latest time seen. If it is far ahead of the clock, the clock was set back."""
        return self._global.latest

    def admits(self, model: str, token_estimates: Sequence[int] | Counts, now: float) -> int:
        """The number of tasks, from the front of this model's queue, that fit now in one request.

        `token_estimates` are the tokens of each task in the queue.
        """
        now = self._global.advance(now)
        estimates = np.asarray(token_estimates, np.int64)
        return min(quota.admits(estimates, now) for quota in self._scopes(model))

    def charge(self, model: str, amounts: Amounts, now: float) -> Receipt:
        """Count a batch that is about to be sent, in both scopes."""
        now = self._global.advance(now)
        for quota in self._scopes(model):
            quota.charge(amounts, now)
        return Receipt(now, model)

    def period_ends(self, model: str, now: float) -> float:
        """When the first of the limited calendar periods of this model ends; infinity for rolling windows."""
        now = self._global.advance(now)
        return min(quota.period_ends(now) for quota in self._scopes(model))

    def refund(self, receipt: Receipt, amounts: Amounts, now: float) -> None:
        """Refund amounts that were charged and certainly not sent. Each part of a charge may be refunded once."""
        now = self._global.advance(now)
        for quota in self._scopes(receipt.model):
            quota.refund(receipt, amounts, now)

    def settle(self, receipt: Receipt, reserved_tokens: int, actual_tokens: int, now: float) -> None:
        """Replace the reserved tokens by the tokens that the provider reported."""
        now = self._global.advance(now)
        for quota in self._scopes(receipt.model):
            quota.settle(receipt, reserved_tokens, actual_tokens, now)

    def move(self, receipt: Receipt, amounts: Amounts, at: float, now: float) -> None:
        """Count the rest of a charge at the time `at`, when it reached the provider."""
        now = self._global.advance(now)
        for quota in self._scopes(receipt.model):
            quota.move(receipt, amounts, at, now)

    def blocked_by(self, model: str, tokens_of_first: int, now: float) -> dict[str, list[WindowId]]:
        """The windows that this model's first waiting task must wait for, by scope; empty if it fits now."""
        now = self._global.advance(now)
        blocked = {quota.scope: quota.blocked_by(tokens_of_first, now) for quota in self._scopes(model)}
        return {scope: windows for scope, windows in blocked.items() if windows}

    def never_fits(self, model: str, tokens: int) -> bool:
        """Whether a task with this number of tokens exceeds a token limit of this model, so that it never fits."""
        return any(quota.never_fits(tokens) for quota in self._scopes(model))

    def opens_at(self, model: str, tokens_of_first: int, now: float) -> float:
        """The earliest time at which this model's first waiting task fits; infinity if it never fits."""
        at = self._global.advance(now)
        opens = max(quota.opens_at(tokens_of_first, at) for quota in self._scopes(model))
        return opens if opens > at else now

    def limits(self, model: str) -> bool:
        """Whether any limit applies to this model."""
        return any(quota.limited for quota in self._scopes(model))

    def requests_left(self, model: str, now: float) -> int | None:
        """The number of requests that this model may make now; None if requests are not limited."""
        now = self._global.advance(now)
        left = [quota.requests_left(now) for quota in self._scopes(model)]
        return min((requests for requests in left if requests is not None), default=None)

    def usage(self, now: float) -> list[QuotaWindow]:
        """The state of each window that has a limit, in all scopes."""
        now = self._global.advance(now)
        return list(chain.from_iterable(quota.usage(now) for quota in (self._global, *self._models.values())))

    def dump(self) -> bytes:
        """The counters of all scopes as bytes. The size depends only on the number of scopes."""
        scopes = {quota.scope: quota.snapshot() for quota in (self._global, *self._models.values())}
        return encode(Snapshot(self._timezone, scopes))

    def restore(self, data: bytes, now: float) -> None:
        """Load the counters that `dump` returned. Limits, strategy and timezone may have changed since.

        Raises QuotaFileError, and changes nothing, if the data is damaged or has another version.
        """
        saved = decode(data)
        same_timezone = saved.timezone == self._timezone
        for quota in (self._global, *self._models.values()):
            if quota.scope in saved.scopes:
                quota.load(saved.scopes[quota.scope], same_timezone=same_timezone, now=now)

    def _scopes(self, model: str) -> tuple[Quota, ...]:
        """The scopes in which this model is charged: the global one, and its own if it has limits."""
        own = self._models.get(model)
        return (self._global,) if own is None else (self._global, own)
