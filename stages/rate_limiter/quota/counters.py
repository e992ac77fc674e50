"""The counters of all quota windows, in arrays of constant size.

There are fifteen windows: three units times five periods. Each window has one counter for each bucket that is counted
(see `buckets.py`). All counters are in one array `(units, periods, slots)`; the counter of bucket `number` is in slot
`number % slots`. When a bucket expires, its slot is set to zero and used for a new bucket. The sums over the slots are
stored too. So a check of all windows compares two `(3, 5)` arrays and takes the same time for any number of tasks.
"""

import math
from enum import StrEnum
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.rate_limiter.quota.buckets import Buckets, Period

Counts = NDArray[np.int64]


class Unit(StrEnum):
    """The unit of a quota."""

    TASKS = "tasks"
    TOKENS = "tokens"
    """Charged by an estimate, then settled to the number that the provider reported."""
    REQUESTS = "requests"
    """HTTP requests to a provider."""


class WindowId(NamedTuple):
    """Identifies a quota window: one unit in one period. Limits are stored by it."""

    unit: Unit
    period: Period

    @property
    def cell(self) -> tuple[int, int]:
        """Its index in a `(units, periods)` array."""
        return _CELLS[self]


WINDOWS: Final = tuple(WindowId(unit, period) for unit in Unit for period in Period)
_PERIODS: Final = tuple(Period)
SHAPE: Final = (len(Unit), len(Period))
_CELLS: Final = {window: divmod(place, len(Period)) for place, window in enumerate(WINDOWS)}


class Counters:
    """The counters of the fifteen windows under one strategy. All times are Unix seconds.

    Call `advance` with a new time before any other method. Times must not decrease.
    """

    def __init__(self, buckets: Buckets) -> None:
        self._buckets = buckets
        self._ahead = buckets.ahead
        self._slots = buckets.slots + self._ahead
        self.counts: Counts = np.zeros((*SHAPE, self._slots), np.int64)
        self.used: Counts = np.zeros(SHAPE, np.int64)
        """The sums of `counts` over the slots."""
        self._heads = [0] * len(Period)
        """The number of the last bucket of each period: `ahead` buckets after the current one."""
        self._flat = self.counts.reshape(-1)
        """The same memory as `counts`, with one index, which is faster than three."""
        self._rows = np.arange(len(WINDOWS)).reshape(SHAPE) * self._slots
        """The index in `_flat` at which each window begins."""
        self._current = self._rows.copy()
        """The index in `_flat` of the current bucket of each window."""
        self._ends = [-math.inf] * len(Period)
        """When the current bucket of each period ends."""
        self._next_end = -math.inf
        """The earliest of `_ends`."""

    def advance(self, now: float) -> None:
        """Set the counters of all buckets that have expired at `now` to zero."""
        if now >= self._next_end:
            for column, period in enumerate(_PERIODS):
                if now >= self._ends[column]:
                    self._move_to(self._buckets.number(period, now), column)
            self._next_end = min(self._ends)

    def _move_to(self, number: int, column: int) -> None:
        """Make this bucket the current one of a period, and empty the slots of the expired buckets."""
        # Never move back. If an update of the timezone database changes the rules, the old bucket only lasts longer.
        number = max(number + self._ahead, self._heads[column])
        emptied = min(number - self._heads[column], self._slots)
        for reused in range(number - emptied + 1, number + 1):
            expired = self.counts[:, column, reused % self._slots]
            self.used[:, column] -= expired
            expired[:] = 0
        self._set_head(number, column)

    def _set_head(self, number: int, column: int) -> None:
        current = number - self._ahead
        self._heads[column] = number
        self._ends[column] = self._buckets.end(_PERIODS[column], current)
        self._current[:, column] = self._rows[:, column] + current % self._slots

    def load(self, counts: Counts, now: float) -> None:
        """Replace the counters by those that were saved at `now`. They may be of a ring without later buckets."""
        saved = counts.reshape(*SHAPE, -1)
        self.counts[:] = saved if saved.shape == self.counts.shape else self._widened(saved, now)
        self.used = self.counts.sum(axis=-1)
        for column, period in enumerate(_PERIODS):
            self._set_head(self._buckets.number(period, now) + self._ahead, column)
        self._next_end = min(self._ends)

    def _widened(self, saved: Counts, now: float) -> Counts:
        """Counters that were saved in a ring of `slots` buckets, in the ring of `slots + ahead` buckets."""
        wide = np.zeros_like(self.counts)
        slots = saved.shape[-1]
        for column, period in enumerate(_PERIODS):
            current = self._buckets.number(period, now)
            for number in range(current - slots + 1, current + 1):
                wide[:, column, number % self._slots] = saved[:, column, number % slots]
        return wide

    def add(self, amounts: Counts) -> None:
        """Add amounts `(units,)` to the current bucket of every period."""
        column = amounts[:, None]
        self._flat[self._current] += column
        self.used += column

    def adjust(self, amounts: Counts, at: float) -> None:
        """Add amounts `(units,)`, which may be negative, to the buckets of the time `at` that are still counted.

        No counter falls below zero.
        """
        for column, period in enumerate(_PERIODS):
            number, head = self._buckets.number(period, at), self._heads[column]
            if head - self._slots < number <= head:
                counts = self.counts[:, column, number % self._slots]
                change = np.maximum(amounts, -counts)
                counts += change
                self.used[:, column] += change

    def frees_at(self, window: WindowId, amount: int) -> float:
        """When at least `amount` of the amount counted in this window will have expired."""
        freed = np.cumsum(self._oldest_first(window))
        place = min(int(np.searchsorted(freed, amount)), self._slots - 1)
        return self._expiry(window, place)

    def rate(self, window: WindowId, buckets: int, now: float) -> float:
        """The amount per second in the latest `buckets` buckets, including the current one and later ones."""
        current = self._heads[window.cell[1]] - self._ahead
        elapsed = now - self._buckets.end(window.period, current - buckets)
        return float(self._oldest_first(window)[-buckets - self._ahead :].sum()) / elapsed

    def exhausts_at(self, window: WindowId, room: int, rate: float, now: float) -> float | None:
        """When a window with this much `room` will be used up at `rate` per second; None for never.

        Amounts that expire in the meantime add to the room. Between two expiries the room is constant, so the window
        is used up in the first interval in which the traffic exceeds the room. If that does not happen before all
        present counts have expired, the traffic always fits.
        """
        if rate <= 0:
            return None
        expired = np.cumsum(self._oldest_first(window)[:-1])
        caught_up = now + (room + np.concatenate(([0], expired))) / rate
        # `linspace` gives the expiries of all buckets, because the buckets are equally long.
        expiries = np.linspace(self._expiry(window, 0), self._expiry(window, self._slots - 1), self._slots)
        caught = np.flatnonzero(caught_up <= expiries)
        return float(caught_up[caught[0]]) if caught.size else None

    def _oldest_first(self, window: WindowId) -> Counts:
        """The counters of a window `(slots + ahead,)`, from the oldest to the last bucket."""
        row, column = window.cell
        return np.roll(self.counts[row, column], -1 - self._heads[column] % self._slots)

    def _expiry(self, window: WindowId, place: int) -> float:
        """When the bucket at this place, counted from the oldest, expires."""
        oldest = self._heads[window.cell[1]] - self._slots + 1
        return self._buckets.expiry(window.period, oldest + place)
