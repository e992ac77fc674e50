"""Divides time into buckets. Each bucket of a quota has one counter.

Each bucket has a number. Later buckets have higher numbers. There are two strategies:

*Rolling.* A period of length L is divided into 120 equal buckets, independently of the calendar. Everything charged
within the last L lies in the current bucket or in one of the 120 buckets before it, so 121 buckets are counted. The
oldest of them may lie only partly within L, but all of it counts. So no interval of length L, wherever it begins,
contains more than the limit. The price is at most one bucket in 121: at full demand 120 / 121 = 99.2 % of a quota is
used. Times are compared in ticks of half a second: a float times two is exact, so rounding never puts a charge into
the wrong bucket. Every bucket lasts a whole number of ticks; that of a minute lasts one.

*Fixed.* A bucket is one period of the calendar in an IANA timezone, and only the current bucket is counted. Its number
is its first second (Unix time). A minute or an hour begins when the local clock shows :00. When daylight saving ends,
an hour is repeated; the two hours are two buckets. Where the clock changes by half an hour (Lord Howe Island), one hour
lasts ninety minutes. A day begins at the first instant of its local date. That is not always midnight: some zones skip
midnight when daylight saving begins. Weeks are ISO weeks and begin on Monday.
"""

import math
from bisect import bisect_left
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Final, Protocol
from zoneinfo import ZoneInfo


class Period(StrEnum):
    """The period of a quota."""

    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    """Rolling: seven days; fixed: the ISO week."""
    MONTH = "month"
    """Rolling: 30 days; fixed: the calendar month."""


SECONDS: Final = {
    Period.MINUTE: 60,
    Period.HOUR: 3_600,
    Period.DAY: 86_400,
    Period.WEEK: 604_800,
    Period.MONTH: 2_592_000,
}
"""The length of each rolling period in seconds."""

BUCKETS: Final = 120
"""Buckets in a rolling period. With 60, at most 98.4 % of a quota would be used: too close to the promised 98 %."""

AHEAD: Final = 24
"""Later buckets that charges may be in already: 12 s for a minute. A charge counts from the latest moment at which its
request may reach the provider, until it is known when it did."""

TICKS_PER_SECOND: Final = 2
_TICKS: Final = {period: seconds * TICKS_PER_SECOND // BUCKETS for period, seconds in SECONDS.items()}


class Buckets(Protocol):
    """A strategy of dividing time. All times are Unix seconds."""

    @property
    def slots(self) -> int:
        """The number of buckets that are counted at any moment, up to the current one."""

    @property
    def ahead(self) -> int:
        """The number of buckets after the current one that are counted too."""

    def number(self, period: Period, now: float) -> int:
        """The number of the bucket that contains `now`."""

    def end(self, period: Period, number: int) -> float:
        """The end of this bucket: the first instant after it."""

    def expiry(self, period: Period, number: int) -> float:
        """The first instant at which this bucket does not count any more."""


class RollingBuckets:
    """A period has 120 equal buckets; 121 buckets are counted."""

    slots = BUCKETS + 1
    ahead = AHEAD

    def number(self, period: Period, now: float) -> int:
        """The number of buckets since 1970."""
        return math.floor(now * TICKS_PER_SECOND) // _TICKS[period]

    def end(self, period: Period, number: int) -> float:
        """The beginning of the next bucket. It is exact, because a float holds half seconds exactly."""
        return (number + 1) * _TICKS[period] / TICKS_PER_SECOND

    def expiry(self, period: Period, number: int) -> float:
        """The end of the 120th bucket after this one: the last charge in this bucket is then a whole period old."""
        return self.end(period, number + BUCKETS)


class CalendarBuckets:
    """The minutes, hours, days, ISO weeks and months of one timezone; only the current bucket of each is counted.

    Raises ValueError for a name that is not in the timezone database.
    """

    slots = 1
    ahead = 0

    def __init__(self, timezone: str) -> None:
        self._zone = load_zone(timezone)
        # The bounds of the latest bucket of each period. Nearly every call is about the current bucket.
        self._cached = dict.fromkeys(Period, (0, 0))

    def number(self, period: Period, now: float) -> int:
        """The first second of the calendar period that contains `now`."""
        return self._bounds(period, math.floor(now))[0]

    def end(self, period: Period, number: int) -> float:
        """The beginning of the next calendar period."""
        return float(self._bounds(period, number)[1])

    def expiry(self, period: Period, number: int) -> float:
        """The end of the bucket: a calendar period counts only until it ends."""
        return self.end(period, number)

    def _bounds(self, period: Period, second: int) -> tuple[int, int]:
        """The first second of the calendar period that contains `second`, and the first second of the next period."""
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
        """The latest second, at most `second`, at which the local clock showed a full minute or hour."""
        offset = self._offset(second)
        mark = second - (second + offset) % length
        if self._offset(mark) == offset:
            return mark
        change = self._change(mark, second)
        return change if (change + offset) % length == 0 else self._mark_before(change - 1, length)

    def _mark_after(self, second: int, length: int) -> int:
        """The next second after `second` at which the local clock shows a full minute or hour."""
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
        # The next start may be too early: in St John's (until 2011) the clock left a date after a minute and entered
        # it again an hour later. That date began only once.
        while True:
            day = _next_first_day(period, day)
            end = self._start_of(day)
            if end > second:
                return start, end
            start = end

    def _start_of(self, day: date) -> int:
        """The first second of a local date."""
        midnight = datetime(day.year, day.month, day.day, tzinfo=self._zone)
        second = int(midnight.timestamp())
        if datetime.fromtimestamp(second, self._zone).replace(tzinfo=None) == midnight.replace(tzinfo=None):
            return second
        # This midnight does not exist: the clock jumps over it, and the date begins at the jump. `fold=0` computes
        # midnight with the offset before the jump (a time after the jump), `fold=1` with the offset after the jump (a
        # time before it). See PEP 495.
        return self._change(int(midnight.replace(fold=1).timestamp()), second)

    def _change(self, before: int, after: int) -> int:
        """The first second after `before`, at most `after`, that has the UTC offset of `after`."""
        new = self._offset(after)
        return before + bisect_left(range(before, after), True, key=lambda second: self._offset(second) == new)

    def _offset(self, second: int) -> int:
        """The UTC offset of the local clock in seconds."""
        offset = datetime.fromtimestamp(second, self._zone).utcoffset()
        return 0 if offset is None else int(offset.total_seconds())


def load_zone(name: str) -> ZoneInfo:
    """The timezone with this IANA name. Raises ValueError, with a message for the user, if it does not exist."""
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
