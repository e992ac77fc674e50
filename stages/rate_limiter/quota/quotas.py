"""All quotas together: the global ones, and those of single models beside them (`RATE_LIMIT_MODELS`).

What a model spends counts in two scopes, its own and the global one, and needs room in both. A model that has no limits
of its own has the global scope only. The caller keeps one queue for each model and asks for each: a model that waits
for its own quota takes nothing from the others.

What is saved covers the models that have limits. A model that gains limits starts empty: what it spent before is known
in the global scope only. One that loses them is forgotten.
"""

from collections.abc import Mapping, Sequence
from itertools import chain

import numpy as np

from common.settings.model_limits import Strategy
from stages.rate_limiter.quota.amounts import Amounts
from stages.rate_limiter.quota.counters import Counts, WindowId
from stages.rate_limiter.quota.scope import Quota, QuotaLimits, Receipt, Usage
from stages.rate_limiter.quota.snapshot import Snapshot, decode, encode

GLOBAL = ""
"""The name of the scope that every charge counts in."""


class Quotas:
    """The windows of every scope, moved by one time. All times are Unix seconds, as in `Quota`."""

    def __init__(
        self, limits: QuotaLimits, models: Mapping[str, QuotaLimits], strategy: Strategy, timezone: str = "UTC"
    ) -> None:
        if GLOBAL in models:
            raise ValueError("a model with limits of its own needs a name")
        self._timezone = timezone
        self._global = Quota(limits, strategy, timezone, GLOBAL)
        self._models = {name: Quota(own, strategy, timezone, name) for name, own in models.items()}

    @property
    def latest(self) -> float:
        """The latest time seen: far ahead of the clock, it tells that the clock was set back."""
        return self._global.latest

    def admits(self, model: str, token_estimates: Sequence[int] | Counts, now: float) -> int:
        """Return how many of this model's first waiting tasks fit now, in one request, given the tokens of each."""
        now = self._global.advance(now)
        estimates = np.asarray(token_estimates, np.int64)
        return min(quota.admits(estimates, now) for quota in self._scopes(model))

    def charge(self, model: str, amounts: Amounts, now: float) -> Receipt:
        """Count what is about to be sent, in both scopes."""
        now = self._global.advance(now)
        for quota in self._scopes(model):
            quota.charge(amounts, now)
        return Receipt(now, model)

    def refund(self, receipt: Receipt, amounts: Amounts, now: float) -> None:
        """Give back what was charged and certainly not sent. Each part of a charge may be given back once."""
        now = self._global.advance(now)
        for quota in self._scopes(receipt.model):
            quota.refund(receipt, amounts, now)

    def settle(self, receipt: Receipt, reserved_tokens: int, actual_tokens: int, now: float) -> None:
        """Replace the tokens reserved by those that the provider reported."""
        now = self._global.advance(now)
        for quota in self._scopes(receipt.model):
            quota.settle(receipt, reserved_tokens, actual_tokens, now)

    def move(self, receipt: Receipt, amounts: Amounts, at: float, now: float) -> None:
        """Count what is left of a charge from the time `at` on, when it reached the provider."""
        now = self._global.advance(now)
        for quota in self._scopes(receipt.model):
            quota.move(receipt, amounts, at, now)

    def blocked_by(self, model: str, tokens_of_first: int, now: float) -> dict[str, list[WindowId]]:
        """Return the windows that hold back this model's first waiting task, by scope; empty if none does."""
        now = self._global.advance(now)
        blocked = {quota.scope: quota.blocked_by(tokens_of_first, now) for quota in self._scopes(model)}
        return {scope: windows for scope, windows in blocked.items() if windows}

    def never_fits(self, model: str, tokens: int) -> bool:
        """Tell whether a task of so many tokens is more than some window of this model could ever hold."""
        return any(quota.never_fits(tokens) for quota in self._scopes(model))

    def opens_at(self, model: str, tokens_of_first: int, now: float) -> float:
        """Return the earliest time at which this model's first waiting task fits; infinity if it never will."""
        at = self._global.advance(now)
        opens = max(quota.opens_at(tokens_of_first, at) for quota in self._scopes(model))
        return opens if opens > at else now

    def limits(self, model: str) -> bool:
        """Tell whether anything that this model sends is limited."""
        return any(quota.limited for quota in self._scopes(model))

    def requests_left(self, model: str, now: float) -> int | None:
        """Return how many requests this model may make now; None if they are not limited."""
        now = self._global.advance(now)
        left = [quota.requests_left(now) for quota in self._scopes(model)]
        return min((requests for requests in left if requests is not None), default=None)

    def usage(self, now: float) -> list[Usage]:
        """Return where each quota stands, in every scope."""
        now = self._global.advance(now)
        return list(chain.from_iterable(quota.usage(now) for quota in (self._global, *self._models.values())))

    def dump(self) -> bytes:
        """Return all that must survive; the size depends on the number of scopes alone."""
        scopes = {quota.scope: quota.snapshot() for quota in (self._global, *self._models.values())}
        return encode(Snapshot(self._timezone, scopes))

    def restore(self, data: bytes, now: float) -> None:
        """Take over what `dump` returned, under whatever limits, strategy and timezone hold today.

        Raises QuotaFileError, and changes nothing, if it is damaged or of another version.
        """
        saved = decode(data)
        same_timezone = saved.timezone == self._timezone
        for quota in (self._global, *self._models.values()):
            if quota.scope in saved.scopes:
                quota.adopt(saved.scopes[quota.scope], same_timezone=same_timezone, now=now)

    def _scopes(self, model: str) -> tuple[Quota, ...]:
        own = self._models.get(model)
        return (self._global,) if own is None else (self._global, own)
