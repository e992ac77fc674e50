"""At full demand, at least 98 % of a quota is used over a long time, for every period."""

import random

import pytest

from common.settings.model_limits import Strategy
from stages.rate_limiter.quota.amounts import Amounts
from stages.rate_limiter.quota.buckets import SECONDS, Period
from stages.rate_limiter.quota.counters import Unit, WindowId
from stages.rate_limiter.quota.scope import Quota, QuotaLimits

NEW_YEAR = 1_735_689_600.0  # 2025-01-01T00:00Z


def used_at_full_demand(quota: Quota, unit: Unit, start: float, end: float, tokens: int = 0) -> int:
    """Admit tasks whenever they fit, from long before `start`. Returns the amount used from `start` to `end`."""
    total, now = 0, start - (end - start) / 8
    while now < end:
        admitted = quota.admits([tokens] * 5_000, now)
        quota.charge(Amounts(admitted, admitted * tokens, 1), now)
        if now >= start:
            total += {Unit.TASKS: admitted, Unit.TOKENS: admitted * tokens, Unit.REQUESTS: 1}[unit]
        now = quota.opens_at(tokens, now)
    return total


@pytest.mark.parametrize("unit", Unit)
@pytest.mark.parametrize("period", Period)
@pytest.mark.parametrize("limit", [1, 8])
def test_98_percent_of_a_rolling_window_are_used_in_bursts(unit: Unit, period: Period, limit: int) -> None:
    periods = 130
    quota = Quota({WindowId(unit, period): limit}, Strategy.ROLLING)
    end = NEW_YEAR + periods * SECONDS[period]
    used = used_at_full_demand(quota, unit, NEW_YEAR, end, tokens=1)
    assert 0.98 * limit * periods <= used <= limit * (periods + 1)


@pytest.mark.parametrize("period", Period)
def test_98_percent_of_a_rolling_window_are_used_when_charges_are_spread_over_it(period: Period) -> None:
    periods, limit, length = 12, 1_000, SECONDS[period]
    quota = Quota({WindowId(Unit.TOKENS, period): limit}, Strategy.ROLLING)
    moments = random.Random(4)
    now = NEW_YEAR - 3 * length
    for now in sorted(now + moments.random() * length for _ in range(200)):
        quota.charge(Amounts(1, 5, 1), now)
    used = used_at_full_demand(quota, Unit.TOKENS, NEW_YEAR, NEW_YEAR + periods * length, tokens=5)
    assert 0.98 * limit * periods <= used <= limit * (periods + 1)


@pytest.mark.parametrize("period", Period)
@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin"])
def test_a_fixed_window_is_used_completely(period: Period, zone: str) -> None:
    quota = Quota({WindowId(Unit.TASKS, period): 10}, Strategy.FIXED, zone)
    now, admitted = NEW_YEAR, []
    for _ in range(300):
        admitted.append(quota.admits([0] * 99, now))
        quota.charge(Amounts(admitted[-1], 0, 1), now)
        now = quota.opens_at(0, now)
    assert set(admitted) == {10}
    assert now - NEW_YEAR == pytest.approx(300 * SECONDS[period], rel=0.02)


def test_the_tightest_of_several_windows_is_used_to_98_percent() -> None:
    limits: QuotaLimits = {WindowId(Unit.TASKS, Period.MINUTE): 10, WindowId(Unit.TASKS, Period.HOUR): 500}
    hours = 60
    end = NEW_YEAR + hours * 3_600
    used = used_at_full_demand(Quota(limits, Strategy.ROLLING), Unit.TASKS, NEW_YEAR, end)
    assert 0.98 * 500 * hours <= used <= 500 * (hours + 1)


def test_tokens_that_a_settlement_frees_are_used_again() -> None:
    """Estimates are four times too high and are settled a second later; still 98 % of the quota are used."""
    quota = Quota({WindowId(Unit.TOKENS, Period.HOUR): 10_000}, Strategy.ROLLING)
    used, now, hours = 0, NEW_YEAR, 60
    while now < NEW_YEAR + hours * 3_600:
        admitted = quota.admits([40] * 5_000, now)
        receipt = quota.charge(Amounts(admitted, admitted * 40, 1), now)
        quota.settle(receipt, admitted * 40, admitted * 10, now + 1)
        used += admitted * 10
        now = max(now + 1, quota.opens_at(40, now + 1))
    assert 0.98 * 10_000 * hours <= used <= 10_000 * (hours + 1)
