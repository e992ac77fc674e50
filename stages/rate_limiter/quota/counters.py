"""The counters of all windows, in rings that never grow.

There are fifteen windows: three units by five periods. Each has one counter for every bucket that is still counted
(periods.py), in one array `(units, periods, slots)`; bucket `number` is kept in slot `number % slots`. When time moves
on, the slots of the buckets that came to an end are emptied and used again. The sums over the slots are kept beside
them, so that a check of all windows is one comparison of two `(3, 5)` arrays, whatever the number of tasks.
"""

import math
from enum import StrEnum
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.rate_limiter.quota.buckets import Buckets, Period

Counts = NDArray[np.int64]


class Unit(StrEnum):
    """What a quota counts."""

    TASKS = "tasks"
    TOKENS = "tokens"  # reserved from an estimate, then settled to what the provider reported
    REQUESTS = "requests"  # HTTP requests to a provider


class WindowId(NamedTuple):
    """What is limited: one unit in one period. The key of every table of limits."""

    unit: Unit
    period: Period

    @property
    def cell(self) -> tuple[int, int]:
        """Where it stands in a `(units, periods)` array."""
        return _CELLS[self]


WINDOWS: Final = tuple(WindowId(unit, period) for unit in Unit for period in Period)
_PERIODS: Final = tuple(Period)
SHAPE: Final = (len(Unit), len(Period))
_CELLS: Final = {window: divmod(place, len(Period)) for place, window in enumerate(WINDOWS)}


class Counters:
    """The fifteen windows under one way of cutting time.

    `turn` comes before anything else at a new time; times must not decrease.
    """

    def __init__(self, buckets: Buckets) -> None:
        self._buckets = buckets
        self._slots = buckets.slots
        self.counts: Counts = np.zeros((*SHAPE, self._slots), np.int64)
        self.used: Counts = np.zeros(SHAPE, np.int64)  # the sums of `counts` over the slots
        self._heads = [0] * len(Period)  # each period's current bucket, by number
        self._flat = self.counts.reshape(-1)  # the same memory: one index is quicker than three
        self._rows = np.arange(len(WINDOWS)).reshape(SHAPE) * self._slots  # where each window begins in it
        self._current = self._rows.copy()  # where each window's current bucket is in it
        self._ends = [-math.inf] * len(Period)  # when each current bucket ends
        self._turns_at = -math.inf  # when the first of them does

    def turn(self, now: float) -> None:
        """Empty the buckets that are no longer counted at `now` (Unix seconds)."""
        if now >= self._turns_at:
            for column, period in enumerate(_PERIODS):
                if now >= self._ends[column]:
                    self._move_to(self._buckets.number(period, now), column)
            self._turns_at = min(self._ends)

    def _move_to(self, number: int, column: int) -> None:
        """Make this the current bucket of a period."""
        # Never back: were the timezone's rules changed by an update, the old bucket would just last longer.
        number = max(number, self._heads[column])
        emptied = min(number - self._heads[column], self._slots)
        for turned in range(number - emptied + 1, number + 1):
            expired = self.counts[:, column, turned % self._slots]
            self.used[:, column] -= expired
            expired[:] = 0
        self._set_head(number, column)

    def _set_head(self, number: int, column: int) -> None:
        self._heads[column] = number
        self._ends[column] = self._buckets.end(_PERIODS[column], number)
        self._current[:, column] = self._rows[:, column] + number % self._slots

    def load(self, counts: Counts, now: float) -> None:
        """Take over counters that were saved at `now`."""
        self.counts[:] = counts.reshape(self.counts.shape)
        self.used = self.counts.sum(axis=-1)
        for column, period in enumerate(_PERIODS):
            self._set_head(self._buckets.number(period, now), column)
        self._turns_at = min(self._ends)

    def add(self, amounts: Counts) -> None:
        """Count `(units,)` amounts in the current bucket of every period."""
        column = amounts[:, None]
        self._flat[self._current] += column
        self.used += column

    def amend(self, amounts: Counts, at: float) -> None:
        """Change what was counted at the time `at`, wherever that bucket still counts; none falls below zero."""
        for column, period in enumerate(_PERIODS):
            number, head = self._buckets.number(period, at), self._heads[column]
            if head - self._slots < number <= head:
                counts = self.counts[:, column, number % self._slots]
                change = np.maximum(amounts, -counts)
                counts += change
                self.used[:, column] += change

    def frees_at(self, window: WindowId, amount: int) -> float:
        """Return when `amount` of what this window holds will have expired (Unix seconds)."""
        freed = np.cumsum(self._oldest_first(window))
        place = min(int(np.searchsorted(freed, amount)), self._slots - 1)
        return self._expiry(window, place)

    def rate(self, window: WindowId, buckets: int, now: float) -> float:
        """Return what was counted per second over the latest buckets, the current, partial one included."""
        head = self._heads[window.cell[1]]
        elapsed = now - self._buckets.end(window.period, head - buckets)
        return float(self._oldest_first(window)[-buckets:].sum()) / elapsed

    def exhausts_at(self, window: WindowId, room: int, rate: float, now: float) -> float | None:
        """Return when `room` and all that expires meanwhile will be used up at `rate` a second; None for never.

        Between two expiries the room is constant, so the first stretch in which traffic catches up with it decides. If
        none does until all that is counted today has expired, the traffic fits into the window for good.
        """
        if rate <= 0:
            return None
        expired = np.cumsum(self._oldest_first(window)[:-1])
        caught_up = now + (room + np.concatenate(([0], expired))) / rate
        stretches = np.linspace(
            self._expiry(window, 0), self._expiry(window, self._slots - 1), self._slots
        )  # equal buckets
        caught = np.flatnonzero(caught_up <= stretches)
        return float(caught_up[caught[0]]) if caught.size else None

    def _oldest_first(self, window: WindowId) -> Counts:
        row, column = window.cell
        return np.roll(self.counts[row, column], -1 - self._heads[column] % self._slots)

    def _expiry(self, window: WindowId, place: int) -> float:
        """Return when the bucket at this place, oldest first, is no longer counted."""
        oldest = self._heads[window.cell[1]] - self._slots + 1
        return self._buckets.expiry(window.period, oldest + place)
