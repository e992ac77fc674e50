"""The quotas of one scope: of all models together, or of one model.

A quota is a window (tasks, tokens or requests in a minute, hour, day, week or month) and a limit. Tasks are admitted if
they fit into every window that has a limit. They are charged before they are sent. Later the charge is kept, refunded
(it was certainly not sent) or settled (the provider reported a different number of tokens than was reserved). Refunds
and settlements change the buckets of the charge; buckets that have expired are not changed.

Every charge is counted twice: in rolling buckets and in calendar buckets (see `buckets.py`). The strategy only decides
which counters are compared with the limits, so they are right after a change of the strategy. The timezone affects only
the calendar buckets. When it changes, each new calendar period starts with the larger of its old count and the rolling
count. That may be too low only for charges that are older than 30 days. Windows without a limit are counted too, so a
limit that is set later applies to earlier charges.

This module has no clock: the caller passes the time to every method, as Unix seconds. A time before the latest one is
replaced by the latest one. So when the clock is set back, nothing expires until the clock has caught up.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import numpy as np

from common.settings.model_limits import Strategy
from common.wire.parts import QuotaWindow
from stages.rate_limiter.quota.amounts import Amounts
from stages.rate_limiter.quota.buckets import BUCKETS, CalendarBuckets, RollingBuckets
from stages.rate_limiter.quota.counters import SHAPE, WINDOWS, Counters, Counts, Unit, WindowId
from stages.rate_limiter.quota.snapshot import ScopeSnapshot, pack, unpack

QuotaLimits = Mapping[WindowId, int]
"""Window → limit; 0 or absent: unlimited."""

MAX_LIMIT: Final = 10**15
"""The largest limit. Sums of counters up to it cannot overflow an int64."""

UNLIMITED: Final = 2**62
"""The ceiling of a window without a limit."""

_RECENT: Final = BUCKETS // 10
"""Buckets from which a forecast takes the rate: the last tenth of a period, long enough to be steady, and recent."""


class Receipt(msgspec.Struct, frozen=True):
    """Identifies the buckets of a charge, also after a restart."""

    at: float
    """When it was charged (Unix seconds, not earlier than the caller's time)."""
    model: str = ""


class Quota:
    """The fifteen windows of one scope and their limits. All times are Unix seconds.

    Raises ValueError for a limit that is not a whole number from 0 to `MAX_LIMIT`, and for an unknown timezone.
    """

    def __init__(
        self, limits: QuotaLimits, strategy: Strategy, timezone: str = "UTC", scope: str = "", reach_s: float = 0.0
    ) -> None:
        """`reach_s`: a charge may reach the provider this much later. Rolling windows count it from then on."""
        self.scope = scope
        self._reach_s = reach_s
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
        """The latest time seen."""
        return self._latest

    @property
    def limited(self) -> bool:
        """Whether any window has a limit."""
        return bool(self._limited)

    def requests_left(self, now: float) -> int | None:
        """The requests that may be made now; None if requests are not limited."""
        self.advance(now)
        used = self._limiting.used
        left = [limit - int(used[cell]) for cell, limit in self._request_limits]
        return max(0, min(left)) if left else None

    def advance(self, now: float) -> float:
        """Advance the windows to `now`. Returns the latest time seen, which is later if the clock was set back."""
        if now > self._latest:
            self._latest = now
            self._rolling.advance(now)
            self._fixed.advance(now)
        return self._latest

    def remaining(self, now: float) -> Counts:
        """What remains in each window, `(units, periods)` int64; about `UNLIMITED` in windows without a limit."""
        self.advance(now)
        remaining: Counts = np.maximum(self._ceilings - self._limiting.used, 0)
        return remaining

    def admits(self, token_estimates: Sequence[int] | Counts, now: float) -> int:
        """The number of tasks from the front of the queue that fit now in one request, given the tokens of each."""
        tasks, tokens, requests = self.remaining(now).min(axis=1).tolist()
        if not requests:
            return 0
        reserved = np.cumsum(np.asarray(token_estimates[:tasks], np.int64))
        return int(np.searchsorted(reserved, tokens, side="right"))

    def charge(self, amounts: Amounts, now: float) -> Receipt:
        """Count a batch that is about to be sent. This does not check that it fits: call `admits` first."""
        at = self.advance(now)
        counts = amounts.counts()
        if self._reach_s:
            self._rolling.adjust(counts, at + self._reach_s)
        else:
            self._rolling.add(counts)
        self._fixed.add(counts)
        return Receipt(at)

    def period_ends(self, now: float) -> float:
        """When the first of the limited calendar periods ends; infinity for rolling windows."""
        self.advance(now)
        if self._strategy is Strategy.ROLLING:
            return float("inf")
        return min((self._fixed.frees_at(window, 1) for window in self._limited), default=float("inf"))

    def refund(self, receipt: Receipt, amounts: Amounts, now: float) -> None:
        """Refund amounts that were charged and certainly not sent. Each part of a charge may be refunded once."""
        self._adjust(receipt, -amounts.counts(), now)

    def settle(self, receipt: Receipt, reserved_tokens: int, actual_tokens: int, now: float) -> None:
        """Replace the reserved tokens by the tokens that the provider reported.

        If the provider reported more, a window may contain more than its limit. Then it admits nothing until enough
        has expired.
        """
        change = Amounts(tokens=actual_tokens).counts() - Amounts(tokens=reserved_tokens).counts()
        self._adjust(receipt, change, now)

    def move(self, receipt: Receipt, amounts: Amounts, at: float, now: float) -> None:
        """Count the rest of a charge at the time `at`, when it reached the provider.

        The provider counts it from that time, so it must not expire earlier in a rolling window. Calendar periods
        count it when it was admitted.
        """
        self.advance(now)
        counts = amounts.counts()
        latest = receipt.at + self._reach_s
        self._rolling.adjust(-counts, latest)
        self._rolling.adjust(counts, min(max(at, receipt.at), max(self._latest, latest)))

    def blocked_by(self, tokens_of_first: int, now: float) -> list[WindowId]:
        """The windows that the first waiting task must wait for; `tokens_of_first` is its number of tokens."""
        remaining = self.remaining(now)
        needs = _needs(tokens_of_first)
        return [window for window in self._limited if remaining[window.cell] < needs[window.unit]]

    def never_fits(self, tokens: int) -> bool:
        """Whether a task with this number of tokens exceeds a token limit, so that it never fits."""
        return any(window.unit is Unit.TOKENS and tokens > self._ceilings[window.cell] for window in self._limited)

    def opens_at(self, tokens_of_first: int, now: float) -> float:
        """The earliest time at which the first waiting task fits, if nothing else is charged until then.

        It is `now` if the task fits already, and infinity if the task never fits. It is exact: one instant earlier the
        task is not admitted.
        """
        if self.never_fits(tokens_of_first):
            return float("inf")
        needs = _needs(tokens_of_first)
        blocking = self.blocked_by(tokens_of_first, now)
        return max((self._frees(window, needs[window.unit]) for window in blocking), default=now)

    def usage(self, now: float) -> list[QuotaWindow]:
        """The state of each window that has a limit.

        `current` may exceed the limit after a settlement or when a limit was lowered. `reset_at` of an empty rolling
        window is `now`.
        """
        at = self.advance(now)
        return [self._usage(window, at) for window in self._limited]

    def snapshot(self) -> ScopeSnapshot:
        """The state that must survive a restart."""
        return ScopeSnapshot(self._latest, pack(self._rolling.counts), pack(self._fixed.counts))

    def load(self, saved: ScopeSnapshot, *, same_timezone: bool, now: float) -> None:
        """Load the saved counters. Limits and strategy may have changed since."""
        self._latest = saved.latest
        self._rolling.load(unpack(saved.rolling), saved.latest)
        fixed = unpack(saved.fixed)
        self._fixed.load(fixed if same_timezone else np.maximum(fixed, self._rolling.used.reshape(-1)), saved.latest)
        self.advance(now)

    def _adjust(self, receipt: Receipt, change: Counts, now: float) -> None:
        """Change a charge under both strategies."""
        self.advance(now)
        self._rolling.adjust(change, receipt.at + self._reach_s)
        self._fixed.adjust(change, receipt.at)

    def _frees(self, window: WindowId, need: int) -> float:
        """When `need` will fit into a window that has too little room now."""
        excess = self._limiting.used[window.cell] + need - self._ceilings[window.cell]
        return self._limiting.frees_at(window, int(excess))

    def _usage(self, window: WindowId, now: float) -> QuotaWindow:
        used, limit = int(self._limiting.used[window.cell]), int(self._ceilings[window.cell])
        resets = used > 0 or self._strategy is Strategy.FIXED
        # The rate comes from the rolling counters under both strategies: a calendar period has only one bucket.
        rate = self._rolling.rate(window, _RECENT, now)
        return QuotaWindow(
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
    """The limits as an array `(units, periods)`, with `UNLIMITED` for windows without a limit."""
    ceilings = np.full(SHAPE, UNLIMITED, np.int64)
    for window, limit in limits.items():
        unit, period = WindowId(*window)
        if not isinstance(limit, int) or isinstance(limit, bool) or not 0 <= limit <= MAX_LIMIT:
            raise ValueError(f"{unit} per {period} is {limit!r}: a whole number from 0 (no limit) to 10^15 is needed")
        if limit:
            ceilings[WindowId(unit, period).cell] = limit
    return ceilings


def _needs(tokens: int) -> dict[Unit, int]:
    """The amounts that a batch of one task with this number of tokens needs."""
    return {Unit.TASKS: 1, Unit.TOKENS: tokens, Unit.REQUESTS: 1}
