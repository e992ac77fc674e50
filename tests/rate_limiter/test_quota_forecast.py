"""The state of a quota window: usage, reset and forecast."""

from datetime import UTC, datetime

import pytest

from common.settings.model_limits import Strategy
from common.wire.parts import QuotaWindow
from stages.rate_limiter.quota.amounts import Amounts
from stages.rate_limiter.quota.buckets import SECONDS, Period
from stages.rate_limiter.quota.counters import Unit, WindowId
from stages.rate_limiter.quota.scope import Quota

NOON = datetime(2025, 5, 14, 12, tzinfo=UTC).timestamp()  # a Wednesday; a full minute, hour, and half a day
TASKS_HOUR = WindowId(Unit.TASKS, Period.HOUR)

both = pytest.mark.parametrize("strategy", Strategy)


def only(usage: list[QuotaWindow]) -> QuotaWindow:
    (one,) = usage
    return one


@pytest.mark.parametrize("period", Period)
def test_a_fixed_window_resets_at_the_end_of_its_calendar_period(period: Period) -> None:
    quota = Quota({WindowId(Unit.TASKS, period): 7}, Strategy.FIXED, "Europe/Berlin")
    resets = {
        "minute": "2025-05-14T14:01",
        "hour": "2025-05-14T15:00",
        "day": "2025-05-15",
        "week": "2025-05-19",
        "month": "2025-06-01",
    }
    reset_at = datetime.fromisoformat(
        f"{resets[period]}+02:00" if "T" in resets[period] else f"{resets[period]}T00:00+02:00"
    )
    assert only(quota.usage(NOON)) == QuotaWindow("", Unit.TASKS, period, 0, 7, 7, reset_at.timestamp(), None)
    quota.charge(Amounts(5, 0, 1), NOON)
    usage = only(quota.usage(NOON))
    assert (usage.current, usage.remaining, usage.reset_at) == (5, 2, reset_at.timestamp())


@pytest.mark.parametrize("period", Period)
def test_a_rolling_window_resets_when_its_next_bucket_expires(period: Period) -> None:
    quota = Quota({WindowId(Unit.TASKS, period): 7}, Strategy.ROLLING)
    length = SECONDS[period]
    start = NOON - NOON % (210 * 86_400)  # where a bucket of every period begins
    assert only(quota.usage(start)).reset_at == start
    quota.charge(Amounts(5, 0, 1), start)
    quota.charge(Amounts(1, 0, 1), start + length / 2)
    assert only(quota.usage(start + length / 2)).reset_at == start + length * 121 / 120
    later = only(quota.usage(start + length * 121 / 120))
    assert (later.current, later.reset_at) == (1, start + length * 1.5 + length / 120)


@both
def test_the_forecast_at_a_steady_rate_is_right(strategy: Strategy) -> None:
    quota = Quota({TASKS_HOUR: 1_000}, strategy)
    assert only(quota.usage(NOON)).exhausted_at is None
    for minute in range(20):
        quota.charge(Amounts(30, 0, 1), NOON + 60 * minute)
    now = NOON + 20 * 60 - 1
    forecast = only(quota.usage(now)).exhausted_at
    assert forecast is not None  # 600 are used, 30 a minute: 400 more take 13 minutes
    assert forecast - now == pytest.approx(400 * 2, rel=0.2)


@both
def test_traffic_that_fits_has_no_forecast(strategy: Strategy) -> None:
    quota = Quota({TASKS_HOUR: 1_000}, strategy)
    for minute in range(59):
        quota.charge(Amounts(15, 0, 1), NOON + 60 * minute)
    assert only(quota.usage(NOON + 59 * 60)).exhausted_at is None


def test_a_forecast_counts_amounts_that_expire_before_it() -> None:
    quota = Quota({TASKS_HOUR: 1_000}, Strategy.ROLLING)
    quota.charge(Amounts(900, 0, 1), NOON)
    for minute in range(50, 60):
        quota.charge(Amounts(5, 0, 1), NOON + 60 * minute)
    # 50 are left and 5 a minute are used; in a minute 900 more are free, and 5 a minute fit for good.
    assert only(quota.usage(NOON + 3_590)).exhausted_at is None


def test_a_forecast_ignores_amounts_that_expire_after_it() -> None:
    quota = Quota({TASKS_HOUR: 1_000}, Strategy.ROLLING)
    quota.charge(Amounts(900, 0, 1), NOON)
    quota.charge(Amounts(99, 0, 1), NOON + 3_601)
    now = NOON + 3_602  # one is left; the last tenth began 332 s ago; 900 expire in 28 s
    assert only(quota.usage(now)).exhausted_at == pytest.approx(now + 332 / 99, abs=0.01)


def test_a_forecast_disappears_when_the_traffic_ends() -> None:
    quota = Quota({TASKS_HOUR: 1_000}, Strategy.ROLLING)
    quota.charge(Amounts(900, 0, 1), NOON)
    assert only(quota.usage(NOON + 60)).exhausted_at is not None
    assert only(quota.usage(NOON + 500)).exhausted_at is None
