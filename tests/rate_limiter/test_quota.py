"""One scope: admission, charges, refunds, settlements, and invalid values."""

import math
from datetime import UTC, datetime

import numpy as np
import pytest

from common.settings.model_limits import Strategy
from common.wire.parts import QuotaWindow
from stages.rate_limiter.quota.amounts import Amounts
from stages.rate_limiter.quota.buckets import Period
from stages.rate_limiter.quota.counters import WINDOWS, Unit, WindowId
from stages.rate_limiter.quota.scope import MAX_LIMIT, UNLIMITED, Quota, QuotaLimits

NOON = datetime(2025, 5, 14, 12, tzinfo=UTC).timestamp()  # a Wednesday; a full minute, hour, and half a day
TASKS_MINUTE = WindowId(Unit.TASKS, Period.MINUTE)
TASKS_HOUR = WindowId(Unit.TASKS, Period.HOUR)
TOKENS_MINUTE = WindowId(Unit.TOKENS, Period.MINUTE)
TOKENS_DAY = WindowId(Unit.TOKENS, Period.DAY)
REQUESTS_MINUTE = WindowId(Unit.REQUESTS, Period.MINUTE)

both = pytest.mark.parametrize("strategy", Strategy)


def spend(quota: Quota, tasks: int, now: float, tokens: int = 0) -> int:
    """Admit and charge as many of these tasks as fit; returns their number."""
    admitted = quota.admits([tokens] * tasks, now)
    quota.charge(Amounts(admitted, tokens * admitted, 1), now)
    return admitted


def only(usage: list[QuotaWindow]) -> QuotaWindow:
    (one,) = usage
    return one


@both
def test_a_batch_gets_at_most_the_rest_of_the_quota(strategy: Strategy) -> None:
    quota = Quota({TASKS_MINUTE: 30}, strategy)
    assert [spend(quota, 20, NOON) for _ in range(3)] == [20, 10, 0]


@both
@pytest.mark.parametrize("window", WINDOWS)
def test_every_window_may_be_limited_to_one(strategy: Strategy, window: WindowId) -> None:
    quota = Quota({window: 1}, strategy)
    for _ in range(3):
        assert spend(quota, 1, NOON, tokens=1) == 1
        assert spend(quota, 1, NOON, tokens=1) == 0
        assert quota.blocked_by(1, NOON) == [window]
        quota = Quota({window: 1}, strategy)


@both
def test_without_limits_everything_is_admitted(strategy: Strategy) -> None:
    quota = Quota({TASKS_MINUTE: 0}, strategy)
    assert spend(quota, 5_000, NOON, tokens=8_192) == 5_000
    assert quota.blocked_by(10**9, NOON) == []
    assert quota.opens_at(10**9, NOON) == NOON
    assert quota.usage(NOON) == []
    assert (quota.remaining(NOON) > UNLIMITED / 2).all()


def test_tasks_are_admitted_in_order_until_their_tokens_exceed_the_quota() -> None:
    quota = Quota({TOKENS_MINUTE: 100}, Strategy.ROLLING)
    assert quota.admits([40, 60, 1], NOON) == 2
    assert quota.admits([40, 61, 1], NOON) == 1
    assert quota.admits(np.array([101, 1]), NOON) == 0
    assert quota.admits([], NOON) == 0


def test_no_task_is_admitted_when_no_request_is_left() -> None:
    quota = Quota({REQUESTS_MINUTE: 2}, Strategy.ROLLING)
    assert [spend(quota, 50, NOON) for _ in range(3)] == [50, 50, 0]
    assert quota.opens_at(1, NOON) == NOON + 60.5


def test_the_remaining_amounts_are_an_array_of_units_by_periods() -> None:
    quota = Quota({TASKS_HOUR: 10, TOKENS_DAY: 500}, Strategy.FIXED)
    quota.charge(Amounts(4, 123, 1), NOON)
    remaining = quota.remaining(NOON)
    assert remaining.shape == (3, 5)
    assert (remaining[0, 1], remaining[1, 2]) == (6, 377)
    assert remaining[TASKS_HOUR.cell] == 6


def test_a_rolling_minute_frees_each_half_second_a_minute_later() -> None:
    quota = Quota({TASKS_MINUTE: 10}, Strategy.ROLLING)
    assert spend(quota, 4, NOON + 0.4) == 4
    assert spend(quota, 9, NOON + 0.5) == 6
    assert spend(quota, 9, math.nextafter(NOON + 60.5, 0)) == 0
    assert spend(quota, 9, NOON + 60.5) == 4
    assert spend(quota, 9, NOON + 61) == 6


def test_a_fixed_minute_opens_when_the_next_minute_begins() -> None:
    quota = Quota({TASKS_MINUTE: 10}, Strategy.FIXED)
    assert spend(quota, 20, NOON + 59.9) == 10
    assert quota.opens_at(1, NOON + 59.95) == NOON + 60
    assert spend(quota, 20, math.nextafter(NOON + 60, 0)) == 0
    assert spend(quota, 20, NOON + 60) == 10


@both
def test_a_clock_that_is_set_back_frees_no_quota(strategy: Strategy) -> None:
    quota = Quota({TASKS_MINUTE: 5}, strategy)
    assert spend(quota, 5, NOON) == 5
    for now in (NOON - 1, NOON - 3_600, NOON - 10**8, 0.0):
        assert spend(quota, 1, now) == 0
        assert quota.opens_at(1, now) > NOON
    assert quota.latest == NOON
    assert quota.charge(Amounts(0, 0, 0), NOON - 50).at == NOON
    assert spend(quota, 5, NOON + 61) == 5
    assert quota.opens_at(1, NOON) > NOON + 61


@both
def test_a_refund_frees_at_most_what_was_charged(strategy: Strategy) -> None:
    quota = Quota({TASKS_MINUTE: 10, TOKENS_MINUTE: 100, REQUESTS_MINUTE: 1}, strategy)
    receipt = quota.charge(Amounts(8, 80, 1), NOON)
    assert quota.admits([1], NOON + 1) == 0
    quota.refund(receipt, Amounts(5, 50, 1), NOON + 2)
    assert quota.admits([5] * 20, NOON + 2) == 7
    quota.refund(receipt, Amounts(50, 500, 10), NOON + 2)
    assert quota.admits([5] * 20, NOON + 2) == 10


@both
def test_a_refund_reaches_only_windows_that_still_count_it(strategy: Strategy) -> None:
    quota = Quota({TASKS_MINUTE: 10, TASKS_HOUR: 15}, strategy)
    receipt = quota.charge(Amounts(8, 0, 1), NOON)
    quota.charge(Amounts(3, 0, 1), NOON + 90)
    quota.refund(receipt, Amounts(8, 0, 1), NOON + 91)
    assert {usage.period: usage.current for usage in quota.usage(NOON + 91)} == {"minute": 3, "hour": 3}
    quota.refund(receipt, Amounts(3, 0, 1), NOON + 7_300)
    assert all(usage.current == 0 for usage in quota.usage(NOON + 7_300))


def test_a_refund_of_an_expired_charge_does_not_change_the_bucket_in_its_slot() -> None:
    quota = Quota({TASKS_MINUTE: 10}, Strategy.ROLLING)
    receipt = quota.charge(Amounts(8, 0, 1), NOON)
    quota.charge(Amounts(3, 0, 1), NOON + 60.5)  # 121 buckets later: the same slot
    quota.refund(receipt, Amounts(8, 0, 1), NOON + 60.5)
    assert only(quota.usage(NOON + 60.5)).current == 3


def test_every_call_advances_the_latest_time() -> None:
    quota = Quota({}, Strategy.FIXED)
    receipt = quota.charge(Amounts(1, 1, 1), NOON)
    quota.refund(receipt, Amounts(1, 0, 1), NOON + 100)
    assert quota.latest == NOON + 100
    quota.settle(receipt, 1, 0, NOON + 200)
    assert quota.latest == NOON + 200


@both
def test_a_settlement_frees_the_excess_of_the_reservation(strategy: Strategy) -> None:
    quota = Quota({TOKENS_MINUTE: 100}, strategy)
    receipt = quota.charge(Amounts(1, 90, 1), NOON)
    assert quota.admits([20], NOON + 5) == 0
    quota.settle(receipt, 90, 70, NOON + 5)
    assert quota.admits([20, 10, 1], NOON + 5) == 2


@both
def test_a_settlement_above_the_limit_admits_nothing_until_enough_has_expired(strategy: Strategy) -> None:
    quota = Quota({TOKENS_MINUTE: 100}, strategy)
    receipt = quota.charge(Amounts(1, 90, 1), NOON)
    quota.settle(receipt, 90, 250, NOON + 5)
    usage = only(quota.usage(NOON + 5))
    assert (usage.current, usage.remaining, usage.exhausted_at) == (250, 0, NOON + 5)
    opens = quota.opens_at(100, NOON + 5)
    assert quota.admits([1], math.nextafter(opens, 0)) == 0
    assert quota.admits([100], opens) == 1


def test_the_windows_that_block_a_task_are_named() -> None:
    quota = Quota({TASKS_MINUTE: 2, TASKS_HOUR: 9, TOKENS_MINUTE: 100}, Strategy.ROLLING)
    quota.charge(Amounts(2, 60, 1), NOON)
    assert quota.blocked_by(40, NOON) == [TASKS_MINUTE]
    assert quota.blocked_by(41, NOON) == [TASKS_MINUTE, TOKENS_MINUTE]
    assert quota.blocked_by(41, NOON + 61) == []


def test_a_task_with_more_tokens_than_a_limit_never_fits() -> None:
    quota = Quota({TOKENS_MINUTE: 100, TOKENS_DAY: 1_000, TASKS_HOUR: 5}, Strategy.FIXED)
    assert not quota.never_fits(100)
    assert quota.never_fits(101)
    assert quota.opens_at(101, NOON) == math.inf


def test_a_task_fits_when_the_last_of_several_windows_has_room() -> None:
    quota = Quota({TASKS_MINUTE: 2, TASKS_HOUR: 3}, Strategy.ROLLING)
    quota.charge(Amounts(2, 0, 1), NOON)
    assert quota.opens_at(1, NOON) == NOON + 60.5
    quota.charge(Amounts(1, 0, 1), NOON + 60.5)
    assert quota.opens_at(1, NOON + 60.5) == NOON + 3_630
    assert quota.opens_at(1, NOON + 3_629) == NOON + 3_630


def test_a_task_fits_when_enough_tokens_have_expired() -> None:
    quota = Quota({TOKENS_MINUTE: 100}, Strategy.ROLLING)
    for second in range(10):
        quota.charge(Amounts(1, 10, 1), NOON + second)
    assert [quota.opens_at(need, NOON + 9) for need in (1, 10, 11, 100)] == [
        NOON + 60.5,
        NOON + 60.5,
        NOON + 61.5,
        NOON + 69.5,
    ]


@pytest.mark.parametrize("limit", [-1, MAX_LIMIT + 1, 1.5, "10", None, True, math.nan])
def test_an_invalid_limit_is_refused_with_a_message_for_the_user(limit: object) -> None:
    limits: QuotaLimits = {TASKS_HOUR: limit}  # type: ignore[dict-item]
    with pytest.raises(
        ValueError, match=r"tasks per hour is .*: a whole number from 0 \(no limit\) to 10\^15 is needed"
    ):
        Quota(limits, Strategy.ROLLING)


def test_an_invalid_strategy_or_timezone_is_refused() -> None:
    with pytest.raises(ValueError, match="'sliding' is not a valid Strategy"):
        Quota({}, "sliding")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unknown timezone 'Mars'"):
        Quota({}, Strategy.ROLLING, "Mars")


@pytest.mark.parametrize("amounts", [Amounts(-1, 0, 0), Amounts(0, -1, 0), Amounts(0, 0, -1)])
def test_a_negative_amount_is_refused(amounts: Amounts) -> None:
    quota = Quota({}, Strategy.ROLLING)
    receipt = quota.charge(Amounts(1, 1, 1), NOON)
    with pytest.raises(ValueError, match="a negative amount"):
        quota.charge(amounts, NOON)
    with pytest.raises(ValueError, match="a negative amount"):
        quota.refund(receipt, amounts, NOON)
    with pytest.raises(ValueError, match="a negative amount"):
        quota.settle(receipt, 0, -1, NOON)


def test_the_largest_limits_do_not_overflow() -> None:
    quota = Quota(dict.fromkeys(WINDOWS, MAX_LIMIT), Strategy.ROLLING)
    quota.charge(Amounts(MAX_LIMIT, MAX_LIMIT, MAX_LIMIT), NOON)
    assert quota.admits([1], NOON) == 0
    assert {usage.remaining for usage in quota.usage(NOON)} == {0}


def test_an_unsettled_charge_counts_from_the_latest_moment_at_which_it_may_reach_its_provider() -> None:
    quota = Quota({WindowId(Unit.TASKS, Period.MINUTE): 10}, Strategy.ROLLING, reach_s=10.5)
    receipt = quota.charge(Amounts(10, 0, 1), 1_000_000.0)
    assert quota.remaining(1_000_000.0).min() == 0, "at once"
    assert quota.opens_at(0, 1_000_000.0) == 1_000_071.0
    assert quota.admits([0], 1_000_070.5) == 0, "it may have reached the provider less than a minute ago"
    again = Quota({WindowId(Unit.TASKS, Period.MINUTE): 10}, Strategy.ROLLING, reach_s=10.5)
    receipt = again.charge(Amounts(10, 0, 1), 1_000_000.0)
    again.move(receipt, Amounts(10, 0, 1), 1_000_000.4, 1_000_000.6)
    assert again.opens_at(0, 1_000_001.0) == 1_000_060.5, "when it is known, it counts from then"
    refunded = again.charge(Amounts(3, 0, 1), 1_000_001.0)
    again.refund(refunded, Amounts(3, 0, 1), 1_000_002.0)
    assert again.usage(1_000_002.0)[0].current == 10


def test_a_calendar_period_tells_when_it_ends() -> None:
    limits = {WindowId(Unit.TASKS, Period.MINUTE): 10, WindowId(Unit.TASKS, Period.DAY): 100}
    assert Quota(limits, Strategy.FIXED).period_ends(1_000_019.0) == 1_000_020.0
    assert Quota(limits, Strategy.ROLLING).period_ends(1_000_019.0) == float("inf")
    assert Quota({}, Strategy.FIXED).period_ends(1_000_019.0) == float("inf")


def test_a_charge_that_reached_its_provider_late_expires_later() -> None:
    quota = Quota({WindowId(Unit.TASKS, Period.MINUTE): 10}, Strategy.ROLLING)
    receipt = quota.charge(Amounts(10, 0, 1), 1_000_000.0)
    quota.move(receipt, Amounts(10, 0, 1), 1_000_004.0, 1_000_010.0)
    assert quota.opens_at(0, 1_000_010.0) == 1_000_064.5
    assert quota.remaining(1_000_060.5).min() == 0
    calendar = Quota({WindowId(Unit.TASKS, Period.MINUTE): 10}, Strategy.FIXED)
    late = calendar.charge(Amounts(10, 0, 1), 1_000_019.0)  # a minute ends a second later
    calendar.move(late, Amounts(10, 0, 1), 1_000_021.0, 1_000_022.0)
    assert calendar.usage(1_000_022.0)[0].current == 0, "a calendar minute counts a charge when it was admitted"
