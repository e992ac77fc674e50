"""Rolling buckets, exact to the half second, and calendar buckets, also on days when the clocks change."""

import math
from datetime import UTC, datetime
from fractions import Fraction
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.settings.model_limits import Strategy
from stages.rate_limiter.quota.buckets import (
    BUCKETS,
    SECONDS,
    CalendarBuckets,
    Period,
    RollingBuckets,
    load_zone,
)

ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Sao_Paulo",  # has no midnight on the day when daylight saving begins
    "America/Havana",  # has midnight twice when daylight saving ends, and no midnight when it begins
    "America/St_Johns",  # until 2011 the clock changed at 00:01, so a date was left and entered again
    "Asia/Beirut",
    "Asia/Kathmandu",  # +05:45
    "Asia/Kolkata",  # +05:30
    "Australia/Lord_Howe",  # daylight saving of half an hour
    "Pacific/Apia",  # has no 30 December 2011
    "Pacific/Chatham",  # +12:45, with daylight saving
]
SINCE, UNTIL = 157_766_400, 2_145_916_800  # 1975 to 2038
HOUR = 3_600

periods = st.sampled_from(Period)
moments = st.floats(0, 4e9, allow_nan=False)


@given(periods, moments, st.floats(0, 1))
def test_charges_within_a_period_are_at_most_120_buckets_apart(period: Period, first: float, part: float) -> None:
    buckets = RollingBuckets()
    second = first + SECONDS[period] * part
    while Fraction(second) - Fraction(first) > SECONDS[period]:  # the sum was rounded up
        second = math.nextafter(second, 0)
    assert 0 <= buckets.number(period, second) - buckets.number(period, first) <= BUCKETS


@given(periods, st.integers(0, 8_000_000_000))
def test_a_rolling_bucket_expires_exactly_at_its_expiry(period: Period, number: int) -> None:
    buckets = RollingBuckets()
    expiry = buckets.expiry(period, number)
    assert buckets.number(period, expiry) == number + buckets.slots
    assert buckets.number(period, math.nextafter(expiry, 0)) == number + buckets.slots - 1
    assert buckets.number(period, buckets.end(period, number)) == number + 1
    assert buckets.number(period, math.nextafter(buckets.end(period, number), 0)) == number


@given(st.sampled_from(ZONES), periods, st.integers(SINCE, UNTIL))
def test_calendar_periods_follow_each_other_without_gap_or_overlap(name: str, period: Period, second: int) -> None:
    buckets = CalendarBuckets(name)
    start = buckets.number(period, second + 0.75)
    end = int(buckets.end(period, start))
    assert start <= second < end
    assert buckets.expiry(period, start) == end
    fresh = CalendarBuckets(name)  # without cached bounds
    assert {fresh.number(period, at) for at in (end - 1, start, second)} == {start}
    assert fresh.number(period, end) == end
    assert CalendarBuckets(name).number(period, start - 1) < start


@given(st.sampled_from(ZONES), st.integers(SINCE, UNTIL))
def test_calendar_days_weeks_and_months_begin_at_the_first_instant_of_a_date(name: str, second: int) -> None:
    buckets, zone = CalendarBuckets(name), ZoneInfo(name)

    def day(at: float) -> int:
        return datetime.fromtimestamp(at, zone).toordinal()

    start = buckets.number(Period.DAY, second)
    assert day(start - 1) < day(start) <= day(second)
    week = datetime.fromtimestamp(buckets.number(Period.WEEK, second), zone)
    # None of these zones skipped a Monday or the first day of a month.
    assert week.isoweekday() == 1
    assert datetime.fromtimestamp(buckets.number(Period.MONTH, second), zone).day == 1


@given(st.sampled_from(ZONES), st.sampled_from([Period.MINUTE, Period.HOUR]), st.integers(SINCE, UNTIL))
def test_calendar_hours_and_minutes_begin_when_the_local_clock_shows_it(name: str, period: Period, second: int) -> None:
    buckets, zone = CalendarBuckets(name), ZoneInfo(name)

    def shows_full(at: float) -> bool:
        local = datetime.fromtimestamp(at, zone)
        return local.second == 0 and (period is Period.MINUTE or local.minute == 0)

    start = buckets.number(period, second)
    end = int(buckets.end(period, start))
    assert shows_full(start)
    assert shows_full(end)
    assert not any(shows_full(at) for at in range(start + 60, end, 60))


LENGTHS = [
    ("Europe/Berlin", Period.DAY, "2025-03-30T12:00", 23),
    ("Europe/Berlin", Period.DAY, "2025-10-26T12:00", 25),
    ("Europe/Berlin", Period.WEEK, "2025-10-26T12:00", 169),
    ("Europe/Berlin", Period.MONTH, "2025-03-30T12:00", 31 * 24 - 1),
    ("America/New_York", Period.DAY, "2025-11-02T12:00", 25),
    ("America/Sao_Paulo", Period.DAY, "2018-11-04T12:00", 23),
    ("America/Sao_Paulo", Period.DAY, "2018-02-17T12:00", 25),
    ("America/Havana", Period.DAY, "2023-03-12T12:00", 23),
    ("America/Havana", Period.DAY, "2023-11-05T12:00", 25),
    ("Asia/Beirut", Period.DAY, "2022-03-27T12:00", 23),
    ("Australia/Lord_Howe", Period.DAY, "2025-04-06T12:00", 24.5),
    ("Australia/Lord_Howe", Period.DAY, "2025-10-05T12:00", 23.5),
    ("America/St_Johns", Period.DAY, "2006-10-28T12:00", 24),  # the 29th was first entered here, and left at 00:01
    ("America/St_Johns", Period.DAY, "2006-10-29T12:00", 25),
    ("Pacific/Apia", Period.DAY, "2011-12-29T12:00", 24),
    ("Pacific/Apia", Period.MONTH, "2011-12-29T12:00", 30 * 24),
    ("UTC", Period.MONTH, "2025-02-14T12:00", 28 * 24),
    ("UTC", Period.MONTH, "2024-02-14T12:00", 29 * 24),
    ("UTC", Period.MONTH, "2100-02-14T12:00", 28 * 24),
    ("UTC", Period.MONTH, "2000-02-14T12:00", 29 * 24),
    ("UTC", Period.MONTH, "2025-12-31T23:00", 31 * 24),
    ("Asia/Kathmandu", Period.HOUR, "2025-05-01T12:50", 1),
    (
        "Australia/Lord_Howe",
        Period.HOUR,
        "2025-04-06T01:10",
        1.5,
    ),  # 02:00 becomes 01:30: ninety minutes to the next :00
    ("Australia/Lord_Howe", Period.HOUR, "2025-10-05T02:45", 1.5),  # 02:00 becomes 02:30
]


@pytest.mark.parametrize(("zone", "period", "local", "hours"), LENGTHS)
def test_calendar_periods_have_the_length_that_the_local_clock_gives_them(
    zone: str, period: Period, local: str, hours: float
) -> None:
    buckets = CalendarBuckets(zone)
    start = buckets.number(period, datetime.fromisoformat(local).replace(tzinfo=ZoneInfo(zone)).timestamp())
    assert buckets.end(period, start) - start == hours * HOUR


def test_the_hour_repeated_at_the_end_of_daylight_saving_is_two_buckets() -> None:
    buckets = CalendarBuckets("Europe/Berlin")
    change = int(datetime(2025, 10, 26, 1, tzinfo=UTC).timestamp())  # 03:00 becomes 02:00
    starts = [buckets.number(Period.HOUR, change + quarter * 900) for quarter in range(-8, 8)]
    assert sorted(set(starts)) == [change - 2 * HOUR, change - HOUR, change, change + HOUR]
    local = [datetime.fromtimestamp(start, ZoneInfo("Europe/Berlin")).hour for start in sorted(set(starts))]
    assert local == [1, 2, 2, 3]


def test_a_day_without_midnight_begins_at_one_o_clock() -> None:
    zone = ZoneInfo("America/Sao_Paulo")
    start = CalendarBuckets(zone.key).number(Period.DAY, datetime(2018, 11, 4, 20, tzinfo=zone).timestamp())
    assert datetime.fromtimestamp(start, zone).isoformat() == "2018-11-04T01:00:00-02:00"


def test_a_date_that_the_clock_enters_twice_begins_once() -> None:
    buckets = CalendarBuckets("America/St_Johns")
    midnight = int(
        datetime(2006, 10, 29, 2, 30, tzinfo=UTC).timestamp()
    )  # a minute later it is 23:01 of the 28th again
    for minutes in (0, 1, 15, 59, 60, 61):
        assert CalendarBuckets("America/St_Johns").number(Period.DAY, midnight + 60 * minutes) == midnight
    assert buckets.end(Period.DAY, midnight) == midnight + 25 * HOUR


def test_hours_begin_at_the_local_hour_in_a_zone_with_a_quarter_hour_offset() -> None:
    start = CalendarBuckets("Asia/Kathmandu").number(Period.HOUR, datetime(2025, 5, 1, 12, tzinfo=UTC).timestamp())
    assert datetime.fromtimestamp(start, UTC).isoformat() == "2025-05-01T11:15:00+00:00"


@pytest.mark.parametrize(
    ("day", "monday"),
    [
        ("2020-12-31", "2020-12-28"),
        ("2021-01-03", "2020-12-28"),
        ("2021-01-04", "2021-01-04"),
        ("2024-12-30", "2024-12-30"),
        ("2025-01-05", "2024-12-30"),
        ("2027-01-01", "2026-12-28"),
    ],
)
def test_iso_weeks_cross_the_end_of_a_year(day: str, monday: str) -> None:
    now = datetime.fromisoformat(day).replace(hour=15, tzinfo=UTC).timestamp()
    start = CalendarBuckets("UTC").number(Period.WEEK, now)
    assert datetime.fromtimestamp(start, UTC).date().isoformat() == monday


def test_the_lengths_of_24_calendar_months_are_right() -> None:
    buckets, zone = CalendarBuckets("America/New_York"), ZoneInfo("America/New_York")
    starts = [buckets.number(Period.MONTH, datetime(2024, 1, 9, tzinfo=zone).timestamp())]
    for _ in range(24):
        starts.append(int(buckets.end(Period.MONTH, starts[-1])))
    days = [round((later - earlier) / 86_400) for earlier, later in pairwise(starts)]
    assert days == [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]


@pytest.mark.parametrize("name", ["Mars/Olympus", "Europe", "", "../etc/passwd", "/etc/localtime", "UTC\0"])
def test_an_unknown_timezone_is_refused_with_a_message_for_the_user(name: str) -> None:
    with pytest.raises(ValueError, match=r"unknown timezone .*: an IANA name is needed"):
        load_zone(name)


def test_strategies_and_periods_have_the_names_of_the_settings_and_metrics() -> None:
    assert [*Period] == ["minute", "hour", "day", "week", "month"]
    assert [*Strategy] == ["rolling", "fixed"]
