"""Where time is cut: the buckets that quotas are counted in.

A bucket is a stretch of time with one counter, known by a number that only grows. Two ways of cutting:

*Rolling.* A period of length L is cut into 120 equal buckets, whatever the calendar says. Whatever was charged within
the last L lies in the current bucket or in one of the 120 before it, so 121 buckets are counted; the oldest, which may
be only partly within L, counts whole. Hence no interval of length L, wherever it begins, holds more than what 121
buckets were allowed. The price is at most one bucket in 121: at full demand 120 / 121 = 99.2 % of a quota is used.
Times are compared in ticks of half a second, because a float times two is exact: no rounding can put a charge into the
wrong bucket. Every bucket is a whole number of ticks long, even a minute's (one).

*Fixed.* A bucket is one period of the calendar of an IANA timezone, and only the current one is counted. Its number is
its first second (Unix time). A minute or an hour begins when the local clock shows :00; so the hour that is repeated
when daylight saving ends is two hours, and where the clock is moved by half an hour (Lord Howe Island) one hour lasts
ninety minutes. A day begins at the first instant of its local date: not always at midnight, which some zones skip when
daylight saving begins. Weeks are ISO weeks and begin on Monday.
"""

import math
from bisect import bisect_left
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Final, Protocol
from zoneinfo import ZoneInfo


class Period(StrEnum):
    """How long a quota lasts."""

    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"
    WEEK = "week"  # seven days; fixed: the ISO week
    MONTH = "month"  # rolling: 30 days; fixed: the calendar month


SECONDS: Final = {
    Period.MINUTE: 60,
    Period.HOUR: 3_600,
    Period.DAY: 86_400,
    Period.WEEK: 604_800,
    Period.MONTH: 2_592_000,
}
"""The length of each rolling period, seconds."""

BUCKETS: Final = 120
"""Equal buckets to a rolling period: with 60 a quota is used to 98.4 % at best, too near the 98 % that is promised."""

TICKS_PER_SECOND: Final = 2
_TICKS: Final = {period: seconds * TICKS_PER_SECOND // BUCKETS for period, seconds in SECONDS.items()}


class Buckets(Protocol):
    """A way of cutting time. All times are Unix time in seconds."""

    @property
    def slots(self) -> int:
        """How many buckets, the current one included, are counted at any moment."""

    def number(self, period: Period, now: float) -> int:
        """Return the number of the bucket that `now` falls into."""

    def end(self, period: Period, number: int) -> float:
        """Return the first instant that is no longer in this bucket."""

    def expiry(self, period: Period, number: int) -> float:
        """Return the first instant at which this bucket is no longer counted."""


class RollingBuckets:
    """120 equal buckets to the period, 121 of them counted."""

    slots = BUCKETS + 1

    def number(self, period: Period, now: float) -> int:
        """Count the buckets since 1970."""
        return math.floor(now * TICKS_PER_SECOND) // _TICKS[period]

    def end(self, period: Period, number: int) -> float:
        """Return where the next bucket begins; exact, as a float of half seconds is."""
        return (number + 1) * _TICKS[period] / TICKS_PER_SECOND

    def expiry(self, period: Period, number: int) -> float:
        """Return the end of the 120th bucket after this one: its last charge is then a whole period old."""
        return self.end(period, number + BUCKETS)


class CalendarBuckets:
    """The minutes, hours, days, ISO weeks and months of one timezone; only the current one of each is counted.

    Raises ValueError for a name that is not in the timezone database.
    """

    slots = 1

    def __init__(self, timezone: str) -> None:
        self._zone = load_zone(timezone)
        # The bucket last asked for: nearly every question is about the current one.
        self._cached = dict.fromkeys(Period, (0, 0))

    def number(self, period: Period, now: float) -> int:
        """Return the first second of the calendar period that `now` falls into."""
        return self._bounds(period, math.floor(now))[0]

    def end(self, period: Period, number: int) -> float:
        """Return when the next calendar period begins."""
        return float(self._bounds(period, number)[1])

    def expiry(self, period: Period, number: int) -> float:
        """Return the same: a calendar period counts no longer than it lasts."""
        return self.end(period, number)

    def _bounds(self, period: Period, second: int) -> tuple[int, int]:
        """Return the first second of the calendar period round this one, and of the next."""
        start, end = self._cached[period]
        if not start <= second < end:
            if period in (Period.MINUTE, Period.HOUR):
                length = SECONDS[period]
                start, end = self._mark_before(second, length), self._mark_after(second, length)
            else:
                start, end = self._dates_round(period, second)
            self._cached[period] = start, end
        return start, end

    def _mark_before(self, second: int, length: int) -> int:
        """Return the latest second, up to this one, at which the local clock showed a full minute or hour."""
        offset = self._offset(second)
        mark = second - (second + offset) % length
        if self._offset(mark) == offset:
            return mark
        change = self._change(mark, second)
        return change if (change + offset) % length == 0 else self._mark_before(change - 1, length)

    def _mark_after(self, second: int, length: int) -> int:
        """Return the next second, after this one, at which the local clock shows a full minute or hour."""
        offset = self._offset(second)
        mark = second - (second + offset) % length + length
        if self._offset(mark) == offset:
            return mark
        change = self._change(second, mark)
        shown = change + self._offset(change)
        return change if shown % length == 0 else self._mark_after(change, length)

    def _dates_round(self, period: Period, second: int) -> tuple[int, int]:
        day = _first_day(period, datetime.fromtimestamp(second, self._zone).date())
        start = self._start_of(day)
        # Not simply the next one: a date left for a minute and entered again (St John's, until 2011) began only once.
        while True:
            day = _next_first_day(period, day)
            end = self._start_of(day)
            if end > second:
                return start, end
            start = end

    def _start_of(self, day: date) -> int:
        """Return the first second of a local date."""
        midnight = datetime(day.year, day.month, day.day, tzinfo=self._zone)
        second = int(midnight.timestamp())
        if datetime.fromtimestamp(second, self._zone).replace(tzinfo=None) == midnight.replace(tzinfo=None):
            return second
        # No such midnight: the clock leaps over it, and the date begins there. `fold` gives it in the offset before the
        # leap (a time after it) or in the one after the leap (a time before it): PEP 495.
        return self._change(int(midnight.replace(fold=1).timestamp()), second)

    def _change(self, before: int, after: int) -> int:
        """Return the first second, after `before` and up to `after`, with the UTC offset that holds at `after`."""
        new = self._offset(after)
        return before + bisect_left(range(before, after), True, key=lambda second: self._offset(second) == new)

    def _offset(self, second: int) -> int:
        """Return what the local clock is ahead of UTC, seconds."""
        offset = datetime.fromtimestamp(second, self._zone).utcoffset()
        return 0 if offset is None else int(offset.total_seconds())


def load_zone(name: str) -> ZoneInfo:
    """Return the timezone of this IANA name; raises ValueError with a sentence for the user if there is none."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:  # OSError: "Europe" is a directory of the database
        raise ValueError(f"unknown timezone {name!r}: an IANA name is needed, such as UTC or Europe/Berlin") from error


def _first_day(period: Period, day: date) -> date:
    match period:
        case Period.WEEK:
            return day - timedelta(days=day.weekday())
        case Period.MONTH:
            return day.replace(day=1)
        case _:
            return day


def _next_first_day(period: Period, first: date) -> date:
    match period:
        case Period.WEEK:
            return first + timedelta(days=7)
        case Period.MONTH:
            return (first + timedelta(days=31)).replace(day=1)
        case _:
            return first + timedelta(days=1)
