"""The quotas of one scope: all that goes to the providers, or what one model may spend of it.

A quota is a window (tasks, tokens or requests; in a minute, hour, day, week or month) and a limit. Work is admitted if
it fits into every window that has a limit. It is charged before it is sent. Then the charge is either kept, refunded
(it was certainly not sent) or settled (the provider reported other tokens than were reserved), always in the buckets
where it was made; once these have expired there is nothing left to amend.

Every charge is counted twice, in a rolling ring and in a calendar's (periods.py); the strategy only says which one
limits. So a change of strategy finds right counters. The timezone matters to the calendar's alone: when it changes, the
new calendar's periods start with the larger of the old one's count and the rolling one, which is never too low except
for what is older than 30 days. Windows without a limit are counted too, and a limit that is set later finds its past.

There is no clock here: every method is told the time, as Unix seconds, and never goes back. A time before the latest
one seen is taken as that one, so a clock that steps back grants nothing; the windows wait till it has caught up.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import numpy as np

from common.settings.model_limits import Strategy
from stages.rate_limiter.quota.amounts import Amounts
from stages.rate_limiter.quota.buckets import BUCKETS, CalendarBuckets, Period, RollingBuckets
from stages.rate_limiter.quota.counters import SHAPE, WINDOWS, Counters, Counts, Unit, WindowId
from stages.rate_limiter.quota.snapshot import ScopeSnapshot, pack, unpack

QuotaLimits = Mapping[WindowId, int]
"""Window → how much is allowed; 0 or absent: no limit."""

MAX_LIMIT: Final = 10**15
"""No sum of counters below it can overflow an int64."""

UNLIMITED: Final = 2**62
"""What remains in a window without a limit."""

_RECENT: Final = BUCKETS // 10
"""A forecast takes the rate of a period's last tenth: long enough to be steady, short enough to be the present."""


class Receipt(msgspec.Struct, frozen=True):
    """When a charge was made, and for which model: all that is needed to find its buckets, even after a restart."""

    at: float  # the windows' time, Unix seconds: not earlier than the caller's
    model: str = ""


class Usage(msgspec.Struct, frozen=True):
    """One quota at one moment. Times are Unix seconds."""

    scope: str  # the model that is limited; "" for the global quotas
    unit: Unit
    period: Period
    current: int  # may be above the limit: after a settlement, or a lowered limit
    limit: int
    remaining: int  # never below 0
    reset_at: float  # fixed: the end of the calendar period; rolling: when anything expires next, now if it is empty
    exhausted_at: float | None  # at the present rate; None if it never will be, or not before it resets


class Quota:
    """The fifteen windows of one scope, and the limits of some.

    Raises ValueError for a limit that is no whole number from 0 to `MAX_LIMIT`, and for an unknown timezone.
    """

    def __init__(self, limits: QuotaLimits, strategy: Strategy, timezone: str = "UTC", scope: str = "") -> None:
        self.scope = scope
        self._strategy = Strategy(strategy)
        self._limited = [window for window in WINDOWS if limits.get(window)]
        self._ceilings = _ceilings(limits)
        self._request_limits = [(w.cell, limits[w]) for w in self._limited if w.unit is Unit.REQUESTS]
        self._rolling = Counters(RollingBuckets())
        self._fixed = Counters(CalendarBuckets(timezone))
        self._limiting = self._rolling if self._strategy is Strategy.ROLLING else self._fixed
        self._latest = 0.0

    @property
    def latest(self) -> float:
        """The latest time seen, Unix seconds."""
        return self._latest

    @property
    def limited(self) -> bool:
        """Whether any window has a limit."""
        return bool(self._limited)

    def requests_left(self, now: float) -> int | None:
        """Return what is left of the quotas of requests; None if there is none."""
        self.advance(now)
        used = self._limiting.used
        left = [limit - int(used[cell]) for cell, limit in self._request_limits]
        return max(0, min(left)) if left else None

    def advance(self, now: float) -> float:
        """Move the windows on to `now`; returns their time, which is later if the clock was set back."""
        if now > self._latest:
            self._latest = now
            self._rolling.turn(now)
            self._fixed.turn(now)
        return self._latest

    def remaining(self, now: float) -> Counts:
        """Return what is left in each window, `(units, periods)`; `UNLIMITED` or nearly so where there is no limit."""
        self.advance(now)
        remaining: Counts = np.maximum(self._ceilings - self._limiting.used, 0)
        return remaining

    def admits(self, token_estimates: Sequence[int] | Counts, now: float) -> int:
        """Return how many of the first waiting tasks fit now, in one request, given the tokens of each."""
        tasks, tokens, requests = self.remaining(now).min(axis=1).tolist()
        if not requests:
            return 0
        reserved = np.cumsum(np.asarray(token_estimates[:tasks], np.int64))
        return int(np.searchsorted(reserved, tokens, side="right"))

    def charge(self, amounts: Amounts, now: float) -> Receipt:
        """Count what is about to be sent, whether it fits or not: `admits` is asked first."""
        at = self.advance(now)
        counts = amounts.counts()
        self._rolling.add(counts)
        self._fixed.add(counts)
        return Receipt(at)

    def refund(self, receipt: Receipt, amounts: Amounts, now: float) -> None:
        """Give back what was charged and certainly not sent. Each part of a charge may be given back once."""
        self._amend(receipt, -amounts.counts(), now)

    def settle(self, receipt: Receipt, reserved_tokens: int, actual_tokens: int, now: float) -> None:
        """Replace the tokens reserved by those that the provider reported.

        If they were more, a window may then hold more than its limit; it admits nothing until that has passed.
        """
        change = Amounts(tokens=actual_tokens).counts() - Amounts(tokens=reserved_tokens).counts()
        self._amend(receipt, change, now)

    def move(self, receipt: Receipt, amounts: Amounts, at: float, now: float) -> None:
        """Count what is left of a charge from the time `at` on, when it reached the provider.

        The provider counts it from then on, and a rolling window must not forget it sooner. A calendar's period keeps
        it where it was admitted.
        """
        self.advance(now)
        counts = amounts.counts()
        self._rolling.amend(-counts, receipt.at)
        self._rolling.amend(counts, min(max(at, receipt.at), self._latest))

    def blocked_by(self, tokens_of_first: int, now: float) -> list[WindowId]:
        """Return the windows that hold back the first waiting task, which needs so many tokens, at this moment."""
        remaining = self.remaining(now)
        needs = _needs(tokens_of_first)
        return [window for window in self._limited if remaining[window.cell] < needs[window.unit]]

    def never_fits(self, tokens: int) -> bool:
        """Tell whether a task of so many tokens is more than some window could ever hold."""
        return any(window.unit is Unit.TOKENS and tokens > self._ceilings[window.cell] for window in self._limited)

    def opens_at(self, tokens_of_first: int, now: float) -> float:
        """Return the earliest time at which the first waiting task fits, if nothing else is charged meanwhile.

        That is `now` if it fits already, and infinity if it never will. Exact: an instant earlier it is not admitted.
        """
        if self.never_fits(tokens_of_first):
            return float("inf")
        needs = _needs(tokens_of_first)
        blocking = self.blocked_by(tokens_of_first, now)
        return max((self._frees(window, needs[window.unit]) for window in blocking), default=now)

    def usage(self, now: float) -> list[Usage]:
        """Return where each quota stands; windows without a limit are left out."""
        at = self.advance(now)
        return [self._usage(window, at) for window in self._limited]

    def snapshot(self) -> ScopeSnapshot:
        """Return all that must survive."""
        return ScopeSnapshot(self._latest, pack(self._rolling.counts), pack(self._fixed.counts))

    def adopt(self, saved: ScopeSnapshot, *, same_timezone: bool, now: float) -> None:
        """Take over what was saved, under whatever limits and strategy hold today."""
        self._latest = saved.latest
        self._rolling.load(unpack(saved.rolling), saved.latest)
        fixed = unpack(saved.fixed)
        self._fixed.load(fixed if same_timezone else np.maximum(fixed, self._rolling.used.reshape(-1)), saved.latest)
        self.advance(now)

    def _amend(self, receipt: Receipt, change: Counts, now: float) -> None:
        self.advance(now)
        self._rolling.amend(change, receipt.at)
        self._fixed.amend(change, receipt.at)

    def _frees(self, window: WindowId, need: int) -> float:
        excess = self._limiting.used[window.cell] + need - self._ceilings[window.cell]
        return self._limiting.frees_at(window, int(excess))

    def _usage(self, window: WindowId, now: float) -> Usage:
        used, limit = int(self._limiting.used[window.cell]), int(self._ceilings[window.cell])
        resets = used > 0 or self._strategy is Strategy.FIXED
        # The rolling ring knows the last tenth of a period under both strategies; a calendar's has one bucket.
        rate = self._rolling.rate(window, _RECENT, now)
        return Usage(
            scope=self.scope,
            unit=window.unit,
            period=window.period,
            current=used,
            limit=limit,
            remaining=max(limit - used, 0),
            reset_at=self._limiting.frees_at(window, 1) if resets else now,
            exhausted_at=now if used >= limit else self._limiting.exhausts_at(window, limit - used, rate, now),
        )


def _ceilings(limits: QuotaLimits) -> Counts:
    ceilings = np.full(SHAPE, UNLIMITED, np.int64)
    for window, limit in limits.items():
        unit, period = WindowId(*window)
        if not isinstance(limit, int) or isinstance(limit, bool) or not 0 <= limit <= MAX_LIMIT:
            raise ValueError(f"{unit} per {period} is {limit!r}: a whole number from 0 (no limit) to 10^15 is needed")
        if limit:
            ceilings[WindowId(unit, period).cell] = limit
    return ceilings


def _needs(tokens: int) -> dict[Unit, int]:
    """Return what a batch of one task takes."""
    return {Unit.TASKS: 1, Unit.TOKENS: tokens, Unit.REQUESTS: 1}
